//! What must hold of every deployment, by name: the model of the protocol proves it, the checker of the load tool looks
//! for it in what a deployment left behind, and their reports speak of it in the same words.

use std::fmt;

/// Something that must hold. The names are those of reports and of the model's properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Invariant {
    /// Guarantee 1.
    NoRunLost,
    /// Guarantee 4.
    EveryRunEnds,
    /// Every ending is the one that the DAG and its tasks' own outcomes allow.
    EndingsRight,
    /// Guarantee 2.
    OneLiveAttempt,
    /// Guarantee 3.
    OneEnding,
    /// Guarantee 5.
    LimitsHold,
    /// Rows refer to what is there; counters agree with what they count.
    NoOrphans,
    /// Nothing that was to be sent is left unsent.
    OutboxEmpty,
    /// No claim, lease or slot is held for what has ended.
    NothingHeld,
    /// No message is left at the broker.
    QueuesEmpty,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::NoRunLost,
        Self::EveryRunEnds,
        Self::EndingsRight,
        Self::OneLiveAttempt,
        Self::OneEnding,
        Self::LimitsHold,
        Self::NoOrphans,
        Self::OutboxEmpty,
        Self::NothingHeld,
        Self::QueuesEmpty,
    ];

    /// Its name in reports: lower case, words joined by hyphens.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoRunLost => "no-run-lost",
            Self::EveryRunEnds => "every-run-ends",
            Self::EndingsRight => "endings-right",
            Self::OneLiveAttempt => "one-live-attempt",
            Self::OneEnding => "one-ending",
            Self::LimitsHold => "limits-hold",
            Self::NoOrphans => "no-orphans",
            Self::OutboxEmpty => "outbox-empty",
            Self::NothingHeld => "nothing-held",
            Self::QueuesEmpty => "queues-empty",
        }
    }

    /// What it says, in a sentence.
    pub const fn statement(self) -> &'static str {
        match self {
            Self::NoRunLost => "every run that was accepted is in the database",
            Self::EveryRunEnds => "every run and each of its task instances ends",
            Self::EndingsRight => {
                "every run and task instance ends in a state that its DAG and its tasks' outcomes allow"
            }
            Self::OneLiveAttempt => {
                "of a task instance at most one attempt has live processes at any time"
            }
            Self::OneEnding => "every attempt ends exactly once",
            Self::LimitsHold => "no limit is exceeded at any instant",
            Self::NoOrphans => {
                "no row refers to what is not there, and every counter agrees with what it counts"
            }
            Self::OutboxEmpty => "nothing that was to be published is left in the outbox",
            Self::NothingHeld => "no claim, lease or slot is held for what has ended",
            Self::QueuesEmpty => "no message is left at the broker",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Invariant;
    use std::collections::BTreeSet;

    #[test]
    fn names_differ() {
        let names: BTreeSet<_> = Invariant::ALL.map(Invariant::name).into_iter().collect();
        assert_eq!(names.len(), Invariant::ALL.len());
    }
}
