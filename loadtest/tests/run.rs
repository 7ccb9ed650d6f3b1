//! The shipped command, as a user calls it, on a small private deployment.

use serde_json::Value;
use std::{collections::BTreeMap, process::Command};

fn loadtest(args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gristmill-loadtest"))
        .args(args)
        .env_remove("GRISTMILL_API_URL")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.code().is_some_and(|code| code < 2),
        "{errors}"
    );
    (output.status.success(), text + &errors)
}

#[test]
fn a_mixed_load_with_failures_and_payload_is_run_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("figures.json");
    let file = file.to_str().unwrap();
    let (right, text) = loadtest(&[
        "run",
        "--scenario=mixed",
        "--rate=4",
        "--duration=2s",
        "--width=5",
        "--payload-size=2000",
        "--failure-rate=0.1",
        "--workers=2",
        "--apis=2",
        "--quick",
        "--save",
        file,
    ]);
    assert!(right, "{text}");
    let document: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let measured = &document["deployments"][0];
    assert_eq!(measured["deployment"], "real_servers");
    let figures: BTreeMap<&str, f64> = measured["figures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|figure| {
            (
                figure["key"].as_str().unwrap(),
                figure["value"].as_f64().unwrap(),
            )
        })
        .collect();
    assert_eq!(figures["runs_due"], 8.0);
    assert_eq!(figures["runs_ended"], 8.0);
    // Twice a single task, ten in a row, a diamond, and five side by side after the one that makes the payload.
    assert_eq!(figures["tasks_ended"], 2.0 * (1.0 + 10.0 + 4.0 + 6.0));
    assert!(figures["tasks_retried"] > 0.0, "{figures:?}");
    assert!(
        figures["ended_p99"] >= figures["accepted_p50"],
        "{figures:?}"
    );
    // A retry waits a second.
    assert!(figures["ended_max"] > 1000.0, "{figures:?}");
    assert!(
        figures["statements"] > 0.0 && figures["cpu"] > 0.0,
        "{figures:?}"
    );
    let ended: u64 = measured["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|second| second["ended"].as_u64())
        .sum();
    assert_eq!(ended, 8);

    let (right, page) = loadtest(&["report", "-o", "html", file]);
    assert!(right && page.contains("Runs second by second"), "{page}");
    assert!(
        !page.contains("http"),
        "a page that loads something: {page}"
    );
    let (right, table) = loadtest(&["compare", file, file]);
    assert!(right && table.contains("SQL statements"), "{table}");

    // Three times the statements of today: the gate must not let that pass.
    let mut worse = document.clone();
    for figure in worse["deployments"][0]["figures"].as_array_mut().unwrap() {
        if figure["key"] == "statements" {
            figure["value"] = (figures["statements"] * 3.0).into();
        }
    }
    let worse_file = folder.path().join("worse.json");
    std::fs::write(&worse_file, worse.to_string()).unwrap();
    let (right, table) = loadtest(&["compare", file, worse_file.to_str().unwrap()]);
    assert!(!right && table.contains("REGRESSION"), "{table}");
}
