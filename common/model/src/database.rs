//! The rows of task instances, decided by the engine that schedulers run.
//!
//! A transaction of the model is one of `gristmill_common::engine`: rows are made from the model's few bits, the real
//! commands are applied to a real working set, and what changed is read back. The answers are remembered, since the same
//! few come up millions of times.

use crate::state::{Dispatch, Incarnation, Outcome, TASKS, Ti};
use chrono::{DateTime, Duration, Utc};
use gristmill_common::{
    engine::{self, Command, Plan, WorkingSet, dispatch_limits, settle},
    ids::{Dispatch as Id, Fence, RunPk, TiPk, VersionPk},
    limit::{LimitKey, LimitRow},
    message::{Ending, Finished, Started},
    row::{RunRow, RunType, TiRow},
    spec::DagSpec,
    state::{RunState, TaskState},
    transition::DispatchTerms,
};
use serde_json::json;
use std::{cell::RefCell, collections::HashMap, sync::Arc};
use uuid::Uuid;

/// What the pool has room for.
pub const POOL: i64 = 1;

const RUN: RunPk = RunPk(1);

/// What matters of a task instance's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    /// Its state.
    pub state: TaskState,
    /// Of its last dispatch.
    pub fence: u8,
    /// Tries that it has left, the one that is out included.
    pub tries_left: i8,
    /// Losses in a row.
    pub losses: u8,
    /// Of its last dispatch.
    pub epoch: u8,
    /// The incarnation that reported its start.
    pub worker: Option<Incarnation>,
    /// It holds its slots.
    pub occupies: bool,
    /// `claim_by` has passed by the database's clock.
    pub late: bool,
    /// The current attempt has its ending.
    pub ended: bool,
    /// It was cleared while it was out: it runs anew once it is proven dead.
    pub clear: bool,
}

/// The rows of one run, and the pool that they share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rows {
    /// Task instances; those beyond the setup's number stand as ended.
    pub tis: [Row; TASKS],
    /// The run is being stopped.
    pub stopped: bool,
    /// Used of the pool.
    pub used: i8,
}

/// One transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transaction {
    /// An event.
    Started(Dispatch, Incarnation),
    /// An event.
    Ended(Dispatch, Incarnation, Outcome),
    /// A finding of `reconcile/unclaimed.rs`.
    Unclaimed(Dispatch),
    /// A finding of `reconcile/unclaimed.rs`.
    Forgotten(Dispatch),
    /// A finding of `reconcile/lost.rs`.
    Lost(Dispatch),
    /// A finding of `cancel.rs`.
    CancelledUnclaimed(Dispatch),
    /// A retry is due.
    RetryDue(Ti),
    /// A user's cancel.
    Stop,
    /// `dispatch_ready` under this epoch.
    Dispatch(u8),
}

/// What a transaction did beside its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// Task instances whose attempt got its ending, as bits.
    pub ended: u8,
    /// Task instances that were dispatched, as bits.
    pub dispatched: u8,
    /// It changed nothing: what caused it is over.
    pub stale: bool,
}

impl Rows {
    /// A run of so many independent instances that has just started, with `retries` each.
    pub fn started(tasks: usize, retries: i8) -> Self {
        let row = |i| Row {
            state: if i < tasks {
                TaskState::Scheduled
            } else {
                TaskState::Removed
            },
            fence: 0,
            tries_left: retries + 1,
            losses: 0,
            epoch: 0,
            worker: None,
            occupies: false,
            late: false,
            ended: false,
            clear: false,
        };
        Self {
            tis: std::array::from_fn(row),
            stopped: false,
            used: 0,
        }
    }

    /// Whether every instance has ended.
    pub fn all_ended(&self) -> bool {
        self.tis.iter().all(|row| row.state.is_finished())
    }

    /// Runs one transaction.
    pub fn apply(&mut self, transaction: Transaction) -> Done {
        thread_local! {
            static KNOWN: RefCell<HashMap<(Rows, Transaction), (Rows, Done)>> = RefCell::default();
            static WORLD: World = World::new();
        }
        let key = (*self, transaction);
        let known = KNOWN.with(|known| known.borrow().get(&key).copied());
        let (rows, done) = known.unwrap_or_else(|| {
            let answer = WORLD.with(|world| world.run(*self, transaction));
            KNOWN.with(|known| known.borrow_mut().insert(key, answer));
            answer
        });
        *self = rows;
        done
    }

    /// What clearing an ended instance does: ready again; its next dispatch takes the next fence.
    pub fn clear(&mut self, ti: Ti) {
        let row = &mut self.tis[usize::from(ti)];
        row.state = TaskState::Scheduled;
        row.tries_left = row.tries_left.max(1);
        row.clear = false;
        row.worker = None;
    }
}

/// The rows that a transaction of the engine works on.
struct World {
    plan: Arc<Plan>,
    run: RunRow,
    tis: Vec<TiRow>,
    now: DateTime<Utc>,
}

impl World {
    fn new() -> Self {
        let tasks: Vec<_> = (0..TASKS)
            .map(|i| json!({"task_id": format!("t{i}"), "noop": {}, "retries": 1, "pool": "p"}))
            .collect();
        let spec: DagSpec = serde_json::from_value(json!({"dag_id": "d", "tasks": tasks}))
            .expect("a DAG of noop tasks is right");
        let now = DateTime::UNIX_EPOCH;
        let plan = Arc::new(Plan::new(VersionPk(1), spec, None));
        let run = RunRow {
            pk: RUN,
            dag_id: "d".to_owned(),
            run_id: "r".to_owned(),
            version: VersionPk(1),
            state: RunState::Queued,
            run_type: RunType::Manual,
            triggered_by: String::new(),
            backfill: None,
            logical_date: None,
            data_interval_start: None,
            data_interval_end: None,
            run_after: now,
            queued_at: now,
            started_at: None,
            ended_at: None,
            conf: serde_json::Map::new(),
            params: serde_json::Map::new(),
            note: None,
            cancelled: false,
            stop_reason: None,
            clean_up: None,
            max_active_tasks: 16,
            active_tasks: 0,
            ready_tasks: 0,
            unfinished_tasks: 0,
            failed_leaves: 0,
            concurrency_key: None,
        };
        let mut ws = WorkingSet::new(now);
        ws.add_run(run.clone(), plan.clone());
        let tis = engine::start_run(&mut ws, RUN)
            .expect("the run is queued")
            .into_iter()
            .enumerate()
            .map(|(i, row)| TiRow {
                pk: pk(i as Ti),
                ..row
            })
            .collect();
        Self {
            plan,
            run,
            tis,
            now,
        }
    }

    fn run(&self, before: Rows, transaction: Transaction) -> (Rows, Done) {
        let mut ws = self.load(&before);
        if let Some(command) = self.command(transaction) {
            ws.apply(&command);
        }
        settle(&mut ws);
        let mut done = Done {
            stale: ws.stale > 0,
            ..Done::default()
        };
        let mut after = before;
        let mut epoch = None;
        if let Transaction::Dispatch(now) = transaction {
            epoch = Some(now);
            let ready = ws.ready();
            let limits = self.limits(&before, &ws, &ready);
            let out = engine::dispatch(&mut ws, &ready, &limits, || DispatchTerms {
                now: self.now,
                claim_by: self.now + Duration::minutes(5),
                epoch: i64::from(now),
                attempt: Uuid::nil(),
            });
            for ti in out {
                done.dispatched |= 1 << (ti.0 - 1);
            }
        }
        for attempt in &ws.attempts {
            done.ended |= 1 << (attempt.ti.0 - 1);
        }
        for change in ws.changes() {
            let i = (change.row.pk.0 - 1) as usize;
            after.tis[i] = self.read(&before.tis[i], &change.row, epoch);
        }
        for run in ws.changed_runs() {
            after.stopped = run.stop_reason.is_some();
        }
        after.used += ws.spent.get(&LimitKey::pool("p")).copied().unwrap_or(0) as i8;
        for (i, row) in after.tis.iter_mut().enumerate() {
            row.ended |= done.ended & (1 << i) != 0;
        }
        (after, done)
    }

    fn load(&self, rows: &Rows) -> WorkingSet {
        let mut ws = WorkingSet::new(self.now);
        let count = |of: fn(&Row) -> bool| rows.tis.iter().filter(|row| of(row)).count() as i32;
        let mut run = self.run.clone();
        run.state = RunState::Running;
        run.stop_reason = rows.stopped.then(|| "cancelled".to_owned());
        run.cancelled = rows.stopped;
        run.active_tasks = count(|row| row.occupies);
        run.ready_tasks = count(|row| row.state == TaskState::Scheduled);
        run.unfinished_tasks = count(|row| !row.state.is_finished());
        ws.add_run(run, self.plan.clone());
        for (row, base) in rows.tis.iter().zip(&self.tis) {
            if row.state != TaskState::Removed {
                ws.add_ti(self.row(row, base));
            }
        }
        ws
    }

    fn row(&self, row: &Row, base: &TiRow) -> TiRow {
        let fence = i32::from(row.fence);
        TiRow {
            state: row.state,
            fence: Fence(fence.into()),
            // Only how far they are apart matters. A try that is out counts as made.
            try_number: fence,
            max_tries: fence + i32::from(row.tries_left) - 1,
            infra_losses: row.losses.into(),
            epoch: row.epoch.into(),
            worker: row.worker.map(|worker| worker.to_string()),
            occupies: row.occupies,
            attempt: (row.fence > 0).then(Uuid::nil),
            next_at: (row.state == TaskState::UpForRetry).then_some(self.now),
            ..base.clone()
        }
    }

    fn read(&self, before: &Row, row: &TiRow, epoch: Option<u8>) -> Row {
        let mut after = Row {
            state: row.state,
            fence: row.fence.0 as u8,
            tries_left: (row.max_tries - row.try_number + 1) as i8,
            losses: row.infra_losses as u8,
            worker: row.worker.as_ref().and_then(|worker| worker.parse().ok()),
            occupies: row.occupies,
            ..*before
        };
        if after.fence != before.fence {
            after.epoch = epoch.unwrap_or(before.epoch);
            after.ended = false;
        }
        if !after.state.is_dispatched() {
            after.late = false;
            after.worker = None;
        }
        after
    }

    fn limits(&self, rows: &Rows, ws: &WorkingSet, ready: &[TiPk]) -> Vec<LimitRow> {
        dispatch_limits(ws, ready)
            .into_iter()
            .filter(|key| *key != LimitKey::Parallelism)
            .map(|key| {
                let (cap, used) = match &key {
                    LimitKey::Pool { .. } => (POOL, i64::from(rows.used)),
                    _ => (1000, 0),
                };
                LimitRow {
                    key,
                    cap,
                    used,
                    paused: false,
                    rate: None,
                    include_deferred: false,
                }
            })
            .collect()
    }

    fn command(&self, transaction: Transaction) -> Option<Command> {
        let reason = String::new;
        Some(match transaction {
            Transaction::Started(dispatch, worker) => Command::Started(Started {
                run: RUN,
                dispatch: id(dispatch),
                worker: worker.to_string(),
                hostname: String::new(),
                pid: None,
                at: self.now,
            }),
            Transaction::Ended(dispatch, worker, outcome) => {
                let ending = match outcome {
                    Outcome::Success => Ending::Success,
                    Outcome::Failed => Ending::Failed,
                    Outcome::Cancelled => Ending::Cancelled,
                    Outcome::Requeued => {
                        return Some(Command::Requeued {
                            run: RUN,
                            dispatch: id(dispatch),
                            reason: reason(),
                        });
                    }
                };
                Command::Finished(Box::new(Finished {
                    run: RUN,
                    dispatch: id(dispatch),
                    worker: worker.to_string(),
                    hostname: String::new(),
                    started_at: self.now,
                    ended_at: self.now,
                    ending,
                    exit_code: None,
                    pid: None,
                    reason: None,
                    xcoms: Vec::new(),
                }))
            }
            Transaction::Unclaimed(dispatch) => Command::Unclaimed {
                run: RUN,
                dispatch: id(dispatch),
                reason: reason(),
            },
            Transaction::Forgotten(dispatch) => Command::Forgotten {
                run: RUN,
                dispatch: id(dispatch),
                reason: reason(),
            },
            Transaction::Lost(dispatch) => Command::Lost {
                run: RUN,
                dispatch: id(dispatch),
                reason: reason(),
            },
            Transaction::CancelledUnclaimed(dispatch) => Command::CancelledUnclaimed {
                run: RUN,
                dispatch: id(dispatch),
            },
            Transaction::RetryDue(ti) => Command::RetryDue {
                run: RUN,
                ti: pk(ti),
            },
            Transaction::Stop => Command::StopRun {
                run: RUN,
                cancelled: true,
                reason: "cancelled".to_owned(),
            },
            Transaction::Dispatch(_) => return None,
        })
    }
}

fn pk(ti: Ti) -> TiPk {
    TiPk(i64::from(ti) + 1)
}

fn id(dispatch: Dispatch) -> Id {
    Id {
        ti: pk(dispatch.ti),
        fence: Fence(dispatch.fence.into()),
    }
}
