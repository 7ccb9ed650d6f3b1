//! Holds what happened against what was allowed.

use super::{Answer, Endings, Occurring, Stop, TaskAnswer, rules::States, run_endings};
use crate::{
    ids::UNMAPPED,
    state::{RunState, TaskState},
};
use std::fmt;

/// An instance as it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// -1 of a task that is not mapped, or was not expanded.
    pub map_index: i32,
    pub state: TaskState,
    /// Its last `try_number`; 0 if it never ran.
    pub tries: i32,
}

/// Something that cannot have happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contradiction {
    Run {
        state: RunState,
        allowed: Vec<RunState>,
    },
    /// A task's instances are not those that it has unexpanded, or by any of its lists.
    Instances {
        task_id: String,
        found: usize,
        /// -1, or the first index that is missing or too many.
        map_index: i32,
    },
    /// An instance ended in a state or after a number of tries that nothing allows.
    Ending {
        task_id: String,
        instance: Observed,
        allowed: Endings,
    },
    /// An instance's ending does not follow from the endings that its upstreams had.
    Rule {
        task_id: String,
        instance: Observed,
        allowed: Endings,
        upstreams: Vec<TaskState>,
    },
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |states: &[TaskState]| {
            let names: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
            names.join(", ")
        };
        match self {
            Self::Run { state, allowed } => {
                let allowed: Vec<&str> = allowed.iter().map(|state| state.as_str()).collect();
                write!(f, "the run is {state}; allowed: {}", allowed.join(", "))
            }
            Self::Instances {
                task_id,
                found,
                map_index,
            } => write!(
                f,
                "task {task_id} has {found} instances: {map_index} is missing, or must not be there"
            ),
            Self::Ending {
                task_id,
                instance: i,
                allowed,
            } => write!(
                f,
                "{task_id}[{}] is {} after {} tries; allowed: {allowed}",
                i.map_index, i.state, i.tries
            ),
            Self::Rule {
                task_id,
                instance: i,
                allowed,
                upstreams,
            } => write!(
                f,
                "{task_id}[{}] is {} after {} tries; after upstreams that ended {} it is allowed: {allowed}",
                i.map_index,
                i.state,
                i.tries,
                names(upstreams)
            ),
        }
    }
}

impl Answer {
    /// Compares an ended run with the answer. `observed` has the visible instances of each task, by its position in the
    /// specification, in any order; a run that was stopped before it started has none at all. Answers everything that is
    /// wrong, in the order of the tasks.
    pub fn judge(&self, run: RunState, observed: &[Vec<Observed>]) -> Vec<Contradiction> {
        let failed = |instance: &Observed| instance.state == TaskState::Failed;
        let failed_fast = self.fail_fast && observed.iter().flatten().any(failed);
        let was_stopped = self.stop != Stop::Never || failed_fast;
        let mut wrong = Vec::new();
        let never_started = was_stopped && observed.iter().all(Vec::is_empty);
        let none = Vec::new();
        let of = |idx: usize| observed.get(idx).unwrap_or(&none);
        for (idx, task) in self.tasks.iter().enumerate() {
            if never_started {
                break;
            }
            let rule = &self.rules[idx];
            if let Some(map_index) = odd_instance(task, of(idx)) {
                wrong.push(Contradiction::Instances {
                    task_id: rule.task_id.clone(),
                    found: of(idx).len(),
                    map_index,
                });
            }
            let union = |tasks: &[usize]| {
                let tasks = tasks.iter().map(|task| states(of(*task)));
                tasks.fold(States::default(), States::union)
            };
            let upstreams = union(&rule.upstreams);
            let (setups, needs) = (union(&rule.around.setups), union(&rule.around.needs));
            let just = Occurring::just;
            let mut verdicts = rule.verdicts(just(upstreams), just(setups), just(needs));
            if rule.waits() {
                let makers = rule.around.lists.iter().map(|maker| made(of(*maker)));
                verdicts = super::flow::with_lists(verdicts, rule.trigger, makers);
            }
            verdicts.skip |= rule.skipped.may;
            verdicts.run &= !rule.skipped.must;
            for instance in of(idx) {
                let Observed { state, tries, .. } = *instance;
                let allowed = task
                    .endings(instance.map_index)
                    .copied()
                    .unwrap_or_default();
                if !allowed.allow(state, tries) {
                    wrong.push(Contradiction::Ending {
                        task_id: rule.task_id.clone(),
                        instance: *instance,
                        allowed,
                    });
                    continue;
                }
                let allowed = match instance.map_index {
                    UNMAPPED => {
                        let mut single = super::single(verdicts, &rule.runs_single);
                        if rule.skipped.may {
                            single.skip_between_tries();
                        }
                        single
                    }
                    _ if verdicts.run => allowed,
                    _ => Endings::default(),
                };
                if !was_stopped && !allowed.allow(state, tries) {
                    wrong.push(Contradiction::Rule {
                        task_id: rule.task_id.clone(),
                        instance: *instance,
                        allowed,
                        upstreams: upstreams.iter().collect(),
                    });
                }
            }
        }
        let leaves = (0..self.tasks.len()).filter(|idx| self.rules[*idx].around.decides_run);
        let leaves = leaves.fold(States::default(), |all, idx| all.union(states(of(idx))));
        let allowed = match failed_fast {
            true => vec![RunState::Failed],
            false => run_endings(Occurring::just(leaves), self.stop),
        };
        if !allowed.contains(&run) {
            wrong.push(Contradiction::Run {
                state: run,
                allowed,
            });
        }
        wrong
    }
}

fn states(instances: &[Observed]) -> States {
    let states = instances.iter().map(|instance| instance.state);
    states.fold(States::default(), States::with)
}

/// What the maker of a list left: the ending of its one instance, or nothing to speak of.
fn made(instances: &[Observed]) -> Vec<Option<TaskState>> {
    match instances {
        [one] if one.map_index == UNMAPPED => vec![Some(one.state)],
        _ => vec![None],
    }
}

/// An instance that is missing, or must not be there.
fn odd_instance(task: &TaskAnswer, observed: &[Observed]) -> Option<i32> {
    let mut found: Vec<i32> = observed.iter().map(|instance| instance.map_index).collect();
    found.sort_unstable();
    if found == [UNMAPPED] && !task.single.is_empty() {
        return None;
    }
    let gap = (0..).zip(&found).find(|(at, index)| at != *index);
    match gap {
        Some((at, index)) => Some(at.min(*index)),
        None if task.lengths.contains(&found.len()) => None,
        None if task.lengths.is_empty() => Some(UNMAPPED),
        None => i32::try_from(found.len()).ok(),
    }
}
