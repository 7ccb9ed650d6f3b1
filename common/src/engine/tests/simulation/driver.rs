//! Lets events happen: hostile ones in any order, then a calm end in which everything must come to its own.

use super::{
    ledger::Ledger,
    shape::{DagShape, Deployment, Flow, ending},
};
use crate::{
    engine::{Command, tests::harness::*},
    ids::{RunPk, TaskIdx, TiPk},
    limit::LimitKey,
    message::{Ending, XcomOut},
    reference::{self, Decision, Interrupted, List, Observed, Script, Stop},
    row::{RETURN_VALUE, TiRow, XcomValue},
    state::TaskState,
};
use chrono::Duration;
use std::collections::BTreeMap;

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

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

pub(super) struct Driver<'a> {
    deployment: &'a Deployment,
    dags: Vec<&'a DagShape>,
    pub(super) world: World,
    ledger: Ledger,
    choices: Choices,
    history: Vec<Command>,
    /// Runs may be cancelled and time out.
    may_stop: bool,
    pub(super) outcomes: Vec<Outcome>,
}

impl<'a> Driver<'a> {
    pub(super) fn new(deployment: &'a Deployment, seed: u64, may_stop: bool) -> Self {
        Self {
            deployment,
            dags: deployment.dag_of_runs().collect(),
            world: deployment.world(),
            ledger: Ledger::default(),
            choices: Choices(seed),
            history: Vec::new(),
            may_stop,
            outcomes: Vec::new(),
        }
    }

    pub(super) fn run_to_the_end(&mut self) {
        for _ in 0..self.choices.below(250) {
            self.hostile_step();
        }
        self.calm_end();
    }

    // ---- Hostile

    fn hostile_step(&mut self) {
        match self.choices.below(16) {
            0 => {
                let outcome = self.world.start();
                self.entered(0, outcome);
            }
            1..=3 => self.dispatch_some(),
            4 => self.time_passes(700),
            5 if self.choices.one_in(3) => {
                // Redis is away: no epoch, no dispatch. It comes back with another one.
                self.world.epoch = match self.world.epoch {
                    Some(_) => None,
                    None => Some(2),
                };
            }
            6 if self.choices.one_in(3) => self.operate(),
            _ => {
                let n = 1 + self.choices.below(5);
                let commands: Vec<Command> = (0..n).filter_map(|_| self.event()).collect();
                self.send(commands);
            }
        }
    }

    /// Any order and any part of what is ready has to keep the limits.
    fn dispatch_some(&mut self) {
        let ready = self.world.in_state(&[TaskState::Scheduled]);
        let mut order: Vec<TiPk> = ready.iter().map(|row| row.pk).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, self.choices.below(i + 1));
        }
        if self.choices.one_in(3) {
            order.truncate(self.choices.below(order.len() + 1));
        }
        let outcome = self.world.dispatch_in(&order);
        // Nothing is passed over that would have fitted.
        if self.world.epoch.is_some() && outcome.undeliverable.is_empty() {
            let left = order.iter().map(|ti| &self.world.tis[ti]);
            let left = left.filter(|row| row.state == TaskState::Scheduled);
            for row in left {
                assert!(!self.world.fits(row), "{row:?} was passed over");
            }
        }
        self.entered(0, outcome);
    }

    fn time_passes(&mut self, milliseconds: i64) {
        self.world.now += Duration::milliseconds(milliseconds);
        let rows = self.world.in_state(&[TaskState::UpForRetry]);
        let mut commands: Vec<Command> = rows.iter().map(|r| retry_due(r.run, r.pk)).collect();
        if self.may_stop {
            commands.extend(self.timeouts());
        }
        self.send(commands);
    }

    fn timeouts(&self) -> Vec<Command> {
        let runs = self.dags.iter().zip(self.world.runs.values());
        let late = runs.filter(|(dag, run)| {
            let started = run.started_at.filter(|_| !run.state.is_finished());
            let deadline = started.zip(dag.timeout);
            deadline.is_some_and(|(at, secs)| at + Duration::seconds(secs) <= self.world.now)
        });
        late.map(|(_, run)| stop_run(run.pk, "too late", false))
            .collect()
    }

    /// Somebody changes a pool's or a queue's cap, or pauses a queue.
    fn operate(&mut self) {
        let cap = self.choices.below(5) as i64;
        let paused = self.choices.one_in(2);
        let key = match self.choices.below(3) {
            0 => LimitKey::pool("p"),
            1 => LimitKey::queue("default"),
            _ => LimitKey::queue("other"),
        };
        if let Some(limit) = self.world.limits.get_mut(&key) {
            limit.cap = cap;
            limit.paused = paused && matches!(key, LimitKey::Queue { .. });
        }
    }

    fn event(&mut self) -> Option<Command> {
        if !self.history.is_empty() && self.choices.one_in(4) {
            // Delivered twice, or very late.
            let at = self.choices.below(self.history.len());
            return Some(self.history[at].clone());
        }
        if self.may_stop && self.choices.one_in(20) {
            let run = RunPk(1 + self.choices.below(self.dags.len()) as i64);
            return Some(stop_run(run, "cancelled", true));
        }
        if self.choices.one_in(10) {
            // A reconciler's finding that is not so, or no longer.
            let rows: Vec<TiRow> = self.world.tis.values().cloned().collect();
            let row = rows.get(self.choices.below(rows.len()))?;
            return Some(match self.choices.below(3) {
                0 => retry_due(row.run, row.pk),
                1 => lost(&older(row)),
                _ => finished(&older(row), Ending::Success),
            });
        }
        let out: Vec<TiPk> = self.ledger.out.keys().copied().collect();
        let ti = *out.get(self.choices.below(out.len()))?;
        let row = self.world.tis[&ti].clone();
        if self.ledger.stopped.contains(&row.run) && self.choices.one_in(2) {
            return Some(match self.choices.below(3) {
                0 => finished(&row, Ending::Cancelled),
                1 => lost(&row),
                _ => cancelled_unclaimed(row.run, row.dispatch()),
            });
        }
        Some(match self.choices.below(12) {
            0..=2 => started(&row),
            3 => requeued(&row),
            4 => unclaimed(&row),
            5 => forgotten(&row),
            6 => lost(&row),
            7 => cancelled_unclaimed(row.run, row.dispatch()),
            _ => self.ends(&row),
        })
    }

    /// The ending that the script has for this try.
    fn ends(&self, row: &TiRow) -> Command {
        let dag = self.dags[row.run.0 as usize - 1];
        let outcome = dag.outcome(row.task_idx, row.map_index, row.try_number);
        let xcom = XcomOut {
            key: RETURN_VALUE.into(),
            value: XcomValue::Inline(dag.tasks[row.task_idx as usize].value()),
        };
        finished_with(row, ending(outcome), vec![xcom])
    }

    /// One transaction.
    fn send(&mut self, commands: Vec<Command>) {
        let stale = self.ledger.enter(&commands, &self.world);
        let outcome = if self.choices.one_in(2) {
            self.world.apply(&commands)
        } else {
            self.world.apply_and_dispatch(&commands)
        };
        self.history.extend(commands);
        self.entered(stale, outcome);
    }

    fn entered(&mut self, stale: usize, outcome: Outcome) {
        self.ledger.check(stale, &outcome, &self.world);
        self.outcomes.push(outcome);
    }

    // ---- Calm

    /// Everything works again: every run ends, in a number of rounds that the DAGs alone bound.
    fn calm_end(&mut self) {
        self.world.epoch = Some(3);
        self.deployment.restore_caps(&mut self.world);
        for round in 0.. {
            let outcome = self.world.start();
            let none_started = !outcome.wrote_runs;
            self.entered(0, outcome);
            let outcome = self.world.dispatch();
            let none_sent = outcome.dispatched.is_empty();
            self.entered(0, outcome);
            if none_started
                && none_sent
                && self.ledger.out.is_empty()
                && self.ledger.waiting.is_empty()
            {
                break;
            }
            let out: Vec<TiPk> = self.ledger.out.keys().copied().collect();
            for batch in out.chunks(1 + self.choices.below(7)) {
                let rows = batch.iter().map(|ti| &self.world.tis[ti]);
                self.send(rows.map(|row| self.ends(row)).collect());
            }
            self.time_passes(2000);
            // Each round ends a try of every instance that is out.
            let most = 10 * (1 + self.world.tis.len());
            assert!(round < most, "no end: {:#?}", self.world.tis);
        }
        for run in self.world.runs.values() {
            let left = self.world.tis.values().filter(|row| row.run == run.pk);
            let left: Vec<_> = left.filter(|row| !row.state.is_finished()).collect();
            assert!(run.state.is_finished(), "{run:?} is stuck: {left:#?}");
        }
    }

    // ---- What came of it

    pub(super) fn verify(&self) {
        assert!(self.world.limits.values().all(|limit| limit.used == 0));
        let attempts = self.world.attempts.iter();
        let attempts = attempts.map(|a| ((a.ti, a.try_number), (a.fence, a.ending.clone())));
        assert_eq!(attempts.collect::<BTreeMap<_, _>>(), self.ledger.attempts);
        for row in self.world.tis.values() {
            let of_row = self.ledger.attempts.range((row.pk, 0)..(row.pk, i32::MAX));
            let failed = of_row.filter(|(_, (_, how))| how == "failed" || how == "up_for_retry");
            assert_eq!(row.user_failures, failed.count() as i32, "{row:?}");
        }
        for (ti, state) in &self.ledger.stopped_as {
            let row = &self.world.tis[ti];
            assert_eq!(row.state, *state, "after the stop: {row:?}");
        }
        for (run, row) in &self.world.runs {
            let stop = match self.ledger.stopped.contains(run) {
                true => Stop::AtSomeMoment,
                false => Stop::Never,
            };
            let spec = &self.world.plan(*run).spec;
            let observed: Vec<Vec<Observed>> = (0..spec.tasks.len() as TaskIdx)
                .map(|idx| self.observed(*run, idx))
                .collect();
            for exactly in [true, false] {
                let script = Happened {
                    driver: self,
                    run: *run,
                    exactly,
                };
                let answer = reference::evaluate(spec, &script, stop);
                let wrong = answer.judge(row.state, &observed);
                assert!(wrong.is_empty(), "run {run}: {wrong:#?}\n{observed:#?}");
            }
        }
    }

    fn observed(&self, run: RunPk, idx: TaskIdx) -> Vec<Observed> {
        let rows = self.world.instances(run, idx);
        let seen = rows.iter().map(|row| Observed {
            map_index: row.map_index,
            state: row.state,
            tries: row.try_number,
        });
        seen.collect()
    }
}

/// The script of one run, with what its course decided: lists and interruptions.
struct Happened<'a> {
    driver: &'a Driver<'a>,
    run: RunPk,
    /// Tells which tries were interrupted; else only how many at most.
    exactly: bool,
}

impl Happened<'_> {
    fn dag(&self) -> &DagShape {
        self.driver.dags[self.run.0 as usize - 1]
    }

    /// What a decider returns to a task that is mapped over it: a branch the list of what it chose.
    fn decided(&self, decider: usize, early: bool) -> Vec<List> {
        let succeeded = self.rows(decider)[0].state == TaskState::Success;
        let mut lists = match self.dag().tasks[decider].flow {
            _ if !succeeded => vec![List::Missing],
            Flow::Branch(bits) => vec![List::Length(self.dag().chosen(decider, bits).len())],
            _ => vec![List::None],
        };
        if early {
            lists.push(List::Missing);
        }
        lists
    }

    fn rows(&self, task: usize) -> Vec<&TiRow> {
        self.driver.world.instances(self.run, task as TaskIdx)
    }
}

impl Script for Happened<'_> {
    fn outcome(&self, task: TaskIdx, map_index: i32, try_number: i32) -> reference::Outcome {
        self.dag().outcome(task, map_index, try_number)
    }

    /// A list is there once its producer has succeeded; a mapped producer's is as long as instances had succeeded by then.
    fn lists(&self, task: TaskIdx, variable: &str) -> Vec<List> {
        let shape = &self.dag().tasks[task as usize];
        let Some(producer) = shape.producer(task as usize, variable) else {
            return vec![List::None];
        };
        let from = &self.dag().tasks[producer];
        let rows = self.rows(producer);
        if from.flow.is_decider() {
            return self.decided(producer, shape.may_run_early());
        }
        let has_value = |row: &&&TiRow| !from.empty && row.state == TaskState::Success;
        let values = rows.iter().filter(has_value).count();
        let early = shape.may_run_early();
        let mut lists = match rows.as_slice() {
            [row] if row.is_node() && values == 1 => vec![from.list()],
            _ if values == 0 && !from.sources.is_empty() => vec![List::Length(0)],
            _ if values == 0 => vec![List::Missing],
            _ if early => (1..=values).map(List::Length).collect(),
            _ => vec![List::Length(values)],
        };
        if early {
            lists.push(List::Missing);
            lists.push(List::Length(0));
        }
        lists
    }

    fn decisions(&self, task: TaskIdx) -> Vec<Decision> {
        vec![self.dag().decision(task as usize)]
    }

    fn interrupted(&self, task: TaskIdx, map_index: i32) -> Interrupted {
        let rows = self.rows(task as usize);
        let row = rows.iter().find(|row| row.map_index == map_index);
        let known = row.and_then(|row| self.driver.ledger.interrupted.get(&row.pk));
        let tries = known.cloned().unwrap_or_default();
        if self.exactly {
            Interrupted::Tries(tries)
        } else {
            Interrupted::AtMost(tries.len() as i32)
        }
    }
}
