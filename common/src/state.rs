//! The states of task instances (Airflow's fourteen) and of DAG runs (Airflow's four).

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

macro_rules! state {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in the database, on the wire and in the user interface.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownState;
            fn from_str(text: &str) -> Result<Self, UnknownState> {
                Self::ALL.iter().copied().find(|s| s.as_str() == text).ok_or_else(|| UnknownState(text.to_owned()))
            }
        }
    };
}

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a state")]
pub struct UnknownState(pub String);

state! {
    /// The state of a task instance. How each is entered and left: `docs/lifecycle.md`, generated from
    /// [`crate::transition::ALL`].
    TaskState {
        /// Waits for its upstreams. On Airflow's API this is `null`.
        None = "none",
        /// Its trigger rule is satisfied; waits for slots in its limits, or for room in its queue.
        Scheduled = "scheduled",
        /// Holds its slots; its message is in the outbox, in the broker, or claimed by a worker that has not started it.
        Queued = "queued",
        /// A worker has started it.
        Running = "running",
        /// Ended well.
        Success = "success",
        /// Was running when it was cleared; ends first, then runs anew.
        Restarting = "restarting",
        /// Ended badly, with no retry left.
        Failed = "failed",
        /// Ended badly, and waits for its next try.
        UpForRetry = "up_for_retry",
        /// A sensor between two pokes.
        UpForReschedule = "up_for_reschedule",
        /// Never ran, because an upstream failed.
        UpstreamFailed = "upstream_failed",
        /// Never ran, or said so itself: there was nothing to do.
        Skipped = "skipped",
        /// Waits for an outside event, without a worker.
        Deferred = "deferred",
        /// No longer part of its run.
        Removed = "removed",
        /// Waits for a human's approval.
        AwaitingInput = "awaiting_input",
    }
}

impl TaskState {
    /// An ended instance counts in its downstreams' counters, and changes only by clear or mark.
    pub const fn is_finished(self) -> bool {
        matches!(
            self,
            Self::Success | Self::Failed | Self::UpstreamFailed | Self::Skipped | Self::Removed
        )
    }

    /// A dispatch of it is out: it may have live processes.
    pub const fn is_dispatched(self) -> bool {
        matches!(self, Self::Queued | Self::Running | Self::Restarting)
    }

    /// Whether an instance waits without a worker.
    pub const fn is_waiting(self) -> bool {
        matches!(
            self,
            Self::UpForReschedule | Self::Deferred | Self::AwaitingInput
        )
    }
}

state! {
    /// The state of a DAG run.
    RunState {
        /// Accepted; waits for `run_after`, its DAG's unpausing, or `max_active_runs`.
        Queued = "queued",
        /// Its task instances exist.
        Running = "running",
        /// Every leaf ended in success or was skipped.
        Success = "success",
        /// A leaf failed, the run timed out, or it was cancelled.
        Failed = "failed",
    }
}

impl RunState {
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Success | Self::Failed)
    }
}
