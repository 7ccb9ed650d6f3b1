//! Airflow's trigger rules as its documentation says them: over which states the upstreams ended in, not over counters.

use crate::{state::TaskState, trigger_rule::TriggerRule};

/// A set of the states in which the engine ends an instance. (`removed` belongs to clears and new versions: no run that is
/// evaluated here has it.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub(super) struct States(u8);

/// In the order of their bits.
pub(super) const ENDINGS: [TaskState; 4] = [
    TaskState::Success,
    TaskState::Failed,
    TaskState::UpstreamFailed,
    TaskState::Skipped,
];

/// The position of an ending in [`ENDINGS`]; `None` for a state that is none.
pub(super) fn bit(state: TaskState) -> Option<usize> {
    ENDINGS.iter().position(|ending| *ending == state)
}

impl States {
    pub(super) fn with(self, state: TaskState) -> Self {
        bit(state).map_or(self, |bit| Self(self.0 | 1 << bit))
    }

    pub(super) fn iter(self) -> impl Iterator<Item = TaskState> {
        ENDINGS
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 >> bit & 1 == 1)
            .map(|(_, state)| state)
    }

    pub(super) fn any(self, states: &[TaskState]) -> bool {
        self.iter().any(|state| states.contains(&state))
    }

    /// Whether it has no others.
    pub(super) fn only(self, states: &[TaskState]) -> bool {
        self.iter().all(|state| states.contains(&state))
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Which states occur among many instances, when each of these may have ended in several: a set of sets of states.
///
/// No rule asks how many upstreams ended in a state, only whether any or all did. So the states that *occur* say all of
/// them, there are sixteen combinations, and a task of 100,000 instances is one such set for its downstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Occurring(u16);

impl Occurring {
    /// Of no instances: nothing occurs.
    pub(super) const NOTHING: Self = Self(1);

    pub(super) fn iter(self) -> impl Iterator<Item = States> {
        (0..16)
            .filter(move |set| self.0 >> set & 1 == 1)
            .map(States)
    }

    /// Either these or those.
    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These and those together, each choosing on its own.
    pub(super) fn and(self, other: Self) -> Self {
        let mut both = 0;
        for a in self.iter() {
            for b in other.iter() {
                both |= 1 << (a.0 | b.0);
            }
        }
        Self(both)
    }

    /// One instance that ends in one of these states.
    pub(super) fn one_of(states: States) -> Self {
        let of = |state| 1 << States::default().with(state).0;
        Self(states.iter().map(of).fold(0, |all, one| all | one))
    }

    /// Exactly this.
    pub(super) fn just(states: States) -> Self {
        Self(1 << states.0)
    }
}

/// What a rule makes of a task, as far as the endings of its upstreams alone decide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Verdicts {
    pub(super) run: bool,
    pub(super) skip: bool,
    pub(super) upstream_failed: bool,
}

impl Verdicts {
    /// Whatever may be.
    pub(super) const ANY: Self = Self {
        run: true,
        skip: true,
        upstream_failed: true,
    };
    pub(super) const RUN: Self = Self {
        run: true,
        skip: false,
        upstream_failed: false,
    };
    const SKIP: Self = Self {
        run: false,
        skip: true,
        upstream_failed: false,
    };
    const UPSTREAM_FAILED: Self = Self {
        run: false,
        skip: false,
        upstream_failed: true,
    };

    /// Of teardowns: one setup that succeeded is enough, and without any they run.
    pub(super) fn of_setups(setups: Occurring) -> Self {
        use TaskState::{Skipped, Success};
        let verdict = |states: States| match states {
            states if states.is_empty() || states.any(&[Success]) => Self::RUN,
            states if states.only(&[Skipped]) => Self::SKIP,
            _ => Self::UPSTREAM_FAILED,
        };
        setups.iter().map(verdict).fold(Self::default(), Self::or)
    }

    /// The same of a task that needs setups as well: all have to succeed, and the first that does not decides at once.
    pub(super) fn with_needed(self, setups: Occurring) -> Self {
        use TaskState::{Failed, Skipped, Success, UpstreamFailed};
        let verdict = |states: States| match states.only(&[Success]) {
            true => self,
            false => Self {
                run: false,
                skip: self.skip || states.any(&[Skipped]),
                upstream_failed: self.upstream_failed || states.any(&[Failed, UpstreamFailed]),
            },
        };
        setups.iter().map(verdict).fold(Self::default(), Self::or)
    }

    fn or(self, other: Self) -> Self {
        Self {
            run: self.run || other.run,
            skip: self.skip || other.skip,
            upstream_failed: self.upstream_failed || other.upstream_failed,
        }
    }

    /// Every verdict that some choice among these upstreams' endings, and some order of them, allows.
    pub(super) fn of(rule: TriggerRule, upstreams: Occurring) -> Self {
        upstreams
            .iter()
            .map(|occurring| verdicts(rule, occurring))
            .fold(Self::default(), |all, one| Self {
                run: all.run || one.run,
                skip: all.skip || one.skip,
                upstream_failed: all.upstream_failed || one.upstream_failed,
            })
    }
}

/// The rules, once all upstreams have ended and these states occur among them.
fn verdicts(rule: TriggerRule, upstreams: States) -> Verdicts {
    use TaskState::{Failed, Skipped, Success, UpstreamFailed};
    const BAD: [TaskState; 2] = [Failed, UpstreamFailed];
    let either = |holds: bool, yes: Verdicts, no: Verdicts| if holds { yes } else { no };
    let any = |states: &[TaskState]| upstreams.any(states);
    let only = |states: &[TaskState]| upstreams.only(states);
    let (run, skip, failed) = (Verdicts::RUN, Verdicts::SKIP, Verdicts::UPSTREAM_FAILED);
    if upstreams.is_empty() {
        return run;
    }
    match rule {
        TriggerRule::Always | TriggerRule::AllDone => run,
        // See `Verdicts::of_setups`.
        TriggerRule::AllDoneSetupSuccess => run,
        TriggerRule::AllSuccess if only(&[Success]) => run,
        // The first upstream that did not succeed decides at once; which that was, nobody can see afterwards.
        TriggerRule::AllSuccess => Verdicts {
            run: false,
            skip: any(&[Skipped]),
            upstream_failed: any(&BAD),
        },
        TriggerRule::AllFailed => either(only(&BAD), run, skip),
        TriggerRule::OneSuccess if any(&[Success]) => run,
        TriggerRule::OneSuccess => either(only(&[Skipped]), skip, failed),
        TriggerRule::OneFailed => either(any(&BAD), run, skip),
        TriggerRule::OneDone => either(any(&[Success, Failed]), run, skip),
        TriggerRule::NoneFailed => either(any(&BAD), failed, run),
        TriggerRule::NoneFailedMinOneSuccess if any(&BAD) => failed,
        TriggerRule::NoneFailedMinOneSuccess => either(any(&[Success]), run, skip),
        TriggerRule::NoneSkipped => either(any(&[Skipped]), skip, run),
        TriggerRule::AllSkipped => either(only(&[Skipped]), run, skip),
        TriggerRule::AllDoneMinOneSuccess if any(&[Skipped]) => skip,
        TriggerRule::AllDoneMinOneSuccess => either(any(&[Success]), run, failed),
    }
}
