//! A short run of chaos: one fault of each kind, the same ones every time.

use std::process::Command;

/// Any will do. It stays the same so that a failure is a change's and not the seed's; others are tried by `make chaos`.
const SEED: &str = "20";
/// As many as there are kinds.
const FAULTS: &str = "28";
const TASKS: &str = "700";

#[test]
fn one_fault_of_each_kind_breaks_no_promise() {
    let output = Command::new(env!("CARGO_BIN_EXE_gristmill-loadtest"))
        .args([
            "chaos", "--seed", SEED, "--faults", FAULTS, "--tasks", TASKS,
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
