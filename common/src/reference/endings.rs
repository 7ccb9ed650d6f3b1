//! The endings that are allowed to one instance.

use super::rules::{ENDINGS, States, bit};
use crate::state::TaskState;
use std::{fmt, ops::RangeInclusive};

/// In which states an instance may have ended, and for each after how many tries (0: it never ran).
///
/// The tries of a state are a range: its bounds are exact, and what lies between may be a little too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Endings([Option<(i32, i32)>; ENDINGS.len()]);

impl Endings {
    /// The allowed states, each with its numbers of tries.
    pub fn iter(&self) -> impl Iterator<Item = (TaskState, RangeInclusive<i32>)> {
        ENDINGS
            .into_iter()
            .zip(self.0)
            .filter_map(|(state, tries)| tries.map(|(least, most)| (state, least..=most)))
    }

    /// The numbers of tries after which it may have ended so; `None`: it may not.
    pub fn tries(&self, state: TaskState) -> Option<RangeInclusive<i32>> {
        self.0[bit(state)?].map(|(least, most)| least..=most)
    }

    /// Whether it may have ended in this state after so many tries.
    pub fn allow(&self, state: TaskState, tries: i32) -> bool {
        self.tries(state)
            .is_some_and(|range| range.contains(&tries))
    }

    /// Whether it cannot have ended at all: it does not exist.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    pub(super) fn add(&mut self, state: TaskState, tries: RangeInclusive<i32>) {
        let Some(bit) = bit(state) else { return };
        let (least, most) = self.0[bit].unwrap_or_else(|| (*tries.start(), *tries.end()));
        self.0[bit] = Some((least.min(*tries.start()), most.max(*tries.end())));
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        for (state, tries) in other.iter() {
            self.add(state, tries);
        }
    }

    /// Adds what a stop at any moment may make of it: before its first try, between two or while its message waits it is
    /// skipped, while it runs it fails.
    pub(super) fn stop(&mut self) {
        let most = self
            .iter()
            .map(|(_, tries)| *tries.end())
            .max()
            .unwrap_or(0);
        self.add(TaskState::Skipped, 0..=most);
        if most > 0 {
            self.add(TaskState::Failed, 1..=most);
        }
    }

    /// Adds that it is skipped before its first try, or between two.
    pub(super) fn skip_between_tries(&mut self) {
        let most = self
            .iter()
            .map(|(_, tries)| *tries.end())
            .max()
            .unwrap_or(0);
        self.add(TaskState::Skipped, 0..=most);
    }

    pub(super) fn states(&self) -> States {
        self.iter()
            .fold(States::default(), |all, (state, _)| all.with(state))
    }
}

/// `success after 1..=3 tries or failed after 3 tries`
impl fmt::Display for Endings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (i, (state, tries)) in self.iter().enumerate() {
            let or = if i > 0 { " or " } else { "" };
            match (*tries.start(), *tries.end()) {
                (0, 0) => write!(f, "{or}{state} without a try")?,
                (1, 1) => write!(f, "{or}{state} after 1 try")?,
                (n, m) if n == m => write!(f, "{or}{state} after {n} tries")?,
                (n, m) => write!(f, "{or}{state} after {n} to {m} tries")?,
            }
        }
        Ok(())
    }
}
