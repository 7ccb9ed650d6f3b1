//! Named points at which a test makes the process die, as a power cut would.

/// The environment variable that names the point to die at.
pub const VARIABLE: &str = "GRISTMILL_DATA_FAULT";

/// All points, in the order in which a run passes them.
pub const POINTS: [&str; 10] = [
    "plan.written",
    "part.written",
    "commit.staged",
    "commit.recorded",
    "commit.publishing",
    "commit.published",
    "commit.removing",
    "commit.removed",
    "commit.marked",
    "commit.done",
];

/// Ends the process with 137 (as after SIGKILL) if `point` is the one asked for. No destructor runs.
pub fn point(point: &str) {
    debug_assert!(POINTS.contains(&point), "unknown fault point {point}");
    if std::env::var_os(VARIABLE).is_some_and(|wanted| wanted == point) {
        std::process::exit(137);
    }
}
