//! The deployment as a [`stateright::Model`]: where it starts, what can happen next, what must hold.

use crate::{
    action::Action,
    database::{POOL, Rows},
    faults::Faults,
    rules::{Rule, Rules},
    state::*,
};
use gristmill_common::{invariant::Invariant, state::TaskState};
use stateright::Property;

/// What is deployed, what it has to do, and what may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deployment {
    /// Independent task instances of one run, which share a pool of one slot.
    pub tasks: usize,
    /// Retries of each.
    pub retries: i8,
    /// Workers that run at the start, of one slot each.
    pub workers: usize,
    /// Incarnations that may live in all: a worker that ended is followed by another as long as there is one left.
    pub incarnations: usize,
    /// Schedulers.
    pub schedulers: usize,
    /// What may go wrong.
    pub faults: Faults,
    /// The rules that are kept.
    pub rules: Rules,
}

impl Default for Deployment {
    /// One instance, two workers and one scheduler, for which nothing goes wrong.
    fn default() -> Self {
        Self {
            tasks: 1,
            retries: 0,
            workers: 2,
            incarnations: 2,
            schedulers: 1,
            faults: Faults::default(),
            rules: Rules::ALL,
        }
    }
}

impl Deployment {
    /// Whether a rule is kept.
    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        self.rules.hold(rule)
    }

    /// The only initial state: everything is up and at rest, and the run has just started.
    pub fn start(&self) -> State {
        let mut workers = [Worker::default(); WORKERS];
        let mut leases = [Lease::None; WORKERS];
        for (worker, lease) in workers.iter_mut().zip(&mut leases).take(self.workers) {
            *worker = Worker {
                life: Life::Alive,
                deadline: LEASE,
                epoch: 1,
                ..Worker::default()
            };
            *lease = Lease::Leased { current: true };
        }
        let scheduler = |i| match i < self.schedulers {
            true => Scheduler {
                epoch: 1,
                watched: PATIENCE,
                ..Scheduler::default()
            },
            false => Scheduler::default(),
        };
        State {
            db: Database {
                rows: Rows::started(self.tasks, self.retries),
                outbox: [0; TASKS],
                lost: [false; WORKERS],
                granted: [0; WORKERS],
            },
            redis: Redis {
                up: true,
                epoch: 1,
                records: [[Record::None; FENCES]; TASKS],
                leases,
                late: [false; TASKS],
            },
            broker: Broker {
                up: true,
                work: [[0; FENCES]; TASKS],
                epochs: [[0; FENCES]; TASKS],
                events: Events::default(),
            },
            workers,
            schedulers: std::array::from_fn(scheduler),
            left: self.faults,
            seen: Seen::default(),
        }
    }
}

impl stateright::Model for Deployment {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.start()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        Action::candidates(self, state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = *last;
        action.step(self, &mut next)?;
        next.forget();
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        SAFETY
            .iter()
            .map(|(invariant, holds)| Property::always(invariant.name(), *holds))
            .collect()
    }
}

type Holds = fn(&Deployment, &State) -> bool;

/// What holds in every state.
pub const SAFETY: [(Invariant, Holds); 5] = [
    (Invariant::OneLiveAttempt, one_live_attempt),
    (Invariant::OneEnding, one_ending),
    (Invariant::EndingsRight, endings_right),
    (Invariant::LimitsHold, limits_hold),
    (Invariant::NoRunLost, nothing_lost),
];

/// What every state leads to, if nothing more goes wrong and nothing that can happen again and again is put off for ever.
pub const LIVENESS: [(Invariant, Holds); 4] = [
    (Invariant::EveryRunEnds, |_, state| {
        state.db.rows.all_ended()
    }),
    (Invariant::NothingHeld, |_, state| {
        state.db.rows.all_ended() && nothing_held(state)
    }),
    (Invariant::OutboxEmpty, |_, state| {
        state.db.rows.all_ended() && state.db.outbox == [0; TASKS]
    }),
    (Invariant::QueuesEmpty, |_, state| {
        state.db.rows.all_ended()
            && state.broker.events.is_empty()
            && state.broker.work == [[0; FENCES]; TASKS]
    }),
];

fn one_live_attempt(_: &Deployment, state: &State) -> bool {
    (0..TASKS as Ti).all(|ti| live(state).filter(|dispatch| dispatch.ti == ti).count() <= 1)
}

fn one_ending(_: &Deployment, state: &State) -> bool {
    !state.seen.wrong_ending
}

fn endings_right(_: &Deployment, state: &State) -> bool {
    !state.seen.wrongly_given_up
}

/// The pool is not overfull, by the database's books and by the processes that there are; and the books agree with the rows.
fn limits_hold(_: &Deployment, state: &State) -> bool {
    let rows = &state.db.rows;
    let occupied = rows.tis.iter().filter(|row| row.occupies).count();
    let mut alive = live(state).map(|dispatch| dispatch.ti);
    let first = alive.next();
    i64::from(rows.used) <= POOL
        && rows.used as usize == occupied
        && alive.all(|ti| Some(ti) == first)
}

/// Whatever is queued is somewhere, unless it is known that it cannot be claimed any more: of an older epoch, or late.
fn nothing_lost(model: &Deployment, state: &State) -> bool {
    (0..model.tasks as Ti).all(|ti| {
        let row = &state.db.rows.tis[usize::from(ti)];
        let dispatch = state.current(ti);
        let about = |event: Event| matches!(event, Event::Started(d, _) | Event::Ended(d, ..) | Event::Bounced(d) if d == dispatch);
        row.state != TaskState::Queued
            || row.late
            || row.epoch != state.redis.epoch
            || state.db.outbox[usize::from(ti)] & (1 << dispatch.fence) != 0
            || state.broker.work[usize::from(ti)][usize::from(dispatch.fence)] > 0
            || state.record(dispatch) != Record::None
            || state.broker.events.iter().any(about)
            || state.workers.iter().any(|worker| match worker.job {
                Job::Asked { dispatch: asked, answer, acked } => {
                    asked == dispatch && !(acked && answer == Claim::Unasked && worker.life == Life::Dead)
                }
                job => job.dispatch() == Some(dispatch),
            })
    })
}

fn nothing_held(state: &State) -> bool {
    state.db.rows.used == 0 && state.workers.iter().all(|worker| worker.job == Job::Idle)
}

/// The dispatches that have processes.
fn live(state: &State) -> impl Iterator<Item = Dispatch> + '_ {
    state.workers.iter().filter_map(|worker| worker.job.live())
}

impl State {
    /// Drops what can make no difference any more, so that states that differ in nothing else are one.
    fn forget(&mut self) {
        for worker in &mut self.workers {
            if worker.life == Life::Leaving && worker.job == Job::Idle && worker.start.is_none() {
                worker.life = Life::Dead;
            }
            if worker.life == Life::Dead {
                *worker = Worker {
                    life: Life::Dead,
                    quiet: worker.quiet,
                    job: worker.job,
                    deadline: match worker.job {
                        Job::Live { .. } => worker.deadline,
                        _ => 0,
                    },
                    ..Worker::default()
                };
            }
        }
        for ti in 0..TASKS {
            let row = self.db.rows.tis[ti];
            for fence in 1..FENCES {
                let dispatch = Dispatch {
                    ti: ti as Ti,
                    fence: fence as u8,
                };
                let about = |event: Event| matches!(event, Event::Started(d, _) | Event::Ended(d, ..) | Event::Bounced(d) if d == dispatch);
                let over = fence < usize::from(row.fence) || !row.state.is_dispatched();
                let gone = self.broker.work[ti][fence] == 0
                    && self.db.outbox[ti] & (1 << fence) == 0
                    && self
                        .workers
                        .iter()
                        .all(|worker| worker.job.dispatch() != Some(dispatch));
                if over && gone {
                    self.redis.records[ti][fence] = Record::None;
                    self.broker.epochs[ti][fence] = 0;
                    if !self.broker.events.iter().any(about) {
                        for worker in &mut self.workers {
                            worker.taken[ti] &= !(1 << fence);
                        }
                    }
                }
            }
        }
    }
}
