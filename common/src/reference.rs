//! What a run must come to: a second, deliberately simple statement of the engine's rules to hold the engine against.
//!
//! [`evaluate`] takes a DAG and a [`Script`] (how each attempt ends, what each mapped task runs over) and answers which
//! instances exist, in which states each may end after how many tries, and how the run may end. [`Answer::judge`] compares
//! what happened with it. The engine's property tests and the load tool's checker both use it.
//!
//! It follows Airflow's documentation and shares nothing with the engine but the specification and the names of states:
//! no counters, no trigger-rule code, no graph, so that a mistake in one is not in both.
//!
//! # Why sets
//!
//! The order of events decides some endings: with one upstream failed and one skipped, `all_success` gives `upstream_failed`
//! or `skipped`, whichever came first. So every answer is the set of what some order allows.
//!
//! The sets are *sound*: what a right engine does is never called wrong. They propagate as if each upstream chose its ending
//! on its own, so they may hold combinations that no order gives (two tasks below the same pair of upstreams choose alike
//! more often than the sets say; an upstream that always ends before another cannot come second). What makes up for it:
//! [`Answer::judge`] holds each instance against the endings that its upstreams really had, where all but `all_success` over
//! failed *and* skipped upstreams leaves one verdict. Since upstreams are judged likewise, a wrong ending cannot hide behind
//! another.
//!
//! # Cost
//!
//! Linear in instances and edges between tasks. For its downstreams a mapped task is one small summary of which states
//! occur among its instances; pairs of instances are never looked at.

mod endings;
mod flow;
mod judge;
mod rules;
mod script;
mod tries;

pub use endings::Endings;
pub use flow::Decision;
pub use judge::{Contradiction, Observed};
pub use script::{Interrupted, Interruption, List, Outcome, Script, Stop};

use crate::{
    ids::{TaskIdx, UNMAPPED},
    spec::{DagSpec, ExpandSource, Mapping, TaskKind, TaskSpec},
    state::{RunState, TaskState},
};
use flow::{Surroundings, is_early};
use rules::{Occurring, States, Verdicts};
use std::collections::{BTreeSet, HashMap, HashSet};

/// A mapped task of more instances fails.
const LONGEST_MAP: usize = 100_000;

/// What a run of a DAG under a script may come to.
#[derive(Debug, Clone)]
pub struct Answer {
    /// By position in the specification.
    pub tasks: Vec<TaskAnswer>,
    /// How the run may end, ascending.
    pub run: Vec<RunState>,
    stop: Stop,
    fail_fast: bool,
    rules: Vec<Rule>,
}

/// What may become of one task.
#[derive(Debug, Clone, Default)]
pub struct TaskAnswer {
    /// The endings of the one instance with `map_index` -1. Of a mapped task that is what it leaves when it is not
    /// expanded; empty, if it always is.
    pub single: Endings,
    /// A mapped task: how many instances it may be expanded into. Empty, if it never is.
    pub lengths: BTreeSet<usize>,
    /// The endings of instances 0, 1, … up to the greatest length.
    pub mapped: Vec<Endings>,
}

impl TaskAnswer {
    /// What an instance may end in; `None` if it cannot exist.
    pub fn endings(&self, map_index: i32) -> Option<&Endings> {
        let endings = match usize::try_from(map_index) {
            Ok(index) => self.mapped.get(index)?,
            Err(_) => &self.single,
        };
        Some(endings).filter(|endings| !endings.is_empty())
    }

    /// The endings of all instances.
    fn all(&self) -> impl Iterator<Item = &Endings> {
        std::iter::once(&self.single).chain(&self.mapped)
    }

    fn stop(&mut self) {
        self.single.stop();
        self.mapped.iter_mut().for_each(Endings::stop);
    }
}

/// What is needed of a task once more to judge it.
#[derive(Debug, Clone)]
struct Rule {
    task_id: String,
    upstreams: Vec<usize>,
    around: Surroundings,
    skipped: flow::Skipped,
    trigger: crate::trigger_rule::TriggerRule,
    /// What the single instance may end in when the task may run.
    runs_single: Endings,
}

/// Evaluates a run that nobody stops, or that was stopped at an unknown moment.
///
/// `spec` is a normalised one: its tasks stand in a topological order.
pub fn evaluate(spec: &DagSpec, script: &impl Script, stop: Stop) -> Answer {
    let mut rules = edges(spec);
    let mut occurring: Vec<Occurring> = Vec::with_capacity(spec.tasks.len());
    let mut tasks: Vec<TaskAnswer> = Vec::with_capacity(spec.tasks.len());
    let mut ends_before = HashSet::new();
    for (idx, task) in (0..).zip(&spec.tasks) {
        let of = |ups: &[usize]| {
            ups.iter()
                .map(|up| occurring[*up])
                .fold(Occurring::NOTHING, Occurring::and)
        };
        let rule = &rules[idx as usize];
        let around = &rule.around;
        let mut verdicts =
            rule.verdicts(of(&rule.upstreams), of(&around.setups), of(&around.needs));
        if rule.waits() {
            let makers = around
                .lists
                .iter()
                .map(|maker| maker_endings(&tasks[*maker]));
            verdicts = flow::with_lists(verdicts, rule.trigger, makers);
        }
        let outrun = deciders_to_outrun(idx as usize, &rules, verdicts, &mut ends_before);
        let skipped = flow::skipped(idx as usize, around, script, &tasks, &outrun);
        verdicts.skip |= skipped.may;
        verdicts.run &= !skipped.must;
        if around.is_teardown && (stop == Stop::AtSomeMoment || spec.fail_fast) {
            // Of a run that is stopped the teardowns go on, after whatever became of the rest.
            verdicts = Verdicts::ANY;
        }
        let (mut answer, runs_single) = task_answer(idx, task, script, verdicts);
        if skipped.may {
            answer.single.skip_between_tries();
        }
        let rule = &mut rules[idx as usize];
        (rule.runs_single, rule.skipped) = (runs_single, skipped);
        // Downstreams hear of what happened before the stop only: whatever that was, it could have gone on without one.
        occurring.push(summary(&answer));
        if stop == Stop::AtSomeMoment {
            answer.stop();
        }
        tasks.push(answer);
    }
    let leaves = (0..tasks.len()).filter(|idx| rules[*idx].around.decides_run);
    let leaves = leaves.fold(Occurring::NOTHING, |all, idx| all.and(occurring[idx]));
    let mut run = run_endings(leaves, stop);
    let may_fail = |task: &TaskAnswer| {
        task.all()
            .any(|endings| endings.tries(TaskState::Failed).is_some())
    };
    if spec.fail_fast && tasks.iter().any(may_fail) {
        tasks.iter_mut().for_each(TaskAnswer::stop);
        run.push(RunState::Failed);
        run.dedup();
    }
    Answer {
        tasks,
        run,
        stop,
        fail_fast: spec.fail_fast,
        rules,
    }
}

/// The rules and upstreams of the tasks, by name. Names that no task has are left out.
fn edges(spec: &DagSpec) -> Vec<Rule> {
    let position: HashMap<&str, usize> = spec
        .tasks
        .iter()
        .map(|task| task.task_id.as_str())
        .zip(0..)
        .collect();
    let mut rules: Vec<Rule> = Vec::with_capacity(spec.tasks.len());
    for task in &spec.tasks {
        let upstreams = task
            .depends_on
            .iter()
            .filter_map(|id| position.get(id.as_str()).copied());
        let upstreams: BTreeSet<usize> = upstreams.filter(|up| *up < rules.len()).collect();
        rules.push(Rule {
            task_id: task.task_id.clone(),
            upstreams: upstreams.into_iter().collect(),
            around: Surroundings::default(),
            skipped: flow::Skipped::default(),
            trigger: task.trigger_rule,
            runs_single: Endings::default(),
        });
    }
    let upstreams: Vec<Vec<usize>> = rules.iter().map(|rule| rule.upstreams.clone()).collect();
    for (rule, around) in rules.iter_mut().zip(flow::surroundings(spec, &upstreams)) {
        rule.around = around;
    }
    rules
}

impl Rule {
    /// Whether the task waits for anything.
    fn waits(&self) -> bool {
        !self.upstreams.is_empty() && self.trigger != crate::trigger_rule::TriggerRule::Always
    }

    /// What the endings of upstreams and setups make of the task.
    fn verdicts(&self, upstreams: Occurring, setups: Occurring, needs: Occurring) -> Verdicts {
        if !self.waits() {
            return Verdicts::RUN;
        }
        match self.trigger {
            crate::trigger_rule::TriggerRule::AllDoneSetupSuccess => Verdicts::of_setups(setups),
            trigger => Verdicts::of(trigger, upstreams).with_needed(needs),
        }
    }
}

/// Which of a task's deciders it may be started before, and notes before which it may end.
fn deciders_to_outrun(
    idx: usize,
    rules: &[Rule],
    verdicts: Verdicts,
    ends_before: &mut HashSet<(usize, usize)>,
) -> Vec<usize> {
    let rule = &rules[idx];
    let mut outrun = Vec::new();
    for decider in &rule.around.deciders {
        let below = |up: &&usize| *up == decider || rules[**up].around.deciders.contains(decider);
        let mut between = rule.upstreams.iter().filter(below);
        let runs = is_early(rule.trigger)
            || between.all(|up| up != decider && ends_before.contains(&(*up, *decider)));
        if runs {
            outrun.push(*decider);
        }
        if runs || verdicts.skip || verdicts.upstream_failed {
            ends_before.insert((idx, *decider));
        }
    }
    outrun
}

/// What the one instance of a list's maker may end in; `None`: it has several, or may have.
fn maker_endings(maker: &TaskAnswer) -> Vec<Option<TaskState>> {
    let single = maker.single.iter().map(|(state, _)| Some(state));
    let expanded = (!maker.lengths.is_empty()).then_some(None);
    single.chain(expanded).collect()
}

fn task_answer(
    idx: TaskIdx,
    task: &TaskSpec,
    script: &impl Script,
    verdicts: Verdicts,
) -> (TaskAnswer, Endings) {
    let mut answer = TaskAnswer::default();
    let mut runs_single = Endings::default();
    match task.mapping() {
        None => runs_single = instance(idx, UNMAPPED, task, script),
        Some(mapping) => {
            for length in lengths(idx, mapping, script) {
                match length {
                    List::Length(0) => runs_single.add(TaskState::Skipped, 0..=0),
                    List::None => runs_single.add(TaskState::Failed, 0..=0),
                    List::Missing => runs_single.add(TaskState::UpstreamFailed, 0..=0),
                    List::Length(n) if verdicts.run => {
                        answer.lengths.insert(n);
                    }
                    List::Length(_) => {}
                }
            }
            let longest = answer.lengths.last().copied().unwrap_or(0);
            let instances = (0..).take(longest).map(|i| instance(idx, i, task, script));
            answer.mapped = instances.collect();
        }
    }
    answer.single = single(verdicts, &runs_single);
    (answer, runs_single)
}

/// What the instance with `map_index` -1 may end in.
fn single(verdicts: Verdicts, runs: &Endings) -> Endings {
    let mut endings = Endings::default();
    if verdicts.run {
        endings.add_all(runs);
    }
    if verdicts.skip {
        endings.add(TaskState::Skipped, 0..=0);
    }
    if verdicts.upstream_failed {
        endings.add(TaskState::UpstreamFailed, 0..=0);
    }
    endings
}

/// What an instance may end in that runs.
fn instance(idx: TaskIdx, map_index: i32, task: &TaskSpec, script: &impl Script) -> Endings {
    if matches!(task.kind, TaskKind::Empty(_)) {
        let mut endings = Endings::default();
        endings.add(TaskState::Success, 0..=0);
        return endings;
    }
    if task.kind.decider().is_some() {
        let decisions = script.decisions(idx);
        let mut endings = Endings::default();
        if decisions.is_empty()
            || decisions
                .iter()
                .any(|decision| *decision != Decision::Fails)
        {
            endings.add(TaskState::Success, 0..=0);
        }
        if decisions.is_empty() || decisions.contains(&Decision::Fails) {
            endings.add(TaskState::Failed, 0..=0);
        }
        return endings;
    }
    let interrupted = script.interrupted(idx, map_index);
    tries::endings(task.retries, &interrupted, |try_number| {
        script.outcome(idx, map_index, try_number)
    })
}

/// What the lists of a mapped task make together: as many as their product, as each of lists side by side, as mappings.
fn lengths(idx: TaskIdx, mapping: Mapping<'_>, script: &impl Script) -> Vec<List> {
    let of = |variable: &str, source: &ExpandSource| match source {
        ExpandSource::Literal(list) => vec![List::Length(list.len())],
        ExpandSource::Template(_) => script.lists(idx, variable),
    };
    let (sources, join): (_, fn(List, List) -> List) = match mapping {
        Mapping::Items(source) => return of("", source).into_iter().map(bounded).collect(),
        Mapping::Product(sources) => (sources, times),
        Mapping::Zip(sources) => (sources, beside),
    };
    let mut lists = sources
        .iter()
        .map(|(variable, source)| of(variable, source));
    let first: Vec<List> = lists.next().into_iter().flatten().map(bounded).collect();
    lists.fold(first, |joined, lists| {
        let pairs = joined
            .iter()
            .flat_map(|a| lists.iter().map(|b| join(*a, *b)));
        pairs.collect()
    })
}

fn bounded(list: List) -> List {
    times(List::Length(1), list)
}

fn beside(a: List, b: List) -> List {
    match (a, b) {
        (List::Length(a), List::Length(b)) if a == b => List::Length(a),
        (List::Missing, _) | (_, List::Missing) => List::Missing,
        _ => List::None,
    }
}

fn times(a: List, b: List) -> List {
    match (a, b) {
        (List::Length(a), List::Length(b)) if a.saturating_mul(b) <= LONGEST_MAP => {
            List::Length(a * b)
        }
        (List::Missing, _) | (_, List::Missing) => List::Missing,
        _ => List::None,
    }
}

/// What downstreams see of a task: one instance, or all of an expansion.
fn summary(answer: &TaskAnswer) -> Occurring {
    let mut all = Occurring::one_of(answer.single.states());
    let mut expanded = Occurring::NOTHING;
    for (n, endings) in (1..).zip(&answer.mapped) {
        expanded = expanded.and(Occurring::one_of(endings.states()));
        if answer.lengths.contains(&n) {
            all = all.or(expanded);
        }
    }
    all
}

/// A run fails by a leaf that failed, or whose upstream did; and by being stopped.
fn run_endings(leaves: Occurring, stop: Stop) -> Vec<RunState> {
    if stop == Stop::AtSomeMoment {
        return vec![RunState::Failed];
    }
    let bad = [TaskState::Failed, TaskState::UpstreamFailed];
    let ending = |states: States| match states.any(&bad) {
        true => RunState::Failed,
        false => RunState::Success,
    };
    let endings: BTreeSet<RunState> = leaves.iter().map(ending).collect();
    endings.into_iter().collect()
}

#[cfg(test)]
mod tests;
