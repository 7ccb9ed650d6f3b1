//! What the shell tasks of tests run.

use std::path::{Path, PathBuf};

/// Sourced by every task: writes a line to the ledger at its start and at its orderly end, and when a start finds a
/// process of an earlier dispatch of the same task instance alive, an `X` line.
const SCRIPT: &str = r#"line() {
  echo "$1 $GRISTMILL_RUN_ID $GRISTMILL_TASK_ID $GRISTMILL_MAP_INDEX $GRISTMILL_FENCE $GRISTMILL_TRY_NUMBER $$ $(date +%s%N) $2" >> "$TEST_LEDGER"
}
line S -
if [ "$GRISTMILL_FENCE" -gt 1 ]; then
  grep "^S $GRISTMILL_RUN_ID $GRISTMILL_TASK_ID $GRISTMILL_MAP_INDEX " "$TEST_LEDGER" | while read -r _ _ _ _ fence _ pid _; do
    if [ "$pid" != $$ ] && tr '\0' '\n' 2>/dev/null < "/proc/$pid/environ" | grep -qx "GRISTMILL_FENCE=$fence"; then
      line X "$pid"
    fi
  done
fi
trap 'line E $?' EXIT
"#;

/// The script and the ledger of a deployment, as environment variables of its workers which tasks see too.
#[derive(Debug)]
pub(crate) struct Steps {
    pub(crate) script: PathBuf,
    pub(crate) ledger: PathBuf,
}

impl Steps {
    pub(crate) const PASSED_ON: &str = "TEST_STEP,TEST_LEDGER,TEST_DIR";

    pub(crate) fn in_folder(folder: &Path) -> Self {
        let steps = Self {
            script: folder.join("step.sh"),
            ledger: folder.join("ledger"),
        };
        std::fs::write(&steps.script, SCRIPT).unwrap();
        std::fs::write(&steps.ledger, "").unwrap();
        steps
    }
}

/// The `shell` value of a task that writes the ledger around `work`, as a YAML (and JSON) text.
pub(crate) fn step(work: &str) -> String {
    serde_json::to_string(&format!(". \"$TEST_STEP\"\n{work}")).unwrap()
}
