//! The example over real data gives what is known of it.

use std::path::Path;

use serde_json::json;

use crate::support::Bench;

/// The queries of `examples/dags/penguins/penguins.yaml`, by their place in the file.
fn block(yaml: &str, key: &str) -> String {
    let (_, rest) = yaml.split_once(&format!("{key}: |\n")).expect("the key");
    let indent = rest.len() - rest.trim_start().len();
    rest.lines()
        .take_while(|line| line.len() > indent && line[..indent].trim().is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn penguins() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/dags/penguins");
    let yaml = std::fs::read_to_string(folder.join("penguins.yaml")).expect("the example");
    let bench = Bench::new();
    let spec = json!({
        "sources": {"penguins": {
            "format": "csv",
            "path": folder.join("data/*.csv"),
            "schema": {"flipper_length_mm": "text", "body_mass_g": "text"},
        }},
        "partitions": {"by": "file"},
        "map_sql": block(&yaml, "map_sql"),
        "reduce_sql": block(&yaml, "reduce_sql"),
    });
    let request = bench.up_to_commit(&spec, "run");
    assert_eq!(request["parts"].as_array().map(Vec::len), Some(9));
    let expected = json!([
        {"species": "Gentoo", "islands": 1, "birds": 124, "mean_mass_g": 5076.0, "mean_flipper_mm": 217.2},
        {"species": "Chinstrap", "islands": 1, "birds": 68, "mean_mass_g": 3733.0, "mean_flipper_mm": 195.8},
        {"species": "Adelie", "islands": 3, "birds": 152, "mean_mass_g": 3701.0, "mean_flipper_mm": 190.0},
    ]);
    assert_eq!(bench.commit(&request, None).ok()["rows"], expected);
}
