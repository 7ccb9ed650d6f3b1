//! The compose stack on a real engine. Behind the feature `compose`, because it takes minutes and needs Docker.

use std::{path::Path, process::Command};

#[test]
fn the_compose_stack_runs_scales_and_computes() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compose/test.sh");
    let status = Command::new(&script).status().unwrap();
    assert!(status.success(), "{}: {status}", script.display());
}
