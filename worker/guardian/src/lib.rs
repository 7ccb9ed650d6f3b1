//! The guardian of a worker: a small process that starts every task of the worker and lets none of them outlive the
//! worker or the deadline of its lease.
//!
//! ```text
//! worker ── guardian ─┬─ shim ── task ── whatever the task started
//!                     └─ shim ── task …
//! ```
//!
//! The worker ([`GuardianClient`]) starts the guardian ([`run_guardian`]) and asks it for tasks. Each task gets a *shim*:
//! a fork of the guardian that is the subreaper of exactly this task, so a process that daemonises, leaves its group or
//! ignores SIGTERM still ends up as its child. When the task's main process has ended, the shim kills what is left, waits
//! until it has no child any more, and only then is the ending reported. Then it waits for another task: short tasks cost
//! one process each, not two.
//!
//! Who notices whose death, so that any of the three may be killed at any moment:
//!
//! | dies | noticed by | through | and then |
//! |---|---|---|---|
//! | worker | guardian | end of the socket, pidfd | all trees are killed, the guardian exits |
//! | guardian | each shim | parent death signal, end of the report pipe | it kills its tree and exits |
//! | guardian | worker | end of the socket | [`Event::GuardianDied`] |
//! | shim | guardian | SIGCHLD | the orphans, now its children, are killed, the ending reported |
//! | shim | main process of the task | parent death signal | it is killed by the kernel |
//!
//! The lease deadline is one timer on `CLOCK_BOOTTIME` that the guardian sets and all shims poll: a guardian that is
//! stopped or starved does not keep them from acting on it.

mod client;
mod event;
mod request;
mod server;
#[allow(
    unsafe_code,
    reason = "fork, clone, prctl, signalfd and SCM_RIGHTS have no safe interface in std"
)]
mod sys;
mod user;
mod wire;

pub use client::{ClientError, GuardianClient, GuardianConfig, KnownTask, StartError};
pub use event::{Event, ExitStatus, Exited, KilledBy, MemoryHit, SpawnFailure, SpawnFailureKind};
pub use request::{Limits, RequestError, SpawnRequest};
pub use server::run_guardian;
pub use user::{User, UserError};

/// `CLOCK_BOOTTIME` in nanoseconds: the clock of lease deadlines, which also runs while the host is suspended.
pub fn boottime_now_ns() -> u64 {
    sys::boottime_ns()
}
