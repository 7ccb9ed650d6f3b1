//! Map and reduce over partitions give what one query over the whole gives.

use serde_json::{Value, json};

use crate::support::{Bench, orders, to_csv, to_json, to_parquet, whole_query};

const MAP: &str = "SELECT region, sum(price) AS s, count(*) AS n, sum(length(note)) AS l, max(id) AS m FROM orders GROUP BY region";
const REDUCE: &str = "SELECT region, sum(s) AS revenue, sum(n) AS orders, sum(l) AS letters, max(m) AS last \
                      FROM parts GROUP BY region ORDER BY region";
const WHOLE: &str = "SELECT region, sum(price) AS revenue, count(*) AS orders, sum(length(note)) AS letters, \
                     max(id) AS last FROM orders GROUP BY region ORDER BY region";

fn check(format: &str, encode: impl Fn(i64, i64) -> Vec<u8>) {
    let bench = Bench::new();
    for (name, first, rows) in [("a", 0, 1500), ("b", 1500, 90), ("c", 1590, 800)] {
        bench.write(&format!("in/{name}.{format}"), encode(first, rows));
    }
    let expected = whole_query(&orders(0, 2390), WHOLE);
    for n in [1, 2, 3, 7] {
        let spec = json!({
            "sources": {"orders": {"format": format, "path": format!("in/*.{format}")}},
            "partitions": {"n": n}, "map_sql": MAP, "reduce_sql": REDUCE,
        });
        let request = bench.up_to_commit(&spec, "run");
        assert_eq!(
            request["parts"].as_array().map(Vec::len),
            Some(n),
            "{format} can be cut into {n}"
        );
        let result = bench.commit(&request, None).ok();
        assert_eq!(
            result["rows"],
            Value::from(expected.clone()),
            "{format} in {n} partitions"
        );
        assert_eq!(result["row_count"], 5);
    }
}

#[test]
fn csv_by_range() {
    check("csv", |first, rows| to_csv(&orders(first, rows)));
}

#[test]
fn json_by_range() {
    check("json", |first, rows| to_json(&orders(first, rows)));
}

#[test]
fn parquet_by_row_group() {
    check("parquet", |first, rows| {
        to_parquet(&orders(first, rows), 50)
    });
}

#[test]
fn by_file_makes_one_partition_per_file() {
    let bench = Bench::new();
    for i in 0..4 {
        bench.write(&format!("in/{i}.csv"), to_csv(&orders(i * 100, 100)));
    }
    let spec = json!({
        "sources": {"orders": {"format": "csv", "path": "in/"}},
        "partitions": {"by": "file"}, "map_sql": MAP, "reduce_sql": REDUCE,
    });
    let plan = bench.plan(&spec).ok();
    let partitions = plan["partitions"].as_array().expect("partitions");
    assert_eq!(partitions.len(), 4);
    // Relative, since the bundle lies elsewhere on the worker that runs the part.
    assert_eq!(partitions[3]["files"][0]["url"], "in/3.csv");
    assert_eq!(
        Value::from(whole_query(&orders(0, 400), WHOLE)),
        bench.all(&spec)["rows"]
    );

    let mut grouped = spec;
    grouped["partitions"] = json!({"by": "file", "max": 3});
    assert_eq!(
        bench.plan(&grouped).ok()["partitions"]
            .as_array()
            .map(Vec::len),
        Some(3)
    );
}

#[test]
fn compressed_text_is_cut_between_files_only() {
    let bench = Bench::new();
    for i in 0..2 {
        bench.write(&format!("in/{i}.csv"), to_csv(&orders(i * 300, 300)));
        let gzip = std::process::Command::new("gzip")
            .arg(bench.path(&format!("in/{i}.csv")))
            .status();
        assert!(gzip.expect("gzip").success());
    }
    let spec = json!({
        "sources": {"orders": {"format": "csv", "path": "./x/../in/*.csv.gz"}},
        "partitions": {"n": 4}, "map_sql": MAP, "reduce_sql": REDUCE,
    });
    let plan = bench.plan(&spec).ok();
    assert_eq!(plan["partitions"].as_array().map(Vec::len), Some(2));
    assert!(
        plan["warnings"].to_string().contains("compressed"),
        "{plan}"
    );
    assert_eq!(
        Value::from(whole_query(&orders(0, 600), WHOLE)),
        bench.all(&spec)["rows"]
    );
}

#[test]
fn other_sources_are_read_whole_by_each_partition() {
    let bench = Bench::new();
    bench.write("in/a.parquet", to_parquet(&orders(0, 1000), 100));
    bench.write("regions.csv", "region;name\nkr;Korea\njp;Japan\n");
    let spec = json!({
        "sources": {
            "orders": {"format": "parquet", "path": "in/*.parquet"},
            "regions": {"format": "csv", "path": "regions.csv", "delimiter": ";", "broadcast": true},
        },
        "partitions": {"n": 3},
        "map_sql": "SELECT name, count(*) AS n FROM orders JOIN regions USING (region) GROUP BY name",
        "reduce_sql": "SELECT name, sum(n) AS n FROM parts GROUP BY name ORDER BY name",
    });
    let expected = whole_query(
        &orders(0, 1000),
        "SELECT CASE region WHEN 'kr' THEN 'Korea' ELSE 'Japan' END AS name, count(*) AS n FROM orders \
         WHERE region IN ('kr', 'jp') GROUP BY 1 ORDER BY 1",
    );
    assert_eq!(bench.all(&spec)["rows"], Value::from(expected));
}

#[test]
fn columns_without_a_header_and_given_types() {
    let bench = Bench::new();
    bench.write("in/a.csv", "7,0012,1.50\n8,0013,2.25\n");
    let spec = json!({
        "sources": {"t": {"format": "csv", "path": "in/a.csv", "header": false,
                          "schema": {"id": "bigint", "code": "text", "price": "decimal(10,2)"}}},
        "map_sql": "SELECT * FROM t",
    });
    let result = bench.all(&spec);
    assert_eq!(result["schema"][2]["type"], "Decimal128(10, 2)");
    assert_eq!(result["rows"][0]["code"], "0012");
    assert_eq!(result["row_count"], 2);
}

#[test]
fn a_source_without_rows_still_has_an_answer() {
    let bench = Bench::new();
    bench.write("in/a.csv", "id,price\n");
    bench.write("in/b.csv", "");
    let count = json!({
        "sources": {"t": {"format": "csv", "path": "in/*.csv"}},
        "partitions": {"n": 3},
        "map_sql": "SELECT count(*) AS n FROM t", "reduce_sql": "SELECT sum(n) AS n FROM parts",
    });
    assert_eq!(bench.all(&count)["rows"], json!([{"n": 0}]));

    std::fs::remove_file(bench.path("in/a.csv")).expect("a file");
    let message = bench.plan(&count).failed(1, "bad_spec");
    assert!(message.contains("give schema"), "{message}");
    let mut typed = count;
    typed["sources"]["t"]["schema"] = json!({"id": "bigint", "price": "double"});
    let request = bench.up_to_commit(&typed, "run");
    assert_eq!(
        request["parts"].as_array().map(Vec::len),
        Some(1),
        "one partition without files"
    );
    assert_eq!(bench.commit(&request, None).ok()["rows"], json!([{"n": 0}]));
}

#[test]
fn several_threads_give_the_same_rows() {
    let bench = Bench::new();
    for i in 0..5 {
        bench.write(
            &format!("in/{i}.parquet"),
            to_parquet(&orders(i * 200, 200), 40),
        );
    }
    let spec = json!({
        "sources": {"orders": {"format": "parquet", "path": "in/*.parquet"}},
        "partitions": {"n": 2}, "resources": {"cpus": 3}, "map_sql": MAP, "reduce_sql": REDUCE,
    });
    assert_eq!(
        bench.all(&spec)["rows"],
        Value::from(whole_query(&orders(0, 1000), WHOLE))
    );
}

#[test]
fn long_lists_of_files_go_by_reference() {
    let bench = Bench::new();
    for i in 0..40 {
        bench.write(&format!("in/{i:02}.csv"), to_csv(&orders(i * 10, 10)));
    }
    let spec = json!({
        "sources": {"orders": {"format": "csv", "path": "in/*.csv"}},
        "partitions": {"n": 2}, "map_sql": MAP, "reduce_sql": REDUCE,
    });
    let plan = bench.plan(&spec).ok();
    assert!(plan["partitions"][0]["files_ref"].is_string(), "{plan}");
    assert!(plan["partitions"].to_string().len() < 1000);
    assert_eq!(
        bench.all(&spec)["rows"],
        Value::from(whole_query(&orders(0, 400), WHOLE))
    );
}
