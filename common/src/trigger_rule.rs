//! Airflow's thirteen trigger rules, decided from counters of the upstreams' endings alone.

use crate::state::TaskState;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// When a task may run, given how its upstreams ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TriggerRule {
    #[default]
    AllSuccess,
    AllFailed,
    AllDone,
    OneSuccess,
    OneFailed,
    OneDone,
    NoneFailed,
    NoneFailedMinOneSuccess,
    NoneSkipped,
    AllSkipped,
    Always,
    AllDoneMinOneSuccess,
    /// For teardowns: all upstreams ended and a setup among them succeeded.
    AllDoneSetupSuccess,
}

impl TriggerRule {
    pub const ALL: [(Self, &'static str); 13] = [
        (Self::AllSuccess, "all_success"),
        (Self::AllFailed, "all_failed"),
        (Self::AllDone, "all_done"),
        (Self::OneSuccess, "one_success"),
        (Self::OneFailed, "one_failed"),
        (Self::OneDone, "one_done"),
        (Self::NoneFailed, "none_failed"),
        (Self::NoneFailedMinOneSuccess, "none_failed_min_one_success"),
        (Self::NoneSkipped, "none_skipped"),
        (Self::AllSkipped, "all_skipped"),
        (Self::Always, "always"),
        (Self::AllDoneMinOneSuccess, "all_done_min_one_success"),
        (Self::AllDoneSetupSuccess, "all_done_setup_success"),
    ];

    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(rule, _)| *rule == self)
            .map_or("", |(_, name)| name)
    }
}

impl fmt::Display for TriggerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TriggerRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(rule, _)| *rule)
            .ok_or_else(|| format!("{text:?} is not a trigger rule"))
    }
}

/// How the direct upstream instances of a task ended so far. A mapped upstream counts each of its instances; until it is
/// expanded it counts as one that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Upstream instances in all.
    pub total: i32,
    pub success: i32,
    pub failed: i32,
    pub upstream_failed: i32,
    pub skipped: i32,
    pub removed: i32,
    /// Setup instances in all, and how they ended. With the rule `all_done_setup_success`: those among the upstreams (each is
    /// in the counts above too). With any other: those that the task needs without depending on them directly.
    pub setups: i32,
    pub setup_success: i32,
    pub setup_skipped: i32,
    /// Needed setups that failed. No store keeps it: the transaction that counts the first one ends the task.
    pub setup_failed: i32,
}

impl Counters {
    pub fn done(&self) -> i32 {
        self.success + self.failed + self.upstream_failed + self.skipped + self.removed
    }

    /// Counts one ending of a setup that the task needs without depending on it directly.
    pub fn count_needed_setup(&mut self, ending: TaskState) {
        self.count_needed_setups(ending, 1);
    }

    /// Counts `n` endings of such setups.
    pub fn count_needed_setups(&mut self, ending: TaskState, n: i32) {
        match ending {
            TaskState::Success => self.setup_success += n,
            TaskState::Skipped => self.setup_skipped += n,
            TaskState::Failed | TaskState::UpstreamFailed => self.setup_failed += n,
            _ => {}
        }
    }

    /// Counts one ending of a direct upstream.
    pub fn count(&mut self, ending: TaskState, is_setup: bool) {
        self.count_all(ending, is_setup, 1);
    }

    /// Counts `n` endings.
    pub fn count_all(&mut self, ending: TaskState, is_setup: bool, n: i32) {
        match ending {
            TaskState::Success => self.success += n,
            TaskState::Failed => self.failed += n,
            TaskState::UpstreamFailed => self.upstream_failed += n,
            TaskState::Skipped => self.skipped += n,
            TaskState::Removed => self.removed += n,
            _ => return,
        }
        if is_setup {
            match ending {
                TaskState::Success => self.setup_success += n,
                TaskState::Skipped => self.setup_skipped += n,
                _ => {}
            }
        }
    }
}

/// What a trigger rule says of the counters as they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided yet: more upstreams have to end.
    Wait,
    Run,
    /// The task ends in `skipped` without running.
    Skip,
    /// The task ends in `upstream_failed` without running.
    UpstreamFailed,
}

/// Decides a rule. Once it answers other than [`Verdict::Wait`] the answer is final: the caller acts on the first.
///
/// A task that needs setups runs only once all of them succeeded; one that failed or was skipped decides at once, as in
/// Airflow. `always` and tasks without upstreams need none.
pub fn decide(rule: TriggerRule, c: &Counters) -> Verdict {
    let needs_setups = c.setups > 0 && rule != TriggerRule::AllDoneSetupSuccess;
    if !needs_setups || rule == TriggerRule::Always {
        return decide_upstreams(rule, c);
    }
    if c.setup_failed > 0 {
        return Verdict::UpstreamFailed;
    }
    if c.setup_skipped > 0 {
        return Verdict::Skip;
    }
    match decide_upstreams(rule, c) {
        Verdict::Run if c.setup_success < c.setups => Verdict::Wait,
        verdict => verdict,
    }
}

fn decide_upstreams(rule: TriggerRule, c: &Counters) -> Verdict {
    use Verdict::{Run, Skip, UpstreamFailed, Wait};
    let bad = c.failed + c.upstream_failed;
    let all_done = c.done() >= c.total;
    match rule {
        TriggerRule::Always => Run,
        _ if c.total == 0 => Run,
        TriggerRule::AllSuccess => {
            if bad > 0 {
                UpstreamFailed
            } else if c.skipped > 0 {
                Skip
            } else if c.success + c.removed >= c.total {
                Run
            } else {
                Wait
            }
        }
        TriggerRule::AllFailed => {
            if c.success + c.skipped > 0 {
                Skip
            } else if bad + c.removed >= c.total {
                Run
            } else {
                Wait
            }
        }
        TriggerRule::AllDone => if_done(all_done, Run),
        TriggerRule::OneSuccess => {
            if c.success > 0 {
                Run
            } else if !all_done {
                Wait
            } else if c.skipped >= c.total {
                Skip
            } else {
                UpstreamFailed
            }
        }
        TriggerRule::OneFailed => {
            if bad > 0 {
                Run
            } else {
                if_done(all_done, Skip)
            }
        }
        TriggerRule::OneDone => {
            if c.success + c.failed > 0 {
                Run
            } else {
                if_done(all_done, Skip)
            }
        }
        TriggerRule::NoneFailed => {
            if bad > 0 {
                UpstreamFailed
            } else {
                if_done(all_done, Run)
            }
        }
        TriggerRule::NoneFailedMinOneSuccess => {
            if bad > 0 {
                UpstreamFailed
            } else if !all_done {
                Wait
            } else if c.success > 0 {
                Run
            } else if c.skipped >= c.total {
                Skip
            } else {
                UpstreamFailed
            }
        }
        TriggerRule::NoneSkipped => {
            if c.skipped > 0 {
                Skip
            } else {
                if_done(all_done, Run)
            }
        }
        TriggerRule::AllSkipped => {
            if c.success + bad > 0 {
                Skip
            } else if c.skipped >= c.total {
                Run
            } else {
                // A removed upstream can never be skipped: with everything ended the rule cannot hold any more.
                if_done(all_done, Skip)
            }
        }
        TriggerRule::AllDoneMinOneSuccess => {
            if c.skipped > 0 {
                Skip
            } else if !all_done {
                Wait
            } else if c.success > 0 {
                Run
            } else {
                UpstreamFailed
            }
        }
        TriggerRule::AllDoneSetupSuccess => {
            if !all_done {
                Wait
            } else if c.setups == 0 || c.setup_success > 0 {
                Run
            } else if c.setup_skipped >= c.setups {
                Skip
            } else {
                UpstreamFailed
            }
        }
    }
}

fn if_done(all_done: bool, verdict: Verdict) -> Verdict {
    if all_done { verdict } else { Verdict::Wait }
}

#[cfg(test)]
mod tests;
