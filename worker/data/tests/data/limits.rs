//! Memory and spill limits hold; what does not fit fails with a type of its own.

use std::sync::Arc;

use datafusion::arrow::array::{Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use serde_json::{Value, json};

use crate::support::{Bench, to_parquet};

const ROWS: i64 = 100_000;

/// About 20 MB in memory, in no order.
fn wide_table() -> Vec<u8> {
    let keys: Vec<i64> = (0..ROWS).map(|i| i * 7_919 % ROWS).collect();
    let padding = "p".repeat(170);
    let texts: StringArray = keys
        .iter()
        .map(|k| Some(format!("{k:012}{padding}")))
        .collect();
    let schema = Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
    ]);
    let batch = RecordBatch::try_new(
        Arc::new(schema),
        vec![Arc::new(Int64Array::from(keys)), Arc::new(texts)],
    );
    to_parquet(&batch.expect("a batch"), 10_000)
}

fn bench() -> (Bench, Value) {
    let bench = Bench::new();
    bench.write("t.parquet", wide_table());
    let spec = json!({
        "sources": {"t": {"format": "parquet", "path": "t.parquet"}},
        "partitions": {"n": 1},
        "resources": {"memory": "18MiB", "spill": "1GiB"},
        "map_sql": "SELECT k, s FROM t ORDER BY s",
        "reduce_sql": "SELECT count(*) AS n, min(s) < max(s) AS ordered FROM parts",
    });
    (bench, spec)
}

#[test]
fn sort_and_aggregation_spill_and_a_full_disk_is_told() {
    let (bench, spec) = bench();
    let plan = bench.plan(&spec).ok();
    let part = bench.part(&spec, &plan["partitions"][0]).ok();
    assert_eq!(part["rows"], ROWS);
    let metrics = &part["metrics"];
    assert!(
        metrics["spilled_bytes"].as_u64() > Some(1 << 20),
        "{metrics}"
    );
    assert!(
        metrics["peak_memory_bytes"].as_u64() <= Some(18 << 20),
        "{metrics}"
    );
    assert!(
        part["files"]
            .as_array()
            .is_some_and(|files| !files.is_empty()),
        "{part}"
    );

    let mut grouped = spec.clone();
    grouped["map_sql"] = "SELECT s, count(*) AS k FROM t GROUP BY s".into();
    let plan = bench.plan(&grouped).ok();
    let part = bench.part(&grouped, &plan["partitions"][0]).ok();
    assert_eq!(part["rows"], ROWS);
    assert!(part["metrics"]["spill_count"].as_u64() > Some(0), "{part}");

    let mut tight = spec;
    tight["resources"]["spill"] = "1MiB".into();
    let plan = bench.plan(&tight).ok();
    let message = bench
        .part(&tight, &plan["partitions"][0])
        .failed(3, "resources_exhausted");
    assert!(message.contains("resources.spill"), "{message}");
}

#[test]
fn a_hash_join_that_does_not_fit_is_tried_again_as_one_that_spills() {
    let (bench, mut spec) = bench();
    spec["sources"]["u"] = json!({"format": "parquet", "path": "t.parquet"});
    spec["partition_source"] = "t".into();
    spec["map_sql"] = "SELECT t.k, u.s FROM t JOIN u ON t.s = u.s".into();
    let plan = bench.plan(&spec).ok();
    let outcome = bench.part(&spec, &plan["partitions"][0]);
    assert!(outcome.log.contains("sort-merge"), "{}", outcome.log);
    assert_eq!(outcome.ok()["rows"], ROWS);
}
