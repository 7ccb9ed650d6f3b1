//! Fault points: named places where a test kills the process, as abruptly as a power cut.
//!
//! They exist in debug builds only. `GRISTMILL_FAULT_POINT=name` kills the process when it first reaches that point;
//! `name:3` when it reaches it for the third time.

#[cfg(debug_assertions)]
use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

/// Names the places where a process may be made to die.
pub const POINTS: [&str; 6] = [
    "after-commit-before-publish",
    "after-publish-before-confirm",
    "after-claim-before-ack",
    "after-ack-before-started",
    "after-exit-before-confirmed",
    "after-apply-before-ack",
];

/// Dies here if the environment says so.
#[cfg(debug_assertions)]
pub fn reach(name: &str) {
    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static REACHED: AtomicU32 = AtomicU32::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("GRISTMILL_FAULT_POINT").ok()?;
        let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), count.parse().unwrap_or(1)))
    });
    if let Some((wanted, count)) = wanted
        && wanted == name
        && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == *count
    {
        std::process::abort();
    }
}

/// Does nothing in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reach(_name: &str) {}

/// A place where a test may kill the process.
#[macro_export]
macro_rules! fault_point {
    ($name:literal) => {
        $crate::fault::reach($name)
    };
}
