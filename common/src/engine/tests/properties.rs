//! Random DAGs under random orders of events, duplicates and stale ones among them.

use super::harness::*;
use crate::{
    engine::Command,
    ids::RunPk,
    message::Ending,
    row::TiRow,
    state::{RunState, TaskState},
    trigger_rule::TriggerRule,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::HashMap;

/// What happens when an instance runs: it fails so often, then ends so.
#[derive(Debug, Clone, Copy)]
struct Script {
    fails: i32,
    then: Ending,
}

#[derive(Debug, Clone)]
struct Shape {
    tasks: Vec<TaskShape>,
    max_active_tasks: u32,
    max_active_runs: u32,
    pool_cap: i64,
    queue_cap: i64,
}

#[derive(Debug, Clone)]
struct TaskShape {
    /// Chooses upstreams among the tasks before it, by bits.
    upstreams: u16,
    rule: TriggerRule,
    retries: i32,
    empty: bool,
    pooled: bool,
    limited: bool,
    /// `None`: not mapped. 9: what it maps over is no list.
    mapped: Option<usize>,
    scripts: [Script; 3],
}

fn script() -> impl Strategy<Value = Script> {
    let then = prop_oneof![
        6 => Just(Ending::Success),
        2 => Just(Ending::Skipped),
        1 => Just(Ending::FailedForGood),
    ];
    (0..3i32, then).prop_map(|(fails, then)| Script {
        fails: (fails - 1).max(0),
        then,
    })
}

fn task_shape() -> impl Strategy<Value = TaskShape> {
    let rule = prop_oneof![
        2 => Just(TriggerRule::AllSuccess),
        3 => proptest::sample::select(TriggerRule::ALL.map(|(rule, _)| rule).to_vec()),
    ];
    let mapped = prop_oneof![
        4 => Just(None),
        1 => Just(Some(0)),
        3 => (1..4usize).prop_map(Some),
        1 => Just(Some(9)),
    ];
    (
        any::<u16>(),
        any::<u16>(),
        rule,
        0..2i32,
        (
            proptest::bool::weighted(0.15),
            any::<bool>(),
            proptest::bool::weighted(0.2),
        ),
        mapped,
        [script(), script(), script()],
    )
        .prop_map(
            |(a, b, rule, retries, (empty, pooled, limited), mapped, scripts)| TaskShape {
                upstreams: a & b,
                rule,
                retries,
                empty,
                pooled,
                limited,
                mapped,
                scripts,
            },
        )
}

fn shape() -> impl Strategy<Value = Shape> {
    (
        proptest::collection::vec(task_shape(), 0..9),
        1..5u32,
        1..3u32,
        1..4i64,
        1..4i64,
    )
        .prop_map(
            |(tasks, max_active_tasks, max_active_runs, pool_cap, queue_cap)| Shape {
                tasks,
                max_active_tasks,
                max_active_runs,
                pool_cap,
                queue_cap,
            },
        )
}

impl Shape {
    fn world(&self) -> World {
        let tasks: Vec<Value> = self
            .tasks
            .iter()
            .enumerate()
            .map(|(i, t)| {
                let ids: Vec<String> = (0..i)
                    .filter(|up| t.upstreams >> up & 1 == 1)
                    .map(|up| format!("t{up}"))
                    .collect();
                let upstreams: Vec<&str> = ids.iter().map(String::as_str).collect();
                let mut more = json!({
                    "trigger_rule": t.rule.as_str(), "retries": t.retries, "retry_delay": "1s",
                    "priority_weight": i % 3,
                });
                if t.empty {
                    more["empty"] = json!({});
                }
                if t.pooled {
                    more["pool"] = json!("p");
                    more["pool_slots"] = json!(i as i64 % self.pool_cap + 1);
                }
                if t.limited {
                    more["max_active_tis_per_dag"] = json!(2);
                    more["max_active_tis_per_dagrun"] = json!(1);
                }
                match t.mapped {
                    None => {}
                    Some(9) => more["expand"] = json!({"x": "{{ 5 }}"}),
                    Some(n) => more["expand"] = json!({"x": (0..n).collect::<Vec<_>>()}),
                }
                task(&format!("t{i}"), &upstreams, more)
            })
            .collect();
        let spec = json!({
            "dag_id": "d", "max_active_tasks": self.max_active_tasks,
            "max_active_runs": self.max_active_runs, "tasks": tasks,
        });
        let mut world = World::of(serde_json::from_value(spec).unwrap(), 2);
        world.pool("p", self.pool_cap);
        for limit in world.limits.values_mut() {
            if let crate::limit::LimitKey::Queue { .. } = limit.key {
                limit.cap = self.queue_cap;
            }
        }
        world
    }

    fn script(&self, row: &TiRow) -> Script {
        self.tasks[row.task_idx as usize].scripts[row.map_index.max(0) as usize]
    }

    /// What an instance that ran must have ended in.
    fn ran(&self, row: &TiRow) -> TaskState {
        let task = &self.tasks[row.task_idx as usize];
        let script = self.script(row);
        match script.then {
            _ if task.empty => TaskState::Success,
            _ if script.fails > task.retries => TaskState::Failed,
            Ending::Success => TaskState::Success,
            Ending::Skipped => TaskState::Skipped,
            _ => TaskState::Failed,
        }
    }
}

/// The rules again, as Airflow's documentation says them, over all endings of the upstreams: every ending that some order
/// of these allows. Written without looking at counters.
fn allowed(rule: TriggerRule, upstreams: &[TaskState]) -> Vec<Option<TaskState>> {
    use TaskState::{Failed, Skipped, Success, UpstreamFailed};
    const RUN: Option<TaskState> = None;
    let any = |states: &[TaskState]| upstreams.iter().any(|up| states.contains(up));
    let all = |states: &[TaskState]| upstreams.iter().all(|up| states.contains(up));
    if upstreams.is_empty() {
        return vec![RUN];
    }
    let bad = [Failed, UpstreamFailed];
    let one = |verdict| vec![verdict];
    match rule {
        TriggerRule::Always | TriggerRule::AllDone | TriggerRule::AllDoneSetupSuccess => one(RUN),
        TriggerRule::AllSuccess => {
            let mut allowed = Vec::new();
            if any(&bad) {
                allowed.push(Some(UpstreamFailed));
            }
            // Which of the two came first decides.
            if any(&[Skipped]) {
                allowed.push(Some(Skipped));
            }
            if allowed.is_empty() {
                allowed.push(RUN);
            }
            allowed
        }
        TriggerRule::AllFailed if all(&bad) => one(RUN),
        TriggerRule::OneSuccess if any(&[Success]) => one(RUN),
        TriggerRule::OneSuccess if all(&[Skipped]) => one(Some(Skipped)),
        TriggerRule::OneSuccess => one(Some(UpstreamFailed)),
        TriggerRule::OneFailed if any(&bad) => one(RUN),
        TriggerRule::OneDone if any(&[Success, Failed]) => one(RUN),
        TriggerRule::NoneFailed | TriggerRule::NoneFailedMinOneSuccess if any(&bad) => {
            one(Some(UpstreamFailed))
        }
        TriggerRule::NoneFailed => one(RUN),
        TriggerRule::NoneFailedMinOneSuccess if any(&[Success]) => one(RUN),
        TriggerRule::NoneSkipped | TriggerRule::AllDoneMinOneSuccess if any(&[Skipped]) => {
            one(Some(Skipped))
        }
        TriggerRule::NoneSkipped => one(RUN),
        TriggerRule::AllDoneMinOneSuccess if any(&[Success]) => one(RUN),
        TriggerRule::AllDoneMinOneSuccess => one(Some(UpstreamFailed)),
        TriggerRule::AllSkipped if all(&[Skipped]) => one(RUN),
        TriggerRule::AllFailed
        | TriggerRule::OneFailed
        | TriggerRule::OneDone
        | TriggerRule::NoneFailedMinOneSuccess
        | TriggerRule::AllSkipped => one(Some(Skipped)),
    }
}

/// A small generator of choices, so that a failing case is one number.
struct Choices(u64);

impl Choices {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
}

struct Chaos<'a> {
    shape: &'a Shape,
    world: World,
    choices: Choices,
    history: Vec<Command>,
    losses: HashMap<crate::ids::TiPk, i32>,
    /// May stop the first run.
    may_stop: bool,
}

impl Chaos<'_> {
    fn step(&mut self) {
        match self.choices.below(12) {
            0 => {
                self.world.start();
            }
            1..=3 => {
                let mut ready = self.in_state(&[TaskState::Scheduled]);
                // Any order has to keep the limits.
                for i in (1..ready.len()).rev() {
                    ready.swap(i, self.choices.below(i + 1));
                }
                let order: Vec<_> = ready.iter().map(|row| row.pk).collect();
                self.world.dispatch_in(&order);
            }
            4 => {
                self.world.now += chrono::Duration::milliseconds(700);
                let due: Vec<Command> = self
                    .in_state(&[TaskState::UpForRetry])
                    .iter()
                    .map(|row| Command::RetryDue {
                        run: row.run,
                        ti: row.pk,
                    })
                    .collect();
                self.send(due);
            }
            _ => {
                let n = 1 + self.choices.below(4);
                let commands: Vec<Command> = (0..n).filter_map(|_| self.event()).collect();
                self.send(commands);
            }
        }
    }

    fn send(&mut self, commands: Vec<Command>) {
        if self.choices.below(2) == 0 {
            self.world.apply(&commands);
        } else {
            self.world.apply_and_dispatch(&commands);
        }
        self.history.extend(commands);
    }

    fn in_state(&self, states: &[TaskState]) -> Vec<TiRow> {
        self.world
            .tis
            .values()
            .filter(|row| row.is_visible() && states.contains(&row.state))
            .cloned()
            .collect()
    }

    fn event(&mut self) -> Option<Command> {
        if !self.history.is_empty() && self.choices.below(4) == 0 {
            // Delivered twice, or very late.
            let at = self.choices.below(self.history.len());
            return Some(self.history[at].clone());
        }
        if self.may_stop && self.choices.below(30) == 0 {
            return Some(stop("stopped", true));
        }
        let out = self.in_state(&[TaskState::Queued, TaskState::Running]);
        if out.is_empty() {
            return None;
        }
        let row = &out[self.choices.below(out.len())];
        let stopped = self.world.runs[&row.run].stop_reason.is_some();
        Some(match self.choices.below(10) {
            0 | 1 => started(row),
            2 => requeued(row),
            3 => unclaimed(row),
            4 => {
                let losses = self.losses.entry(row.pk).or_default();
                if *losses == 2 {
                    return None;
                }
                *losses += 1;
                lost(row)
            }
            5 => finished(&older(row), Ending::Failed),
            6 if stopped => cancelled_unclaimed(row.run, row.dispatch()),
            7 if stopped => finished(row, Ending::Cancelled),
            _ => {
                let script = self.shape.script(row);
                let ending = if row.user_failures < script.fails {
                    Ending::Failed
                } else {
                    script.then
                };
                finished(row, ending)
            }
        })
    }

    fn run_to_the_end(&mut self) {
        for _ in 0..20_000 {
            if self.world.runs.values().all(|run| run.state.is_finished()) {
                return;
            }
            self.step();
        }
        let stuck: Vec<_> = self
            .world
            .runs
            .values()
            .map(|run| (run.pk, run.state))
            .collect();
        panic!("the runs never end: {stuck:?} {:#?}", self.world.states());
    }

    /// Every instance ended as its upstreams' endings and its script allow.
    fn verify(&self, run: RunPk) {
        for (idx, task) in (0..).zip(&self.shape.tasks) {
            let upstreams: Vec<TaskState> = self
                .world
                .plan
                .graph
                .upstream(idx)
                .iter()
                .flat_map(|up| self.world.instances(run, *up))
                .map(|row| row.state)
                .collect();
            let allowed = allowed(task.rule, &upstreams);
            let instances = self.world.instances(run, idx);
            for row in &instances {
                let as_run = match (task.mapped, row.is_node()) {
                    (Some(0), true) => TaskState::Skipped,
                    (Some(9), true) => TaskState::Failed,
                    // A mapped task's node that has instances is not visible: this one never ran.
                    (Some(_), true) => {
                        assert!(!allowed.contains(&None), "{row:?}");
                        row.state
                    }
                    _ => self.shape.ran(row),
                };
                let fits = allowed
                    .iter()
                    .any(|verdict| verdict.unwrap_or(as_run) == row.state);
                assert!(fits, "{} after {upstreams:?}: {row:?}", task.rule);
            }
            if let (Some(n @ 1..=3), [None]) = (task.mapped, allowed.as_slice()) {
                assert_eq!(instances.len(), n);
            }
        }
        let leaf_failed = self.world.tis.values().any(|row| {
            row.run == run
                && row.is_visible()
                && self.world.plan.is_leaf(row.task_idx)
                && matches!(row.state, TaskState::Failed | TaskState::UpstreamFailed)
        });
        let state = self.world.runs[&run].state;
        assert_eq!(state == RunState::Failed, leaf_failed);
    }
}

fn chaos(shape: &Shape, seed: u64, may_stop: bool) -> Chaos<'_> {
    Chaos {
        shape,
        world: shape.world(),
        choices: Choices(seed),
        history: Vec::new(),
        losses: HashMap::new(),
        may_stop,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Counters, limits and the bound of the work are checked by the harness after every transaction.
    #[test]
    fn every_order_of_events_ends_as_the_rules_say(shape in shape(), seed in any::<u64>()) {
        let mut chaos = chaos(&shape, seed, false);
        chaos.run_to_the_end();
        chaos.verify(RunPk(1));
        chaos.verify(RunPk(2));
        prop_assert!(chaos.world.limits.values().all(|limit| limit.used == 0));
    }

    /// A run that is stopped at any instant ends as failed, and the other as the rules say.
    #[test]
    fn a_stopped_run_ends(shape in shape(), seed in any::<u64>()) {
        let mut chaos = chaos(&shape, seed, true);
        chaos.run_to_the_end();
        chaos.verify(RunPk(2));
        let run = &chaos.world.runs[&RunPk(1)];
        match run.stop_reason {
            Some(_) => prop_assert_eq!(run.state, RunState::Failed),
            None => chaos.verify(RunPk(1)),
        }
        prop_assert!(chaos.world.limits.values().all(|limit| limit.used == 0));
    }
}
