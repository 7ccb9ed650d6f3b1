//! Mistakes end with the right exit code and a message that names them.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::Bench;

fn bench() -> (Bench, Value) {
    let bench = Bench::new();
    bench.write("in/a.csv", "id,price\n1,2\n3,4\n");
    let spec = json!({
        "sources": {"orders": {"format": "csv", "path": "in/*.csv"}},
        "map_sql": "SELECT id, price FROM orders",
    });
    (bench, spec)
}

fn with(spec: &Value, pointer: &str, value: Value) -> Value {
    let mut spec = spec.clone();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    spec.pointer_mut(parent).expect("a place")[key] = value;
    spec
}

#[test]
fn bad_sql_fails_in_the_plan() {
    let (bench, spec) = bench();
    for (key, sql, told) in [
        ("/map_sql", "SELECT prise FROM orders", "prise"),
        ("/map_sql", "SELECT price FROM order_lines", "order_lines"),
        ("/map_sql", "SELEC price FROM orders", "SELEC"),
        ("/map_sql", "SELECT 1 AS one", "does not read \"orders\""),
        ("/map_sql", "SELECT id, price AS id FROM orders", "id"),
        ("/map_sql", "DROP TABLE orders", "only a query"),
        ("/map_sql", "COPY orders TO '/tmp/x.csv'", "only a query"),
        (
            "/map_sql",
            "SELECT id FROM orders; SELECT price FROM orders",
            "single SQL statement",
        ),
        ("/reduce_sql", "SELECT sum(amount) FROM parts", "amount"),
        ("/reduce_sql", "SELECT sum(price) FROM orders", "orders"),
    ] {
        let message = bench
            .plan(&with(&spec, key, sql.into()))
            .failed(1, "bad_sql");
        assert!(message.contains(told), "{sql}: {message}");
        assert!(message.contains(&key[1..]), "{sql}: {message}");
    }
}

#[test]
fn bad_specs_name_the_key() {
    let (bench, spec) = bench();
    for (key, value, told) in [
        ("/colour", json!("red"), "colour"),
        (
            "/sources/orders/pth",
            json!("x"),
            "sources.orders: unknown field `pth`",
        ),
        (
            "/sources/Orders",
            json!({"format": "csv", "path": "x"}),
            "Orders",
        ),
        (
            "/sources/parts",
            json!({"format": "csv", "path": "x"}),
            "parts",
        ),
        ("/sources/orders/format", json!("xml"), "xml"),
        ("/sources/orders/path", json!("ftp://x/y"), "ftp://"),
        ("/sources/orders/delimiter", json!("€"), "delimiter"),
        ("/sources/orders/schema", json!({"price": "flot"}), "flot"),
        ("/sources/orders/schema", json!({"prise": "float"}), "prise"),
        ("/partitions", json!({"size": 3}), "size"),
        ("/partitions", json!({"n": 0}), "at least 1"),
        ("/partitions", json!({"target": "3 parsecs"}), "parsecs"),
        ("/partitions", json!({"n": 2, "target": 5}), "not both"),
        ("/partition_source", json!("lines"), "lines"),
        ("/resources", json!({"memory": "1MiB"}), "resources.memory"),
        ("/sink", json!({"format": "xls", "path": "/x"}), "xls"),
        (
            "/sink",
            json!({"format": "csv", "path": "out/"}),
            "relative",
        ),
        (
            "/sink",
            json!({"format": "csv", "path": "/x/*.csv"}),
            "folder",
        ),
    ] {
        let message = bench.plan(&with(&spec, key, value)).failed(1, "bad_spec");
        assert!(message.contains(told), "{key}: {message}");
    }
}

#[test]
fn bad_requests_are_the_callers() {
    let (bench, spec) = bench();
    let work_dir = bench.work_dir();
    for (phase, request, told) in [
        ("plan", json!({"spec": spec}), "work_dir"),
        ("plan", json!({"work_dir": work_dir}), "spec"),
        (
            "plan",
            json!({"spec": spec, "work_dir": work_dir, "speed": 9}),
            "speed",
        ),
        (
            "part",
            json!({"spec": spec, "work_dir": work_dir, "partition": {"index": 0}}),
            "partition",
        ),
        (
            "commit",
            json!({"spec": spec, "work_dir": work_dir, "plan": "x", "parts": [], "run_key": "a/b"}),
            "a/b",
        ),
    ] {
        let message = bench.run(phase, &request, None).failed(2, "bad_request");
        assert!(message.contains(told), "{phase}: {message}");
    }
    let engine = || Command::new(env!("CARGO_BIN_EXE_gristmill-data"));
    assert_eq!(
        engine()
            .arg("shuffle")
            .output()
            .expect("runs")
            .status
            .code(),
        Some(2)
    );
    let version = engine().arg("--version").output().expect("runs");
    assert!(String::from_utf8_lossy(&version.stdout).contains("datafusion 55."));
}

#[test]
fn sources_that_are_not_there_or_do_not_fit() {
    let (bench, spec) = bench();
    let missing = with(&spec, "/sources/orders/path", "in/*.tsv".into());
    let message = bench.plan(&missing).failed(1, "no_files");
    assert!(
        message.contains("orders") && message.contains("in/*.tsv"),
        "{message}"
    );

    bench.write("in/b.csv", "price,id\n2,1\n");
    let message = bench.plan(&spec).failed(1, "bad_data");
    assert!(
        message.contains("in/b.csv") && message.contains("in/a.csv"),
        "{message}"
    );

    bench.write("in/b.csv", "id,price\n5,cheap\n");
    let typed = with(&spec, "/sources/orders/schema", json!({"price": "bigint"}));
    let plan = bench.plan(&typed).ok();
    let message = bench
        .part(&typed, &plan["partitions"][0])
        .failed(1, "bad_data");
    assert!(message.contains("cheap"), "{message}");

    bench.write("in/c.parquet", "not parquet at all");
    let broken = json!({"sources": {"t": {"format": "parquet", "path": "in/c.parquet"}}, "map_sql": "SELECT * FROM t"});
    let message = bench.plan(&broken).failed(1, "bad_data");
    assert!(message.contains("sources.t"), "{message}");
}

#[test]
fn a_part_refuses_what_was_not_planned() {
    let (bench, spec) = bench();
    let plan = bench.plan(&spec).ok();
    let partition = &plan["partitions"][0];
    let other = with(&spec, "/map_sql", "SELECT id FROM orders".into());
    let message = bench.part(&other, partition).failed(2, "bad_request");
    assert!(
        message.contains("not the one that was planned"),
        "{message}"
    );
    // More memory for a retry is fine.
    bench
        .part(
            &with(&spec, "/resources", json!({"memory": "2GiB"})),
            partition,
        )
        .ok();

    bench.write("in/a.csv", "id,price\n1,2\n3,4\n5,6\n");
    let message = bench.part(&spec, partition).failed(1, "input_changed");
    assert!(
        message.contains("in/a.csv") && message.contains("17 to 21"),
        "{message}"
    );
    std::fs::remove_file(bench.path("in/a.csv")).expect("a file");
    let message = bench.part(&spec, partition).failed(1, "input_changed");
    assert!(message.contains("removed"), "{message}");

    std::fs::remove_dir_all(bench.path("work")).expect("the work folder");
    bench.part(&spec, partition).failed(4, "input_lost");
}

#[test]
fn a_commit_needs_every_part() {
    let (bench, spec) = bench();
    let request = bench.up_to_commit(&with(&spec, "/partitions", json!({"n": 2})), "run");
    let mut short = request.clone();
    short["parts"].as_array_mut().expect("parts").pop();
    let message = bench.commit(&short, None).failed(2, "bad_request");
    assert!(
        message.contains("0 to 1") && message.contains("[0]"),
        "{message}"
    );

    let url = request["parts"][1]["files"][0]["url"]
        .as_str()
        .expect("a file");
    std::fs::remove_file(url.trim_start_matches("file://")).expect("a file");
    let message = bench.commit(&request, None).failed(4, "input_lost");
    assert!(message.contains("partition 1"), "{message}");
}

#[test]
fn a_large_result_needs_a_sink() {
    let (bench, spec) = bench();
    let rows: String = (0..10_001).map(|i| format!("{i},1\n")).collect();
    bench.write("in/a.csv", format!("id,price\n{rows}"));
    let message = bench
        .commit(&bench.up_to_commit(&spec, "run"), None)
        .failed(1, "result_too_large");
    assert!(
        message.contains("10000 rows") && message.contains("sink"),
        "{message}"
    );

    bench.write(
        "in/a.csv",
        format!(
            "id,price\n1,{}\n2,{}\n",
            "x".repeat(600_000),
            "y".repeat(600_000)
        ),
    );
    let message = bench
        .commit(&bench.up_to_commit(&spec, "run"), None)
        .failed(1, "result_too_large");
    assert!(message.contains("1048576 bytes"), "{message}");
}

#[test]
fn the_plan_warns_of_queries_that_partitions_change() {
    let (bench, spec) = bench();
    let rows: String = (0..500).map(|i| format!("{i},1\n")).collect();
    bench.write("in/a.csv", format!("id,price\n{rows}"));
    bench.write("small.csv", "id\n1\n");
    let small = json!({"format": "csv", "path": "small.csv", "broadcast": true});
    let spec = with(
        &with(&spec, "/partitions", json!({"n": 3})),
        "/sources/small",
        small,
    );
    for (sql, told) in [
        ("SELECT count(*) AS n FROM orders", "aggregate"),
        (
            "SELECT a.id FROM orders a JOIN orders b ON a.id = b.price",
            "2 times",
        ),
        (
            "SELECT s.id FROM small s LEFT JOIN orders o ON s.id = o.id",
            "outer",
        ),
    ] {
        let plan = bench.plan(&with(&spec, "/map_sql", sql.into())).ok();
        assert!(
            plan["warnings"].to_string().contains(told),
            "{sql}: {}",
            plan["warnings"]
        );
    }
    let fine = "SELECT o.id FROM orders o LEFT JOIN small s ON s.id = o.id";
    assert_eq!(
        bench.plan(&with(&spec, "/map_sql", fine.into())).ok()["warnings"],
        json!([])
    );
}
