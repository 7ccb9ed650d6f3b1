//! The `shell` task.

use crate::span::Span;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A command run by `/bin/sh -c` in the unpacked bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShellTask {
    /// A template. What it inserts stands in the command line as it is: quote with the `shell_quote` filter, or pass
    /// values through `env`.
    pub command: String,
    #[serde(default)]
    pub output: OutputMode,
    /// Template whose result is the command's standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// File name (relative to the working directory's private scratch folder, `$GRISTMILL_FILES`) to template.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// This exit code means skipped, not failed; `None` gives no code that meaning.
    #[serde(default = "ninety_nine")]
    pub skip_on_exit_code: Option<i32>,
    /// Between SIGTERM and SIGKILL, on timeout and cancel.
    #[serde(default = "ten_seconds")]
    pub kill_grace: Span,
    #[serde(default)]
    pub resources: ResourceLimits,
    /// System user to run as (the worker has to be root).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

fn ninety_nine() -> Option<i32> {
    Some(99)
}

fn ten_seconds() -> Span {
    Span::from_secs(10)
}

/// What becomes of a command's standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputMode {
    /// The last line, as a string, is the return value.
    #[default]
    Last,
    /// The last line is JSON; its value is the return value.
    Json,
    /// No return value.
    None,
}

/// Limits on a task's process tree. `None`: the worker's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceLimits {
    /// Bytes of resident memory of the whole tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Seconds of CPU time per process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_time: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Bytes of output kept in the log; the rest is dropped and the log says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
}
