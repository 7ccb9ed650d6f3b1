//! Cuts lose no row and double none, whatever the lines look like.

use std::sync::Arc;

use datafusion::arrow::util::pretty::pretty_format_batches;
use gristmill_data::cut;
use gristmill_data::cutting;
use gristmill_data::listing;
use gristmill_data::request::Slice;
use gristmill_data::session::Session;
use gristmill_data::sources::infer_schema;
use gristmill_data::spec::{ByteSize, DataSpec};
use gristmill_data::store::Stores;
use gristmill_data::table::{SliceTable, file_format};
use proptest::prelude::*;
use serde_json::{Value, json};

fn files(sizes: &[u64]) -> Vec<Slice> {
    sizes
        .iter()
        .enumerate()
        .map(|(i, &size)| Slice {
            url: format!("/f{i}"),
            start: 0,
            end: size,
            size,
            e_tag: None,
        })
        .collect()
}

/// Reads the source in partitions and whole; both as text, one line per row.
async fn read_both_ways(spec: &Value) -> (Vec<String>, Vec<String>, usize) {
    let spec = DataSpec::parse(spec.clone()).expect("a spec");
    let stores = Stores::default();
    let session = Session::new(&spec.resources, true).expect("a session");
    let source = &spec.sources["t"];
    let files = listing::list(&stores, &source.path).await.expect("files");
    let schema = infer_schema(&session, &stores, source, &files)
        .await
        .expect("columns");
    let partitions = cutting::partitions(&stores, &spec, "t", source, &files, &mut Vec::new())
        .await
        .expect("partitions");
    let mut read = Vec::new();
    for slices in partitions.iter().chain([&files]) {
        let format = file_format(&session.context, source);
        let table = SliceTable::new(&stores, &session.context, format, schema.clone(), slices)
            .expect("a table");
        let frame = session
            .context
            .read_table(Arc::new(table))
            .expect("a frame");
        let mut rows = Vec::new();
        for batch in frame.collect().await.expect("rows") {
            for row in 0..batch.num_rows() {
                rows.push(
                    pretty_format_batches(&[batch.slice(row, 1)])
                        .expect("text")
                        .to_string(),
                );
            }
        }
        read.push(rows);
    }
    let whole = read.pop().expect("the whole");
    (read.concat(), whole, partitions.len())
}

fn read_blocking(spec: &Value) -> (Vec<String>, Vec<String>, usize) {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(read_both_ways(spec))
}

/// A value as it stands in a CSV file.
fn csv_value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z]{0,12}",
        1 => "[a-z]{1,3}\"[a-z]{0,3}",
        2 => "[a-z,\n\r]{0,9}".prop_map(|s| format!("\"{s}\"")),
        1 => "[a-z]{0,4}".prop_map(|s| format!("\"{s}\"\"\n\"\"{s}\"")),
        1 => "[a-z]{200,400}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cuts_tile_the_files(sizes in prop::collection::vec(1..500_u64, 0..12), n in 1..40_usize) {
        let files = files(&sizes);
        let desired = cut::desired(&sizes, n);
        prop_assert_eq!(desired.iter().map(Vec::len).sum::<usize>(), if sizes.is_empty() { 0 } else { n - 1 });
        let anywhere = cut::cut(&files, &desired);
        let total: u64 = sizes.iter().sum();
        prop_assert_eq!(anywhere.len() as u64, (n as u64).min(total), "as many as there are bytes for");
        let snapped: Vec<_> = desired.iter().zip(&sizes).map(|(d, &size)| cut::snap_to_ends(d, size)).collect();
        for partitions in [anywhere, cut::cut(&files, &snapped)] {
            let slices: Vec<Slice> = partitions.concat();
            prop_assert!(partitions.iter().all(|p| !p.is_empty()));
            prop_assert!(slices.iter().all(|s| s.start < s.end));
            // In order and without a gap, every file from its first to its last byte.
            let mut at = slices.iter();
            for file in &files {
                let mut start = 0;
                while start < file.size {
                    let slice = at.next().expect("a slice");
                    prop_assert_eq!((&slice.url, slice.start), (&file.url, start));
                    start = slice.end;
                }
                prop_assert_eq!(start, file.size);
            }
            prop_assert!(at.next().is_none());
        }
    }

    #[test]
    fn csv_records_with_line_breaks_are_never_cut(
        rows in prop::collection::vec((csv_value(), csv_value()), 1..30),
        crlf in any::<bool>(),
        last_line_ends in any::<bool>(),
        n in 1..12_usize,
    ) {
        let end = if crlf { "\r\n" } else { "\n" };
        let mut text = format!("a,b{end}");
        let lines: Vec<String> = rows.iter().map(|(a, b)| format!("{a},{b}")).collect();
        text.push_str(&lines.join(end));
        if last_line_ends {
            text.push_str(end);
        }
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("t.csv"), text).expect("a file");
        let spec = json!({
            "sources": {"t": {"format": "csv", "path": dir.path().join("*.csv"), "schema": {"a": "text", "b": "text"}}},
            "partitions": {"n": n}, "map_sql": "",
        });
        let (parts, whole, _) = read_blocking(&spec);
        prop_assert_eq!(whole.len(), rows.len());
        prop_assert_eq!(parts, whole);
    }

    #[test]
    fn lines_of_any_length_are_read_once(
        lengths in prop::collection::vec(prop_oneof![0..20_usize, 0..3000_usize, 15_000..40_000_usize], 1..20),
        n in 1..12_usize,
    ) {
        let dir = tempfile::tempdir().expect("a folder");
        let csv: String = lengths.iter().enumerate().map(|(i, &l)| format!("{i},{}\n", "x".repeat(l))).collect();
        std::fs::write(dir.path().join("t.csv"), format!("i,s\n{csv}")).expect("a file");
        let json: String = lengths
            .iter()
            .enumerate()
            .map(|(i, &l)| format!("{{\"i\":{i},\"s\":\"{}\"}}\n", "x".repeat(l)))
            .collect();
        std::fs::write(dir.path().join("t.json"), json).expect("a file");
        for (format, more) in [("csv", json!({"newlines_in_values": false})), ("json", json!({}))] {
            let mut source = more;
            source["format"] = format.into();
            source["path"] = dir.path().join(format!("t.{format}")).display().to_string().into();
            let spec = json!({"sources": {"t": source}, "partitions": {"n": n}, "map_sql": ""});
            let (parts, whole, _) = read_blocking(&spec);
            prop_assert_eq!(whole.len(), lengths.len());
            prop_assert_eq!(parts, whole, "{}", format);
        }
    }
}

#[test]
fn one_record_larger_than_all_partitions_stays_whole() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = format!("a,b\n1,\"{}\"\n2,x\n", "line\n".repeat(1000));
    std::fs::write(dir.path().join("t.csv"), text).expect("a file");
    let spec = json!({
        "sources": {"t": {"format": "csv", "path": dir.path().join("t.csv")}},
        "partitions": {"target": "512B"}, "map_sql": "",
    });
    let (parts, whole, n) = read_blocking(&spec);
    assert_eq!(
        (parts.len(), n),
        (2, 2),
        "behind the large record is the only place to cut"
    );
    assert_eq!(parts, whole);
}

#[test]
fn globs_match_within_a_folder_and_hide_markers() {
    let dir = tempfile::tempdir().expect("a folder");
    for name in [
        "a b.csv",
        "b.csv",
        "_hidden.csv",
        ".c.csv",
        "sub/d.csv",
        "_attempt/e.csv",
        "100%.csv",
    ] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, "x\n1\n").expect("a file");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let list = |pattern: &str| {
        let pattern = format!("file://{}/{pattern}", dir.path().display());
        let found = runtime
            .block_on(listing::list(&Stores::default(), &pattern))
            .expect("files");
        let prefix = format!("file://{}/", dir.path().display());
        found
            .iter()
            .map(|f| f.url.replace(&prefix, ""))
            .collect::<Vec<_>>()
    };
    assert_eq!(list("*.csv"), ["100%.csv", "a b.csv", "b.csv"]);
    assert_eq!(list(""), ["100%.csv", "a b.csv", "b.csv"]);
    assert_eq!(
        list("**/*.csv"),
        ["100%.csv", "a b.csv", "b.csv", "sub/d.csv"]
    );
    assert_eq!(
        list("_attempt/*.csv"),
        ["_attempt/e.csv"],
        "named on purpose"
    );

    // Names that a URL would have to escape can be read, too.
    let spec = json!({"sources": {"t": {"format": "csv", "path": dir.path().join("*.csv")}}, "map_sql": ""});
    assert_eq!(read_blocking(&spec).0.len(), 3);
}

#[test]
fn sizes_with_units() {
    for (text, bytes) in [
        ("128MiB", 128 << 20),
        ("2 GB", 2_000_000_000),
        ("1.5k", 1536),
        ("77", 77),
    ] {
        assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
    }
    for bad in ["", "MiB", "3 parsecs", "-1"] {
        assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
    }
}
