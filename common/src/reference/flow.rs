//! Who else has a say in a task than the upstreams that its rule looks at: setups, the makers of its lists, and tasks above that
//! decide what runs. From the documentation: `docs/dag-format.md`.

use super::{Script, TaskAnswer, rules::Verdicts};
use crate::{
    ids::TaskIdx, spec::DagSpec, state::TaskState, template::pulled_as_it_is,
    trigger_rule::TriggerRule,
};
use std::collections::BTreeSet;

/// What a branch, a short circuit or `latest_only` comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It succeeds, and these are skipped.
    Skips(BTreeSet<TaskIdx>),
    Fails,
}

/// What surrounds one task.
#[derive(Debug, Clone, Default)]
pub(super) struct Surroundings {
    /// Setups among its direct upstreams.
    pub(super) setups: Vec<usize>,
    /// Setups that it needs without depending on them directly.
    pub(super) needs: Vec<usize>,
    /// Upstreams whose values are its lists.
    pub(super) lists: Vec<usize>,
    /// Deciders above it, at any distance.
    pub(super) deciders: Vec<usize>,
    pub(super) is_teardown: bool,
    /// Whether its failure fails the run.
    pub(super) decides_run: bool,
}

/// The surroundings of all tasks. `upstreams` has each one's direct upstreams.
pub(super) fn surroundings(spec: &DagSpec, upstreams: &[Vec<usize>]) -> Vec<Surroundings> {
    let tasks = &spec.tasks;
    let n = tasks.len();
    let of_teardown = |i: usize| tasks[i].teardown.as_ref();
    let counts = |i: usize| of_teardown(i).is_none_or(|teardown| teardown.on_failure_fail_dagrun);
    let mut has_below = vec![false; n];
    let mut has_counting_below = vec![false; n];
    for (i, ups) in upstreams.iter().enumerate() {
        for up in ups {
            has_below[*up] = true;
            has_counting_below[*up] |= counts(i);
        }
    }
    let leaf = |i: usize| counts(i) && !has_counting_below[i];
    let only_teardowns = !(0..n).any(leaf);
    let is_special =
        |i: usize| tasks[i].setup || of_teardown(i).is_some() || tasks[i].kind.decider().is_some();
    // Everything above each task; of no use, and large, where nothing asks for it.
    let above: Vec<BTreeSet<usize>> = if (0..n).any(is_special) {
        all_above(upstreams)
    } else {
        vec![BTreeSet::new(); n]
    };
    let teardowns: Vec<usize> = (0..n).filter(|i| of_teardown(*i).is_some()).collect();
    let needs = |i: usize, setup: usize| {
        let mut own = teardowns
            .iter()
            .filter(|t| upstreams[**t].contains(&setup))
            .peekable();
        !upstreams[i].contains(&setup)
            && (own.peek().is_none() || own.any(|t| above[*t].contains(&i)))
    };
    let position = |id: &str| tasks.iter().position(|task| task.task_id == id);
    (0..n)
        .map(|i| {
            let is_teardown = of_teardown(i).is_some();
            let setups = above[i].iter().copied().filter(|up| tasks[*up].setup);
            let templates = tasks[i]
                .mapping()
                .into_iter()
                .flat_map(|mapping| mapping.templates());
            let lists = templates.filter_map(|text| position(&pulled_as_it_is(text)?));
            Surroundings {
                setups: upstreams[i]
                    .iter()
                    .copied()
                    .filter(|up| tasks[*up].setup)
                    .collect(),
                needs: setups
                    .filter(|setup| !is_teardown && needs(i, *setup))
                    .collect(),
                lists: lists.filter(|up| upstreams[i].contains(up)).collect(),
                deciders: above[i]
                    .iter()
                    .copied()
                    .filter(|up| tasks[*up].kind.decider().is_some())
                    .collect(),
                is_teardown,
                decides_run: if only_teardowns {
                    !has_below[i]
                } else {
                    leaf(i)
                },
            }
        })
        .collect()
}

fn all_above(upstreams: &[Vec<usize>]) -> Vec<BTreeSet<usize>> {
    let mut above: Vec<BTreeSet<usize>> = Vec::with_capacity(upstreams.len());
    for ups in upstreams {
        let mut all: BTreeSet<usize> = ups.iter().copied().collect();
        for up in ups {
            all.extend(above[*up].iter().copied());
        }
        above.push(all);
    }
    above
}

/// Whether a rule may hold before all upstreams have ended.
pub(super) fn is_early(rule: TriggerRule) -> bool {
    use TriggerRule::{Always, OneDone, OneFailed, OneSuccess};
    matches!(rule, Always | OneSuccess | OneFailed | OneDone)
}

/// What the makers of its lists allow a task, given what their one instance may end in (`None`: they are expanded, or may be).
pub(super) fn with_lists(
    verdicts: Verdicts,
    rule: TriggerRule,
    makers: impl Iterator<Item = Vec<Option<TaskState>>>,
) -> Verdicts {
    let mut out = verdicts;
    for endings in makers {
        let may_be_there = endings
            .iter()
            .any(|state| state.is_none_or(|state| state == TaskState::Success));
        out.run &= may_be_there || is_early(rule);
        out.skip |= endings.contains(&Some(TaskState::Skipped));
        out.upstream_failed |= endings
            .iter()
            .any(|state| matches!(state, Some(TaskState::Failed | TaskState::UpstreamFailed)));
    }
    out
}

/// What deciders above a task do to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Skipped {
    pub(super) may: bool,
    /// It is skipped unless it was started or had ended by then, which it cannot have.
    pub(super) must: bool,
}

/// What a task's deciders do to it; it may be started before those in `outrun` have decided.
pub(super) fn skipped(
    idx: usize,
    around: &Surroundings,
    script: &impl Script,
    tasks: &[TaskAnswer],
    outrun: &[usize],
) -> Skipped {
    let mut out = Skipped::default();
    for decider in &around.deciders {
        let decisions = script.decisions(*decider as TaskIdx);
        let skips = |decision: &Decision| match decision {
            Decision::Skips(tasks) => tasks.contains(&(idx as TaskIdx)),
            Decision::Fails => false,
        };
        if tasks[*decider].single.tries(TaskState::Success).is_none() {
            continue;
        }
        if decisions.is_empty() || decisions.iter().any(skips) {
            out.may = true;
        }
        let always_decides = tasks[*decider]
            .single
            .iter()
            .all(|(state, _)| state == TaskState::Success);
        let must = !decisions.is_empty() && decisions.iter().all(skips) && always_decides;
        out.must |= must && !outrun.contains(decider);
    }
    out
}
