//! Everything that can happen.

use crate::{
    model::Deployment,
    state::*,
    steps::{faults, scheduler, worker},
};

/// One step of one part. Those of workers mirror `worker/src/`, those of schedulers `scheduler/src/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A tick of everybody's clock. A healthy worker does not let it end its lease, unless it is paused (a fault).
    Tick,

    /// A new incarnation of a worker registers.
    Born(Incarnation),
    /// A renewal is sent and answered, and what is to be restored is.
    Renew(Incarnation),
    /// A renewal reaches Redis, and its answer takes its time (a fault).
    RenewSlowly(Incarnation),
    /// The answer comes.
    RenewAnswer(Incarnation),
    /// A lease is asked for over the broker.
    AskLease(Incarnation),
    /// The lease was over: the incarnation ends what it holds and itself.
    Lapse(Incarnation),
    /// A message is taken and acknowledged without a claim (only where that rule is broken).
    Take(Incarnation, Dispatch),
    /// A message is taken and claimed; the answer is on its way.
    Claim(Incarnation, Dispatch),
    /// The answer comes, and the message is acknowledged.
    ClaimAnswer(Incarnation),
    /// The answer is lost, and the message given back (a fault).
    ClaimAnswerLost(Incarnation),
    /// The processes start, or what was wished comes first.
    Start(Incarnation),
    /// The processes end: by themselves, or as wished.
    Exit(Incarnation),
    /// They fail (a fault).
    Fail(Incarnation),
    /// The guardian kills them: their deadline has come, or their worker is dead.
    Kill(Incarnation),
    /// `started` is published.
    ReportStart(Incarnation),
    /// The ending is published and confirmed, and the claim released.
    ReportEnd(Incarnation),
    /// The ending is published, and the confirm is lost (a fault).
    ReportEndTwice(Incarnation),
    /// The ending overtakes the start (a fault).
    ReportEndFirst(Incarnation),

    /// Ready instances go out under the epoch that this scheduler knows.
    DispatchReady(u8),
    /// The relay publishes a message and deletes its row.
    Relay(Dispatch),
    /// The relay publishes a message, and the row stays (a fault).
    RelayTwice(Dispatch),
    /// The events' consumer applies the oldest event and acknowledges it.
    Apply,
    /// It dies between the two (a fault).
    ApplyTwice,
    /// It dies before it applied anything, having acknowledged (only where that rule is broken).
    ApplyNever,
    /// A scheduler grants a lease over the broker, or refuses it for ever.
    Grant(Incarnation),
    /// A retry is due.
    RetryDue(Ti),
    /// A scheduler sees the epoch.
    SeeEpoch(u8),
    /// A scheduler's judge has watched this worker for long enough, and writes its judgement down.
    Judge(u8, Incarnation),
    /// It revokes the lease; then waits, or sends its barrier.
    JudgeRevokes(u8),
    /// The same, where a lease of another epoch happens to have the counter that was seen.
    JudgeRevokesAlike(u8),
    /// It has waited for another lease, and sends its barrier.
    JudgeWaited(u8),
    /// Its barrier is through: what the worker held goes out again.
    JudgeEnds(u8),
    /// A dispatch that nobody claimed in time, or that Redis forgot, is sealed; a barrier follows.
    SealUnclaimed(u8, Ti),
    /// The barrier is through: it goes out again.
    Resend(u8),
    /// The holder of a dispatch that was not started in time is asked about it.
    Check(u8, Ti),
    /// The claim window of a dispatch is over by the database's clock, and its message is nowhere.
    WindowEnds(Ti),
    /// A dispatch that is to end is marked in Redis.
    CancelMark(u8, Ti),
    /// One that nobody had claimed is ended.
    CancelEnds(u8),

    /// kill -9 of a worker.
    KillWorker(Incarnation),
    /// kill -9 of a scheduler.
    CrashScheduler(u8),
    /// This worker cannot reach Redis any more.
    Cut(Incarnation),
    /// It can again.
    Mend(Incarnation),
    /// Nobody can.
    RedisDown,
    /// Everybody can again.
    RedisUp,
    /// It restarts empty.
    RedisFlush,
    /// It restarts with its data.
    RedisRestart,
    /// Nobody reaches the broker.
    BrokerDown,
    /// Everybody does again.
    BrokerUp,
    /// A message is delivered again.
    DeliverTwice(Dispatch),
    /// A message expires.
    Expire(Dispatch),
    /// `claim_by` has passed by the database's clock, early.
    LateInDatabase(Ti),
    /// `claim_by` has passed by Redis's clock.
    LateInRedis(Ti),
    /// A user cancels the run.
    Cancel,
    /// A user clears an instance.
    Clear(Ti),
}

impl Action {
    /// What may be possible in a state; [`step`](Self::step) decides.
    pub(crate) fn candidates(model: &Deployment, state: &State, actions: &mut Vec<Self>) {
        use Action::*;
        let dispatches = dispatches_of(model, state);
        actions.extend([
            Tick,
            Apply,
            ApplyTwice,
            ApplyNever,
            RedisDown,
            RedisUp,
            RedisFlush,
            RedisRestart,
            BrokerDown,
            BrokerUp,
            Cancel,
        ]);
        for w in 0..model.incarnations as Incarnation {
            let worker = &state.workers[usize::from(w)];
            if worker.life == Life::Unborn {
                actions.push(Born(w));
                continue;
            }
            actions.extend([Kill(w), Grant(w)]);
            if worker.life == Life::Dead {
                continue;
            }
            actions.extend([
                Renew(w),
                RenewSlowly(w),
                RenewAnswer(w),
                AskLease(w),
                Lapse(w),
                Start(w),
                Exit(w),
                Fail(w),
                ClaimAnswer(w),
                ClaimAnswerLost(w),
                ReportStart(w),
                ReportEnd(w),
                ReportEndTwice(w),
                ReportEndFirst(w),
                KillWorker(w),
                Cut(w),
                Mend(w),
            ]);
            for dispatch in dispatches.clone() {
                actions.extend([Take(w, dispatch), Claim(w, dispatch)]);
            }
        }
        for s in 0..model.schedulers as u8 {
            actions.extend([
                DispatchReady(s),
                SeeEpoch(s),
                JudgeRevokes(s),
                JudgeRevokesAlike(s),
                JudgeWaited(s),
                JudgeEnds(s),
                Resend(s),
                CancelEnds(s),
                CrashScheduler(s),
            ]);
            for w in 0..model.incarnations as Incarnation {
                actions.push(Judge(s, w));
            }
            for ti in 0..model.tasks as Ti {
                actions.extend([SealUnclaimed(s, ti), Check(s, ti), CancelMark(s, ti)]);
            }
        }
        for ti in 0..model.tasks as Ti {
            actions.extend([
                RetryDue(ti),
                WindowEnds(ti),
                LateInDatabase(ti),
                LateInRedis(ti),
                Clear(ti),
            ]);
        }
        for dispatch in dispatches {
            actions.extend([
                Relay(dispatch),
                RelayTwice(dispatch),
                DeliverTwice(dispatch),
                Expire(dispatch),
            ]);
        }
    }

    /// Takes the step; `None` if it is not possible.
    pub(crate) fn step(self, m: &Deployment, s: &mut State) -> Option<()> {
        match self {
            Self::Tick => faults::tick(m, s),
            Self::Born(w) => worker::born(s, w),
            Self::Renew(w) => worker::renew(m, s, w),
            Self::RenewSlowly(w) => worker::renew_slowly(m, s, w),
            Self::RenewAnswer(w) => worker::renew_answer(m, s, w),
            Self::AskLease(w) => worker::ask_lease(m, s, w),
            Self::Lapse(w) => worker::lapse(m, s, w),
            Self::Take(w, d) => worker::take(m, s, w, d),
            Self::Claim(w, d) => worker::claim(m, s, w, d),
            Self::ClaimAnswer(w) => worker::claim_answer(m, s, w),
            Self::ClaimAnswerLost(w) => worker::claim_answer_lost(s, w),
            Self::Start(w) => worker::start(s, w),
            Self::Exit(w) => worker::exit(s, w),
            Self::Fail(w) => worker::fail(s, w),
            Self::Kill(w) => worker::kill(m, s, w),
            Self::ReportStart(w) => worker::report_start(s, w),
            Self::ReportEnd(w) => worker::report_end(m, s, w),
            Self::ReportEndTwice(w) => worker::report_end_twice(s, w),
            Self::ReportEndFirst(w) => worker::report_end_first(m, s, w),
            Self::DispatchReady(i) => scheduler::dispatch(m, s, i),
            Self::Relay(d) => scheduler::relay(s, d),
            Self::RelayTwice(d) => scheduler::relay_twice(m, s, d),
            Self::Apply => scheduler::apply(m, s),
            Self::ApplyTwice => scheduler::apply_twice(m, s),
            Self::ApplyNever => scheduler::apply_never(m, s),
            Self::Grant(w) => scheduler::grant(m, s, w),
            Self::RetryDue(ti) => scheduler::retry_due(m, s, ti),
            Self::SeeEpoch(i) => scheduler::see_epoch(s, i),
            Self::Judge(i, w) => scheduler::judge(m, s, i, w),
            Self::JudgeRevokes(i) => scheduler::judge_revokes(m, s, i, false),
            Self::JudgeRevokesAlike(i) => scheduler::judge_revokes(m, s, i, true),
            Self::JudgeWaited(i) => scheduler::judge_waited(m, s, i),
            Self::JudgeEnds(i) => scheduler::judge_ends(m, s, i),
            Self::SealUnclaimed(i, ti) => scheduler::seal(m, s, i, ti),
            Self::Resend(i) => scheduler::resend(m, s, i),
            Self::Check(i, ti) => scheduler::check(m, s, i, ti),
            Self::WindowEnds(ti) => scheduler::window_ends(s, ti),
            Self::CancelMark(i, ti) => scheduler::cancel_mark(m, s, i, ti),
            Self::CancelEnds(i) => scheduler::cancel_ends(m, s, i),
            Self::KillWorker(w) => faults::kill_worker(s, w),
            Self::CrashScheduler(i) => faults::crash_scheduler(s, i),
            Self::Cut(w) => faults::cut(s, w),
            Self::Mend(w) => faults::mend(s, w),
            Self::RedisDown => faults::redis_down(s),
            Self::RedisUp => faults::redis_up(s),
            Self::RedisFlush => faults::redis_flush(s),
            Self::RedisRestart => faults::redis_restart(s),
            Self::BrokerDown => faults::broker_down(s),
            Self::BrokerUp => faults::broker_up(s),
            Self::DeliverTwice(d) => faults::deliver_twice(s, d),
            Self::Expire(d) => faults::expire(s, d),
            Self::LateInDatabase(ti) => faults::late_in_database(s, ti),
            Self::LateInRedis(ti) => faults::late_in_redis(s, ti),
            Self::Cancel => faults::cancel(m, s),
            Self::Clear(ti) => faults::clear(m, s, ti),
        }
    }
}

/// Every dispatch that there was.
fn dispatches_of(model: &Deployment, state: &State) -> impl Iterator<Item = Dispatch> + Clone {
    let rows = state.db.rows.tis;
    (0..model.tasks as Ti).flat_map(move |ti| {
        (1..=rows[usize::from(ti)].fence).map(move |fence| Dispatch { ti, fence })
    })
}
