//! Fault points: named places where a test kills the process, as abruptly as a power cut, or makes it break a promise.
//!
//! They exist in debug builds only. `GRISTMILL_FAULT_POINT=name` kills the process when it first reaches that point;
//! `name:3` when it reaches it for the third time. `GRISTMILL_MISBEHAVE=name` (several are parted by commas) makes it
//! misbehave whenever it comes there, `name:1` only the first time: that is how the checker of the load tool is shown to
//! find what it looks for (`loadtest/tests/`).

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

/// Names the promises that a process may be made to break, each with what it does.
pub const MISBEHAVIOURS: [(&str, &str); 13] = [
    (
        "lose-accepted-run",
        "a run is answered with 2xx and its transaction rolled back",
    ),
    (
        "lose-message",
        "a dispatch is committed without its message",
    ),
    ("keep-published", "what was published stays in the outbox"),
    (
        "ignore-trigger-rule",
        "a task runs although its trigger rule says that it must not",
    ),
    (
        "give-up-the-living",
        "an attempt is given up as lost when it has just started",
    ),
    ("apply-stale", "an ending of an older fence is applied"),
    (
        "free-at-start",
        "slots are given back at the start of an attempt",
    ),
    ("leak-slot", "slots are not given back"),
    (
        "forget-run-limits",
        "runs start whatever max_active_runs, a backfill's limit or a shared key allows, and are not counted",
    ),
    (
        "forget-waits",
        "what waits in a pool is not counted, although it includes deferred instances",
    ),
    ("ignore-rate", "a queue's rate is not spent"),
    ("leak-claim", "a claim is not released"),
    (
        "skip-ack",
        "events are applied and their message is not acknowledged",
    ),
];

/// A misbehaviour that the environment asks for.
#[cfg(debug_assertions)]
struct Wish {
    name: String,
    /// `None`: always.
    only: Option<u32>,
    reached: AtomicU32,
}

#[cfg(debug_assertions)]
fn wishes() -> &'static [Wish] {
    static WISHES: OnceLock<Vec<Wish>> = OnceLock::new();
    WISHES.get_or_init(|| {
        let text = std::env::var("GRISTMILL_MISBEHAVE").unwrap_or_default();
        text.split(',')
            .map(|wish| {
                let (name, only) = wish.split_once(':').unwrap_or((wish, ""));
                Wish {
                    name: name.to_owned(),
                    only: only.parse().ok(),
                    reached: AtomicU32::new(0),
                }
            })
            .collect()
    })
}

/// Whether to misbehave here, because the environment says so.
#[cfg(debug_assertions)]
pub fn misbehaves(name: &str) -> bool {
    let mut wanted = wishes().iter().filter(|wish| wish.name == name);
    wanted.any(|wish| {
        let reached = wish.reached.fetch_add(1, Ordering::SeqCst) + 1;
        wish.only.is_none_or(|only| only == reached)
    })
}

/// Never in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn misbehaves(_name: &str) -> bool {
    false
}

/// Whether the environment asks for any of these at all; not counted as reaching them.
#[cfg(debug_assertions)]
pub fn is_asked_for(names: &[&str]) -> bool {
    wishes()
        .iter()
        .any(|wish| names.contains(&wish.name.as_str()))
}

/// Never in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn is_asked_for(_names: &[&str]) -> bool {
    false
}

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
