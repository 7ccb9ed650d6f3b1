//! A commit publishes once, whatever crashes and however often it is run.

use gristmill_data::fault;
use serde_json::{Value, json};

use crate::support::{Bench, names, orders, read_parquet, to_csv};

const ALL: &str = "SELECT * FROM t ORDER BY id";

fn bench() -> (Bench, Value) {
    let bench = Bench::new();
    bench.write("in/a.csv", to_csv(&orders(0, 300)));
    let spec = json!({
        "sources": {"orders": {"format": "csv", "path": "in/*.csv"}},
        "partitions": {"n": 3},
        "map_sql": "SELECT id, region, price FROM orders WHERE price > 1",
        "sink": {"format": "parquet", "path": bench.path("out"), "mode": "overwrite"},
    });
    (bench, spec)
}

/// Published files.
fn published(bench: &Bench) -> Vec<String> {
    let mut found = names(&bench.path("out"));
    found.retain(|name| name.ends_with(".parquet") || name.ends_with(".csv"));
    found
}

fn marker(bench: &Bench) -> Value {
    let text = std::fs::read(bench.path("out/_SUCCESS")).expect("a marker");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn a_commit_that_died_anywhere_is_completed_by_the_next() {
    let (bench, spec) = bench();
    let request = bench.up_to_commit(&spec, "clean");
    let clean = bench.commit(&request, None).ok();
    let rows = read_parquet(&bench.path("out"), ALL);
    assert_eq!(clean["preview"].as_array().map(Vec::len), Some(20));
    assert_eq!(clean["preview"][0]["id"], 5);

    let points: Vec<&str> = fault::POINTS
        .into_iter()
        .filter(|p| p.starts_with("commit."))
        .collect();
    for point in points {
        std::fs::remove_dir_all(bench.path("out")).expect("the sink");
        bench.write("out/part-00000-earlier-00000000.parquet", "old");
        bench.write("out/other.parquet", "old");
        bench.write("out/notes.txt", "not ours");
        let request = bench.up_to_commit(&spec, point);
        let died = bench.commit(&request, Some(point));
        assert_eq!(
            (died.code, died.result),
            (137, Value::Null),
            "{point} is passed"
        );

        let result = bench.commit(&request, None).ok();
        assert_eq!(result["rows"], clean["rows"], "{point}");
        assert_eq!(result["preview"], clean["preview"], "{point}");
        let files = published(&bench);
        assert_eq!(files.len(), 1, "{point}: {files:?}");
        assert!(
            files[0].starts_with(&format!("part-00000-{point}-")),
            "{files:?}"
        );
        assert_eq!(rows, read_parquet(&bench.path("out"), ALL), "{point}");
        assert_eq!(marker(&bench)["run_key"], point);
        assert_eq!(marker(&bench)["files"], json!(files));
        assert_eq!(marker(&bench)["rows"], clean["rows"]);
        assert!(
            bench.path("out/notes.txt").exists(),
            "what is not data stays"
        );

        let before = names(&bench.path("out"));
        let again = bench.commit(&request, None).ok();
        assert_eq!(again, result, "{point}");
        assert_eq!(names(&bench.path("out")), before, "{point}");
    }
}

#[test]
fn a_record_binds_later_attempts_even_if_they_compute_otherwise() {
    let (bench, mut spec) = bench();
    spec["reduce_sql"] = "SELECT id, uuid() AS u FROM parts".into();
    let request = bench.up_to_commit(&spec, "r");
    assert_eq!(bench.commit(&request, Some("commit.publishing")).code, 137);
    let half = read_parquet(&bench.path("out"), ALL);
    bench.commit(&request, None).ok();
    assert_eq!(read_parquet(&bench.path("out"), ALL), half);
}

#[test]
fn a_late_attempt_does_not_undo_a_newer_run() {
    let (bench, spec) = bench();
    let first = bench.up_to_commit(&spec, "monday");
    let result = bench.commit(&first, None).ok();
    bench.write("in/a.csv", to_csv(&orders(1000, 50)));
    bench
        .commit(&bench.up_to_commit(&spec, "tuesday"), None)
        .ok();
    let newer = published(&bench);
    assert!(
        newer.len() == 1 && newer[0].contains("tuesday"),
        "{newer:?}"
    );

    assert_eq!(bench.commit(&first, None).ok(), result, "answers as it did");
    assert_eq!(published(&bench), newer, "and changes nothing");
    assert_eq!(marker(&bench)["run_key"], "tuesday");
}

#[test]
fn append_keeps_and_a_cleared_task_replaces_its_own() {
    let (bench, mut spec) = bench();
    spec["sink"]["mode"] = "append".into();
    let before = bench
        .commit(&bench.up_to_commit(&spec, "monday"), None)
        .ok();
    bench
        .commit(&bench.up_to_commit(&spec, "monday-2"), None)
        .ok();
    assert_eq!(published(&bench).len(), 2);
    // Cleared: planned anew under the same run key.
    let after = bench
        .commit(&bench.up_to_commit(&spec, "monday"), None)
        .ok();
    assert_ne!(before["files"], after["files"]);
    let files = published(&bench);
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files.iter().any(|name| {
        after["files"][0]
            .as_str()
            .is_some_and(|url| url.ends_with(name))
    }));
    let count = read_parquet(&bench.path("out"), "SELECT count(*) / 2 AS n FROM t");
    assert!(count[3].contains(&before["rows"].to_string()), "{count:?}");
}

#[test]
fn error_if_exists_refuses_others_but_not_its_own_retry() {
    let (bench, mut spec) = bench();
    spec["sink"]["mode"] = "error_if_exists".into();
    let request = bench.up_to_commit(&spec, "monday");
    assert_eq!(bench.commit(&request, Some("commit.published")).code, 137);
    bench.commit(&request, None).ok();
    let other = bench.up_to_commit(&spec, "tuesday");
    let message = bench.commit(&other, None).failed(1, "sink_exists");
    assert!(message.contains("part-00000-monday-"), "{message}");
    assert_eq!(published(&bench).len(), 1);
}

#[test]
fn lost_staged_files_are_told() {
    let (bench, spec) = bench();
    let request = bench.up_to_commit(&spec, "monday");
    assert_eq!(bench.commit(&request, Some("commit.recorded")).code, 137);
    for attempt in names(&bench.path("work")) {
        for name in names(&bench.path("work").join(&attempt)) {
            if name.ends_with(".parquet") {
                std::fs::remove_file(bench.path("work").join(&attempt).join(name))
                    .expect("a staged file");
            }
        }
    }
    let message = bench.commit(&request, None).failed(4, "input_lost");
    assert!(message.contains("clear the plan task"), "{message}");
}

#[test]
fn csv_sink_and_an_empty_result() {
    let (bench, mut spec) = bench();
    spec["sink"]["format"] = "csv".into();
    spec["reduce_sql"] =
        "SELECT region, sum(price) AS revenue FROM parts WHERE region < 'g' GROUP BY region \
                          ORDER BY region"
            .into();
    let result = bench.commit(&bench.up_to_commit(&spec, "r"), None).ok();
    let text =
        std::fs::read_to_string(bench.path("out").join(&published(&bench)[0])).expect("a file");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "region,revenue");
    assert!(
        lines[1].starts_with("de,") && lines[2].starts_with("fr,") && lines.len() == 3,
        "{text}"
    );
    assert_eq!(result["bytes"], text.len());

    spec["reduce_sql"] = "SELECT region FROM parts WHERE price < 0".into();
    let result = bench.commit(&bench.up_to_commit(&spec, "r"), None).ok();
    assert_eq!(result["rows"], 0);
    let text =
        std::fs::read_to_string(bench.path("out").join(&published(&bench)[0])).expect("a file");
    assert_eq!(text, "region\n", "readers find the columns");

    spec["reduce_sql"] = "SELECT array_agg(id) AS ids FROM parts".into();
    let message = bench.plan(&spec).failed(1, "bad_sql");
    assert!(
        message.contains("ids") && message.contains("csv"),
        "{message}"
    );
}
