//! What is known outside the engine: which dispatch of each instance is out, which instance waits for its next try, and
//! what each try came to. It follows the protocol's rules, and the engine has to agree with it after every transaction.

use crate::{
    engine::{
        Command,
        tests::harness::{Outcome, World},
    },
    ids::{Dispatch, Fence, RunPk, TiPk},
    message::Ending,
    reference::Interruption,
    row::TiRow,
    state::{RunState, TaskState},
};
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet};

/// A dispatch that is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Out {
    pub(super) fence: Fence,
    pub(super) try_number: i32,
    pub(super) started: bool,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) out: BTreeMap<TiPk, Out>,
    /// When the next try of an instance is due.
    pub(super) waiting: BTreeMap<TiPk, DateTime<Utc>>,
    /// Runs that were stopped before their end.
    pub(super) stopped: BTreeSet<RunPk>,
    pub(super) interrupted: BTreeMap<TiPk, Vec<(i32, Interruption)>>,
    /// Attempts that have ended, by instance and try: under which fence, and how.
    pub(super) attempts: BTreeMap<(TiPk, i32), (Fence, String)>,
    /// What instances of stopped runs must have ended in that had not ended when the stop came.
    pub(super) stopped_as: BTreeMap<TiPk, TaskState>,
    losses_in_a_row: BTreeMap<TiPk, i32>,
    failures: BTreeMap<TiPk, u32>,
    tries: BTreeMap<TiPk, i32>,
    fences: BTreeMap<TiPk, i64>,
}

impl Ledger {
    /// Enters a transaction's commands as they will be applied; answers how many come too late. `world` is as it was before.
    pub(super) fn enter(&mut self, commands: &[Command], world: &World) -> usize {
        let mut ended_here = BTreeSet::new();
        let stale = commands.iter().filter(|command| {
            let entered = match command {
                Command::StopRun { run, .. } => self.stop(*run, world, &mut ended_here),
                Command::RetryDue { ti, .. } => self.retry_due(*ti, world.now),
                other => self.about_dispatch(other, world),
            };
            entered.is_none()
        });
        stale.count()
    }

    fn stop(&mut self, run: RunPk, world: &World, ended_here: &mut BTreeSet<RunPk>) -> Option<()> {
        let row = &world.runs[&run];
        if row.state.is_finished() || ended_here.contains(&run) {
            return None;
        }
        if row.state == RunState::Queued {
            ended_here.insert(run);
        }
        if self.stopped.insert(run) {
            let rows = world.tis.values().filter(|row| row.run == run);
            let rest =
                rows.filter(|row| row.is_visible() && !row.occupies && !row.state.is_finished());
            self.stopped_as
                .extend(rest.map(|row| (row.pk, TaskState::Skipped)));
        }
        self.waiting.retain(|ti, _| world.tis[ti].run != run);
        Some(())
    }

    fn retry_due(&mut self, ti: TiPk, now: DateTime<Utc>) -> Option<()> {
        self.waiting.get(&ti).filter(|due| **due <= now)?;
        self.waiting.remove(&ti);
        Some(())
    }

    fn about_dispatch(&mut self, command: &Command, world: &World) -> Option<()> {
        let dispatch = dispatch_of(command)?;
        let row = &world.tis[&dispatch.ti];
        let stopped = self.stopped.contains(&row.run);
        let out = self.out.get_mut(&dispatch.ti)?;
        if out.fence != dispatch.fence {
            return None;
        }
        let at = *out;
        let ending = match command {
            Command::Started(_) if at.started => return None,
            Command::Started(_) => {
                out.started = true;
                return Some(());
            }
            Command::Unclaimed { .. } | Command::Forgotten { .. } if at.started => return None,
            Command::CancelledUnclaimed { .. } if at.started || !stopped => return None,
            // Nobody ran it: its number is free again.
            Command::Unclaimed { .. } => {
                self.out.remove(&row.pk);
                if stopped {
                    self.stopped_as.insert(row.pk, TaskState::Skipped);
                }
                return Some(());
            }
            // It may have run, when the record of claims has lost its memory: its number stays taken.
            Command::CancelledUnclaimed { .. } => None,
            Command::Requeued { .. } | Command::Forgotten { .. } => {
                self.interrupted(row.pk, at, Interruption::Requeued);
                Some("requeued")
            }
            Command::Lost { .. } => {
                self.interrupted(row.pk, at, Interruption::Lost);
                *self.losses_in_a_row.entry(row.pk).or_default() += 1;
                Some("lost")
            }
            Command::Finished(event) => Some(match event.ending {
                Ending::Success => "success",
                Ending::Skipped => "skipped",
                Ending::Failed if !stopped && self.failed(row, world) => "up_for_retry",
                Ending::Failed | Ending::FailedForGood | Ending::Cancelled => "failed",
                Ending::NotYet | Ending::RetryIn { .. } => {
                    panic!("the simulation has neither sensors nor retry rules")
                }
            }),
            Command::RetryDue { .. } | Command::StopRun { .. } => return None,
        };
        self.out.remove(&row.pk);
        if stopped {
            let given_up = self.losses_in_a_row.get(&row.pk) == Some(&3);
            let state = stopped_as(command, at.started || given_up);
            self.stopped_as.insert(row.pk, state);
        }
        self.ended(row.pk, at, ending);
        Some(())
    }

    fn ended(&mut self, ti: TiPk, at: Out, ending: Option<&'static str>) {
        self.tries.insert(ti, at.try_number);
        if let Some(ending) = ending {
            let attempt = (at.fence, ending.to_owned());
            self.attempts.insert((ti, at.try_number), attempt);
        }
    }

    fn interrupted(&mut self, ti: TiPk, at: Out, how: Interruption) {
        let of_ti = self.interrupted.entry(ti).or_default();
        of_ti.push((at.try_number, how));
    }

    /// Whether it is tried again.
    fn failed(&mut self, row: &TiRow, world: &World) -> bool {
        let task = world.plan(row.run).task(row.task_idx).unwrap();
        let failures = self.failures.entry(row.pk).or_default();
        *failures += 1;
        self.losses_in_a_row.remove(&row.pk);
        let again = *failures <= task.retries;
        let due = world.now + task.retry_delay.chrono();
        if again && due > world.now {
            self.waiting.insert(row.pk, due);
        }
        again
    }

    /// Compares with the engine, once the transaction is through, and enters what it dispatched.
    pub(super) fn check(&mut self, expected_stale: usize, outcome: &Outcome, world: &World) {
        assert_eq!(outcome.stale, expected_stale, "commands that came too late");
        for ti in &outcome.dispatched {
            let fence = self.fences.entry(*ti).or_default();
            *fence += 1;
            let try_number = self.tries.get(ti).copied().unwrap_or(0) + 1;
            let out = Out {
                fence: Fence(*fence),
                try_number,
                started: false,
            };
            if outcome.undeliverable.contains(ti) {
                self.ended(*ti, out, Some("failed"));
                continue;
            }
            let before = self.out.insert(*ti, out);
            assert_eq!(before, None, "a second dispatch of {ti}");
        }
        let of_engine: BTreeMap<TiPk, Out> = world
            .tis
            .values()
            .filter(|row| row.occupies)
            .map(|row| {
                let out = Out {
                    fence: row.fence,
                    try_number: row.try_number,
                    started: row.state == TaskState::Running,
                };
                (row.pk, out)
            })
            .collect();
        assert_eq!(of_engine, self.out, "what is out");
        // What a branch or a short circuit skipped does not wait any more.
        self.waiting.retain(|ti, _| {
            let row = &world.tis[ti];
            let by_decider = row
                .reason
                .as_deref()
                .is_some_and(|why| why.starts_with("skipped by"));
            !(row.state == TaskState::Skipped && by_decider)
        });
        let of_engine = world.tis.values();
        let of_engine = of_engine.filter_map(|row| Some((row.pk, row.next_at?)));
        assert_eq!(
            of_engine.collect::<BTreeMap<_, _>>(),
            self.waiting,
            "what waits"
        );
        for (run, row) in &world.runs {
            assert_eq!(self.stopped.contains(run), row.stop_reason.is_some());
        }
    }
}

/// In a stopped run what had not started is skipped, and what ran is failed unless it came to its own end.
fn stopped_as(command: &Command, fails_if_lost: bool) -> TaskState {
    match command {
        Command::Finished(event) => match event.ending {
            Ending::Success => TaskState::Success,
            Ending::Skipped => TaskState::Skipped,
            Ending::Failed | Ending::FailedForGood | Ending::Cancelled => TaskState::Failed,
            Ending::NotYet | Ending::RetryIn { .. } => {
                panic!("the simulation has neither sensors nor retry rules")
            }
        },
        Command::Lost { .. } if fails_if_lost => TaskState::Failed,
        _ => TaskState::Skipped,
    }
}

fn dispatch_of(command: &Command) -> Option<Dispatch> {
    match command {
        Command::Started(event) => Some(event.dispatch),
        Command::Finished(event) => Some(event.dispatch),
        Command::Requeued { dispatch, .. }
        | Command::Unclaimed { dispatch, .. }
        | Command::Forgotten { dispatch, .. }
        | Command::Lost { dispatch, .. }
        | Command::CancelledUnclaimed { dispatch, .. } => Some(*dispatch),
        Command::RetryDue { .. } | Command::StopRun { .. } => None,
    }
}
