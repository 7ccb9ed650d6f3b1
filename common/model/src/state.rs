//! What the model knows of a deployment at one instant: small, `Copy`, and free of absolute time.
//!
//! Every clock is a counter of ticks that stops at its bound, so that the number of states is finite however long a
//! deployment runs.

use crate::{database::Rows, faults::Faults};

/// Task instances at most.
pub const TASKS: usize = 2;
/// Worker incarnations at most, over the whole life of the model.
pub const WORKERS: usize = 3;
/// Schedulers at most.
pub const SCHEDULERS: usize = 2;
/// Fences 1..=7; 0 means never dispatched.
pub const FENCES: usize = 8;
/// Events that wait at the broker at most; publishers wait for room.
pub const EVENTS: usize = 6;

/// A worker's lease, in ticks.
pub const LEASE: u8 = 2;
/// How long the judge waits: the lease and its margin.
pub const PATIENCE: u8 = LEASE + 1;

/// A task instance's index.
pub type Ti = u8;
/// A worker incarnation's index.
pub type Incarnation = u8;

/// (task instance, fence).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dispatch {
    /// The task instance.
    pub ti: Ti,
    /// Its fence.
    pub fence: u8,
}

/// The whole deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    /// PostgreSQL.
    pub db: Database,
    /// Redis.
    pub redis: Redis,
    /// RabbitMQ.
    pub broker: Broker,
    /// Every incarnation that there was, is or will be.
    pub workers: [Worker; WORKERS],
    /// The schedulers' own memory.
    pub schedulers: [Scheduler; SCHEDULERS],
    /// What may still go wrong.
    pub left: Faults,
    /// What nobody can see, kept to judge by.
    pub seen: Seen,
}

/// Facts about the past that the properties need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seen {
    /// An attempt got a second ending, or one while its process lived.
    pub wrong_ending: bool,
    /// Task instances whose current dispatch had a process.
    pub ran: u8,
    /// By scheduler and by who waits there: task instances that the queue had an ending of when it set out to give them up.
    pub reported: [[u8; 3]; SCHEDULERS],
    /// A dispatch was given up although it had been reported on, or had run and was taken for never claimed.
    pub wrongly_given_up: bool,
}

/// PostgreSQL: never loses what was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Database {
    /// Task instances, their run and their limit.
    pub rows: Rows,
    /// By task instance: bits of fences whose message waits in the outbox.
    pub outbox: [u8; TASKS],
    /// Incarnations that were judged lost.
    pub lost: [bool; WORKERS],
    /// Leases over the broker: above [`PATIENCE`] while `held_until` has not passed, then counting down for
    /// `leased_over_broker`, which looks back.
    pub granted: [u8; WORKERS],
}

/// What Redis has on record of a dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Record {
    /// Nothing.
    #[default]
    None,
    /// `x`: nobody may claim it any more.
    Sealed,
    /// `h`, or `c` once cancelled.
    Held {
        /// By whom.
        by: Incarnation,
        /// Its holder is to end it.
        cancelled: bool,
    },
    /// `r`: its ending is confirmed.
    Released {
        /// By whom.
        by: Incarnation,
    },
}

/// A worker's key in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Lease {
    /// Not there.
    #[default]
    None,
    /// There, of this epoch or an older one.
    Leased {
        /// Of this epoch.
        current: bool,
    },
    /// Judged lost: refuses every renewal.
    Revoked,
}

/// Redis: may be away, and may forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Redis {
    /// Reachable.
    pub up: bool,
    /// 1, 2, …
    pub epoch: u8,
    /// By task instance and fence.
    pub records: [[Record; FENCES]; TASKS],
    /// By incarnation.
    pub leases: [Lease; WORKERS],
    /// By task instance: whether `claim_by` of its current dispatch has passed by Redis's clock.
    pub late: [bool; TASKS],
}

/// RabbitMQ: durable, at least once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Broker {
    /// Reachable.
    pub up: bool,
    /// Copies of each dispatch's message in the work queue, which keeps no order.
    pub work: [[u8; FENCES]; TASKS],
    /// By task instance and fence: the epoch in the message's header.
    pub epochs: [[u8; FENCES]; TASKS],
    /// The run's events queue, in order.
    pub events: Events,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It succeeded.
    Success,
    /// It failed of its own.
    Failed,
    /// It was killed on the user's wish.
    Cancelled,
    /// Its worker ended it before its time: it runs anew at no cost.
    Requeued,
}

/// A message of the events queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// `started`
    Started(Dispatch, Incarnation),
    /// `finished`, or `requeued`
    Ended(Dispatch, Incarnation, Outcome),
    /// `bounced`
    Bounced(Dispatch),
    /// `barrier`
    Barrier {
        /// Whose.
        scheduler: u8,
        /// Who waits for it there.
        of: Waits,
        /// Tells it from one that the scheduler sent before it crashed.
        life: bool,
    },
}

/// A loop of a scheduler that waits for barriers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Waits {
    /// `reconcile/lost.rs`
    Judge,
    /// `reconcile/unclaimed.rs`
    Resend,
    /// `cancel.rs`
    Cancel,
}

/// A bounded queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Events([Option<Event>; EVENTS]);

impl Events {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.0.iter().flatten().count()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.0[0].is_none()
    }

    /// Whether one more fits.
    pub fn has_room(&self) -> bool {
        self.len() < EVENTS
    }

    /// Appends. There is room.
    pub fn push(&mut self, event: Event) {
        let end = self.len();
        self.0[end] = Some(event);
    }

    /// The oldest.
    pub fn head(&self) -> Option<Event> {
        self.0[0]
    }

    /// Drops the oldest.
    pub fn pop(&mut self) {
        self.0.rotate_left(1);
        self.0[EVENTS - 1] = None;
    }

    /// Those that wait.
    pub fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.0.iter().flatten().copied()
    }
}

/// The life of an incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Life {
    /// Still to come.
    #[default]
    Unborn,
    /// Runs. That it may be paused at any time needs no state: nothing then happens to it.
    Alive,
    /// Its lease was over: it reports what it held, and ends.
    Leaving,
    /// Ended. Its processes may live until its guardian has killed them.
    Dead,
}

/// What has been asked of a dispatch that a worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wish {
    /// Nothing.
    GoOn,
    /// Its run is stopped, or it is cleared.
    Cancel,
    /// Its worker has to end it.
    Interrupt,
}

/// Redis's answer to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Claim {
    /// Not asked yet (only where the message was acknowledged before it was claimed).
    Unasked,
    /// Granted, or found to be its own.
    Ours,
    /// Somebody else's, or cancelled, or sealed: the message is of no use.
    NotOurs,
    /// Of another epoch, or late: to be told to the schedulers.
    Bounce,
    /// The worker has no lease: the message goes back.
    NoLease,
}

/// A worker's one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Job {
    /// Free.
    #[default]
    Idle,
    /// A message was delivered and claimed; the answer is on its way.
    Asked {
        /// Of the message.
        dispatch: Dispatch,
        /// On its way.
        answer: Claim,
        /// The delivery is void, or was acknowledged: the message is not in this worker's hands any more.
        acked: bool,
    },
    /// Claimed and acknowledged; being prepared.
    Held {
        /// What is held.
        dispatch: Dispatch,
        /// What is asked of it.
        wish: Wish,
    },
    /// It has live processes.
    Live {
        /// What runs.
        dispatch: Dispatch,
        /// What is asked of it.
        wish: Wish,
    },
    /// Its tree is empty; its ending waits to be confirmed.
    Done {
        /// What ended.
        dispatch: Dispatch,
        /// How.
        outcome: Outcome,
    },
}

impl Job {
    /// The dispatch that the slot is taken by.
    pub fn dispatch(&self) -> Option<Dispatch> {
        match *self {
            Self::Idle => None,
            Self::Asked { dispatch, .. }
            | Self::Held { dispatch, .. }
            | Self::Live { dispatch, .. }
            | Self::Done { dispatch, .. } => Some(dispatch),
        }
    }

    /// The dispatch that is in the worker's record of what it holds.
    pub fn held(&self) -> Option<Dispatch> {
        match *self {
            Self::Asked { .. } => None,
            _ => self.dispatch(),
        }
    }

    /// The dispatch that has processes.
    pub fn live(&self) -> Option<Dispatch> {
        match *self {
            Self::Live { dispatch, .. } => Some(dispatch),
            _ => None,
        }
    }
}

/// A lease asked for over the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Asking {
    /// Not asked for.
    #[default]
    No,
    /// Sent so many ticks ago.
    Sent(u8),
}

/// One incarnation of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Worker {
    /// Unborn, alive, leaving, dead.
    pub life: Life,
    /// Ticks until everything that it started must be dead; 0: the lease is over.
    pub deadline: u8,
    /// Ticks since its counter in Redis moved last, up to [`PATIENCE`].
    pub quiet: u8,
    /// The epoch that it has restored its claims in; 0: it has to.
    pub epoch: u8,
    /// Its slot.
    pub job: Job,
    /// By task instance: bits of fences that it took, each of which it runs once.
    pub taken: [u8; TASKS],
    /// A start that is not published yet.
    pub start: Option<Dispatch>,
    /// It cannot reach Redis.
    pub cut: bool,
    /// A renewal reached Redis so many ticks ago, and its answer is on its way.
    pub answer: Option<u8>,
    /// A renewal over the broker.
    pub asking: Asking,
}

/// What a scheduler's judge is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Judge {
    /// Watches.
    #[default]
    Watching,
    /// Has written the judgement down, and is about to revoke.
    Judged {
        /// Whom.
        worker: Incarnation,
        /// The epoch that was watched.
        epoch: u8,
        /// Its counter has moved since it was looked at.
        moved: bool,
    },
    /// Waits for another lease, since the counter had moved.
    Waiting {
        /// Whom.
        worker: Incarnation,
        /// The epoch that was watched.
        epoch: u8,
        /// Ticks left.
        left: u8,
    },
    /// Its barrier is on its way.
    Barrier {
        /// Whom.
        worker: Incarnation,
        /// The epoch that was watched.
        epoch: u8,
    },
    /// Everything that was reported before is applied.
    Passed {
        /// Whom.
        worker: Incarnation,
        /// The epoch that was watched.
        epoch: u8,
    },
}

/// What a scheduler is at with a dispatch that nobody claimed, and that it has sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Unclaimed {
    /// Nothing.
    #[default]
    None,
    /// The barrier is on its way.
    Sealed {
        /// What.
        dispatch: Dispatch,
        /// It went out under an older epoch.
        forgotten: bool,
    },
    /// The barrier is through, or none is needed.
    Proven {
        /// What.
        dispatch: Dispatch,
        /// It went out under an older epoch.
        forgotten: bool,
    },
}

impl Unclaimed {
    fn proven(self) -> Self {
        match self {
            Self::Sealed {
                dispatch,
                forgotten,
            } => Self::Proven {
                dispatch,
                forgotten,
            },
            other => other,
        }
    }
}

/// What one scheduler remembers. Losing it costs time only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Scheduler {
    /// The epoch that it saw last.
    pub epoch: u8,
    /// For how many ticks, up to [`PATIENCE`].
    pub watched: u8,
    /// Changes with a crash.
    pub life: bool,
    /// `reconcile/lost.rs`
    pub judge: Judge,
    /// `reconcile/unclaimed.rs`
    pub resend: Unclaimed,
    /// `cancel.rs`
    pub cancel: Unclaimed,
}

impl Scheduler {
    /// A barrier that it sent in this life is applied.
    pub fn barrier_applied(&mut self, of: Waits) {
        match of {
            Waits::Judge => {
                if let Judge::Barrier { worker, epoch } = self.judge {
                    self.judge = Judge::Passed { worker, epoch };
                }
            }
            Waits::Resend => self.resend = self.resend.proven(),
            Waits::Cancel => self.cancel = self.cancel.proven(),
        }
    }
}

impl State {
    /// Whether a worker reaches Redis.
    pub fn reaches_redis(&self, worker: Incarnation) -> bool {
        self.redis.up && !self.workers[usize::from(worker)].cut
    }

    /// What Redis has on record.
    pub fn record(&self, dispatch: Dispatch) -> Record {
        self.redis.records[usize::from(dispatch.ti)][usize::from(dispatch.fence)]
    }

    /// Writes a record.
    pub fn set_record(&mut self, dispatch: Dispatch, record: Record) {
        self.redis.records[usize::from(dispatch.ti)][usize::from(dispatch.fence)] = record;
    }

    /// Copies of its message in the work queue.
    pub fn copies(&mut self, dispatch: Dispatch) -> &mut u8 {
        &mut self.broker.work[usize::from(dispatch.ti)][usize::from(dispatch.fence)]
    }

    /// The epoch in its message's header.
    pub fn epoch_of(&self, dispatch: Dispatch) -> u8 {
        self.broker.epochs[usize::from(dispatch.ti)][usize::from(dispatch.fence)]
    }

    /// A scheduler sets out to give up dispatches: what is reported by now has to come first.
    pub fn note_reports(&mut self, scheduler: u8, of: Waits) {
        let mut reported = 0;
        for event in self.broker.events.iter() {
            if let Event::Ended(dispatch, ..) = event
                && dispatch == self.current(dispatch.ti)
            {
                reported |= 1 << dispatch.ti;
            }
        }
        self.seen.reported[usize::from(scheduler)][of as usize] = reported;
    }

    /// The current dispatch of an instance.
    pub fn current(&self, ti: Ti) -> Dispatch {
        Dispatch {
            ti,
            fence: self.db.rows.tis[usize::from(ti)].fence,
        }
    }

    /// Whether the broker takes an event now.
    pub fn can_publish(&self) -> bool {
        self.broker.up && self.broker.events.has_room()
    }
}
