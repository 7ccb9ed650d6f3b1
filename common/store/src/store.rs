//! [`Store`]: the transactions that the scheduler and the API are made of.

use crate::{
    Backend, Reads, StoreResult,
    plans::PlanCache,
    records::{
        Answer, AuditRow, BackfillPlan, DeletedRun, Judgement, NewAssetEvent, NewBackfill,
        NewDagVersion, OutDispatch, Trigger, VersionRow,
    },
    transactions,
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gristmill_common::{
    engine::{Command, Selection},
    ids::{BackfillPk, Dispatch, RunPk},
    message::RenewRequest,
    row::{OutboxRow, TiRow},
    state::{RunState, TaskState},
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use uuid::Uuid;

/// Runs a transaction anew when it met another one.
macro_rules! retrying {
    ($transaction:expr) => {{
        let mut tries = 0;
        loop {
            match $transaction.await {
                Err($crate::StoreError::Conflict(why)) if tries < 5 => {
                    tries += 1;
                    tracing::debug!(%why, tries, "transaction met another one, trying again");
                    tokio::task::yield_now().await;
                }
                other => break other,
            }
        }
    }};
}

/// What a transaction needs from outside the database to dispatch.
#[derive(Clone)]
pub struct DispatchContext {
    /// The epoch of presence; without one nothing can be claimed, hence nothing is dispatched.
    pub epoch: Option<i64>,
    /// How long a dispatch may be claimed.
    pub claim_window: Duration,
    /// Dispatches of one transaction at most.
    pub batch: i64,
    pub plans: Arc<PlanCache>,
    /// Deleted from the outbox by the next transaction that applies or dispatches.
    pub published: Arc<Published>,
    /// Makes the token with which a run's tasks read its XComs.
    pub token: Arc<dyn Fn(RunPk) -> String + Send + Sync>,
}

/// Dispatches whose messages the broker has confirmed, on their way out of the outbox. They go with a transaction that
/// commits anyway, so that a message costs no commit of its own. Losing them costs nothing but a second copy of each
/// message, which its fence refuses.
#[derive(Debug, Default)]
pub struct Published(Mutex<Vec<Dispatch>>);

impl Published {
    /// Adds some, and answers how many wait.
    pub fn add(&self, confirmed: Vec<Dispatch>) -> usize {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extend(confirmed);
        waiting.len()
    }

    /// Takes all that wait. Who cannot delete them adds them again.
    pub fn take(&self) -> Vec<Dispatch> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for DispatchContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DispatchContext")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// What a committed transaction asks to be done outside the database. All of it is repeated by reconcilers if it is not.
#[derive(Debug, Default)]
pub struct Applied {
    /// To publish, and then to delete from the outbox.
    pub outbox: Vec<OutboxRow>,
    /// Ready instances are left that this transaction did not dispatch: run [`Store::dispatch_ready`].
    pub more_ready: bool,
    /// Dispatches of stopped runs: cancel them in presence, and tell their workers.
    pub to_cancel: Vec<OutDispatch>,
    pub ended_runs: Vec<EndedRun>,
    /// Instances wait to be looked at, or for a run that has ended: run [`Store::look_at_waits`].
    pub waits: bool,
    /// Runs in which something ended that the runs after them may wait for (`depends_on_past`), and whether their DAG
    /// catches up. Looked after within the store.
    pub followed: Vec<(RunPk, bool)>,
    /// Callbacks were called: [`CallReads::claim_calls`](crate::CallReads::claim_calls) has them.
    pub calls: bool,
    /// Assets were updated: run [`Store::create_asset_runs`].
    pub updated_assets: bool,
    /// Commands that came too late and changed nothing.
    pub stale: usize,
    /// Commands, runs or instances that it worked on.
    pub touched: usize,
}

impl Applied {
    /// Adds what another transaction asks for.
    pub fn extend(&mut self, other: Self) {
        self.outbox.extend(other.outbox);
        self.more_ready |= other.more_ready;
        self.to_cancel.extend(other.to_cancel);
        self.ended_runs.extend(other.ended_runs);
        self.waits |= other.waits;
        self.followed.extend(other.followed);
        self.updated_assets |= other.updated_assets;
        self.calls |= other.calls;
        self.stale += other.stale;
    }
}

/// A run that a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedRun {
    pub run: RunPk,
    /// It has data tasks: their partitions' outputs in the object store are of no use any more.
    pub has_data: bool,
}

/// A clear or a mark.
#[derive(Debug, Clone)]
pub struct Amend {
    pub run: RunPk,
    pub change: Change,
    /// Who asks: stands in the reasons of what it changes.
    pub by: String,
    /// Only answer what would be changed.
    pub dry_run: bool,
    /// Refuse it if any of the instances has a dispatch that is out.
    pub refuse_running: bool,
    /// The run's new note.
    pub note: Option<String>,
    /// Instances answered at most.
    pub list: usize,
    /// Written if anything was done.
    pub audit: Option<AuditRow>,
}

/// What a user changes of a run.
#[derive(Debug, Clone)]
pub enum Change {
    /// These instances run anew.
    Clear(Selection),
    /// They have ended so; what is below them and failed is decided anew.
    Mark(Selection, TaskState),
    /// `queued`: an ended run waits for its start again, its instances as they are. `success`: all its instances are marked
    /// so. `failed`: an ended run has failed (one that is under way is stopped instead: [`Command::StopRun`]).
    MarkRun(RunState),
    /// Nothing but its note.
    Note,
}

/// What a clear or a mark changed, or would change.
#[derive(Debug, Clone, Default)]
pub struct Amended {
    /// The instances as they are now (of a dry run: as they are before), as many as were asked for.
    pub rows: Vec<TiRow>,
    /// How many there are in all.
    pub total: usize,
}

/// A run that a trigger made, or found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Triggered {
    /// It is new, and queued since then.
    Accepted { run: RunPk, at: DateTime<Utc> },
    /// An earlier request with the same idempotency key had made it.
    Repeated { run: RunPk },
}

impl Triggered {
    pub fn run(self) -> RunPk {
        match self {
            Self::Accepted { run, .. } | Self::Repeated { run } => run,
        }
    }
}

/// The metadata store. Every method is one transaction; a `Conflict` has been tried again a few times before it is
/// returned.
#[async_trait]
pub trait Store: Reads {
    /// Deploys a version (unless it is the newest already) and works its DAG's next run time out anew. Answers whether the
    /// version is new.
    async fn deploy(&self, new: &NewDagVersion) -> StoreResult<(VersionRow, bool)>;

    /// Accepts runs, all in one transaction, and answers for each: `Exists` for a run id that is taken; `Refused` for an
    /// idempotency key used with another request.
    async fn trigger(&self, triggers: &[Trigger]) -> StoreResult<Vec<StoreResult<Triggered>>>;

    /// Applies commands (and barriers that came with them) in order, and dispatches what they made ready.
    async fn apply(
        &self,
        commands: &[Command],
        barriers: &[(Uuid, u16)],
        context: &DispatchContext,
    ) -> StoreResult<Applied>;

    /// Clears or marks instances of a run, or changes its state, in one transaction. `Refused` while the run is being
    /// stopped.
    async fn amend(&self, request: &Amend, context: &DispatchContext) -> StoreResult<Amended>;

    /// Dispatches ready instances of all runs, best first, as far as limits have room.
    async fn dispatch_ready(&self, context: &DispatchContext) -> StoreResult<Applied>;

    /// Starts queued runs as far as `max_active_runs` has room.
    async fn start_runs(&self, context: &DispatchContext) -> StoreResult<Applied>;

    /// Makes the scheduled runs that are due. Answers how many.
    async fn create_due_runs(&self) -> StoreResult<usize>;

    /// Cancels the oldest active runs of DAGs whose `overlap` is `cancel`, as far as due runs wait for their room.
    async fn stop_overlapped_runs(&self, context: &DispatchContext) -> StoreResult<Applied>;

    /// Makes runs of DAGs whose schedules' assets were updated. Answers how many DAGs it looked at.
    async fn create_asset_runs(&self) -> StoreResult<usize>;

    /// Records an update of an asset that a user tells of. Answers its id; `NotFound` if nobody ever named the asset.
    async fn create_asset_event(&self, event: &NewAssetEvent) -> StoreResult<i64>;

    /// Makes a backfill with all its runs, or with `dry_run` only says what it would come to. `Refused` for a DAG without a
    /// schedule of dates, and for a range without a run that is over; `Exists` while another backfill of the DAG is active.
    async fn create_backfill(&self, new: &NewBackfill, dry_run: bool) -> StoreResult<BackfillPlan>;

    /// `NotFound` for a backfill that is not there.
    async fn pause_backfill(&self, id: BackfillPk, paused: bool) -> StoreResult<()>;

    /// Cancels the runs of a backfill that have not started. Answers how many.
    async fn cancel_backfill(&self, id: BackfillPk) -> StoreResult<i64>;

    /// Makes instances ready whose retry is due.
    async fn retry_due(&self, context: &DispatchContext) -> StoreResult<Applied>;

    /// Looks at what waits without a worker: makes sensors ready whose next poke is due, and begins, goes on with or ends
    /// the waits that need no worker at all.
    async fn look_at_waits(&self, context: &DispatchContext) -> StoreResult<Applied>;

    /// Makes way for ready instances whose shared limit is full and that do not just wait for it: skips them, or stops who holds
    /// the limit, as their `concurrency.strategy` says.
    async fn push(&self, context: &DispatchContext) -> StoreResult<Applied>;

    /// Answers what is asked by an instance that awaits input. `Refused` if it does not (any more), or was answered.
    async fn answer(&self, answer: &Answer) -> StoreResult<()>;

    /// Looks at deadlines that have come: notes what was missed, and calls.
    async fn look_at_deadlines(&self, context: &DispatchContext) -> StoreResult<Applied>;

    /// Goes on ending runs that were stopped, and stops those whose time is over.
    async fn stop_due_runs(&self, context: &DispatchContext) -> StoreResult<Applied>;

    /// Grants a lease that was asked for over the broker; `false` for a worker that was judged lost.
    async fn grant_lease(&self, request: &RenewRequest) -> StoreResult<bool>;

    /// Judges a worker lost, for good, unless a lease granted over the broker still holds. From then on no lease is granted
    /// to it.
    async fn judge_lost(&self, incarnation: &str) -> StoreResult<Judgement>;

    /// Deletes runs that ended before, and other records whose time is over. Answers the runs: their logs and
    /// other objects are to be deleted too.
    async fn delete_old(
        &self,
        ended_before: DateTime<Utc>,
        max: i64,
    ) -> StoreResult<Vec<DeletedRun>>;

    async fn put_dead_letter(&self, source: &str, reason: &str, body: &[u8]) -> StoreResult<()>;
}

#[async_trait]
impl<B: Backend> Store for B {
    async fn deploy(&self, new: &NewDagVersion) -> StoreResult<(VersionRow, bool)> {
        retrying!(transactions::deploy(self, new))
    }

    async fn trigger(&self, triggers: &[Trigger]) -> StoreResult<Vec<StoreResult<Triggered>>> {
        retrying!(transactions::trigger(self, triggers))
    }

    async fn apply(
        &self,
        commands: &[Command],
        barriers: &[(Uuid, u16)],
        context: &DispatchContext,
    ) -> StoreResult<Applied> {
        let mut applied = retrying!(transactions::apply(self, commands, barriers, context))?;
        transactions::wake_runs_after(self, &mut applied, context).await;
        Ok(applied)
    }

    async fn amend(&self, request: &Amend, context: &DispatchContext) -> StoreResult<Amended> {
        retrying!(transactions::amend(self, request, context))
    }

    async fn dispatch_ready(&self, context: &DispatchContext) -> StoreResult<Applied> {
        let mut applied = retrying!(transactions::dispatch_ready(self, context))?;
        transactions::wake_runs_after(self, &mut applied, context).await;
        Ok(applied)
    }

    async fn start_runs(&self, context: &DispatchContext) -> StoreResult<Applied> {
        let mut applied = retrying!(transactions::start_runs(self, context))?;
        transactions::wake_runs_after(self, &mut applied, context).await;
        Ok(applied)
    }

    async fn create_due_runs(&self) -> StoreResult<usize> {
        retrying!(transactions::create_due_runs(self))
    }

    async fn retry_due(&self, context: &DispatchContext) -> StoreResult<Applied> {
        let mut applied = retrying!(transactions::retry_due(self, context))?;
        transactions::wake_runs_after(self, &mut applied, context).await;
        Ok(applied)
    }

    async fn look_at_waits(&self, context: &DispatchContext) -> StoreResult<Applied> {
        let mut applied = retrying!(transactions::look_at_waits(self, context))?;
        transactions::wake_runs_after(self, &mut applied, context).await;
        Ok(applied)
    }

    async fn push(&self, context: &DispatchContext) -> StoreResult<Applied> {
        let mut applied = retrying!(transactions::push(self, context))?;
        transactions::wake_runs_after(self, &mut applied, context).await;
        Ok(applied)
    }

    async fn look_at_deadlines(&self, context: &DispatchContext) -> StoreResult<Applied> {
        retrying!(transactions::look_at_deadlines(self, context))
    }

    async fn answer(&self, answer: &Answer) -> StoreResult<()> {
        retrying!(transactions::answer(self, answer))
    }

    async fn stop_due_runs(&self, context: &DispatchContext) -> StoreResult<Applied> {
        let mut applied = retrying!(transactions::stop_due_runs(self, context))?;
        transactions::wake_runs_after(self, &mut applied, context).await;
        Ok(applied)
    }

    async fn stop_overlapped_runs(&self, context: &DispatchContext) -> StoreResult<Applied> {
        let mut applied = retrying!(transactions::stop_overlapped_runs(self, context))?;
        transactions::wake_runs_after(self, &mut applied, context).await;
        Ok(applied)
    }

    async fn create_asset_runs(&self) -> StoreResult<usize> {
        retrying!(transactions::create_asset_runs(self))
    }

    async fn create_asset_event(&self, event: &NewAssetEvent) -> StoreResult<i64> {
        retrying!(transactions::create_asset_event(self, event))
    }

    async fn create_backfill(&self, new: &NewBackfill, dry_run: bool) -> StoreResult<BackfillPlan> {
        retrying!(transactions::create_backfill(self, new, dry_run))
    }

    async fn pause_backfill(&self, id: BackfillPk, paused: bool) -> StoreResult<()> {
        retrying!(transactions::pause_backfill(self, id, paused))
    }

    async fn cancel_backfill(&self, id: BackfillPk) -> StoreResult<i64> {
        retrying!(transactions::cancel_backfill(self, id))
    }

    async fn grant_lease(&self, request: &RenewRequest) -> StoreResult<bool> {
        retrying!(transactions::grant_lease(self, request))
    }

    async fn judge_lost(&self, incarnation: &str) -> StoreResult<Judgement> {
        retrying!(transactions::judge_lost(self, incarnation))
    }

    async fn delete_old(
        &self,
        ended_before: DateTime<Utc>,
        max: i64,
    ) -> StoreResult<Vec<DeletedRun>> {
        retrying!(transactions::delete_old(self, ended_before, max))
    }

    async fn put_dead_letter(&self, source: &str, reason: &str, body: &[u8]) -> StoreResult<()> {
        retrying!(transactions::put_dead_letter(self, source, reason, body))
    }
}
