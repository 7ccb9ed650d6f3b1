//! Schedulers: `scheduler/src/{dispatch,relay,events,cancel,epoch}.rs`, `scheduler/src/reconcile/{lost,unclaimed}.rs`, and
//! the scripts that they call (`common/presence/src/redis/scripts/{seal,cancel,revoke,holders}.lua`).

use crate::{
    database::{Done, Transaction},
    faults::spend,
    model::Deployment,
    rules::Rule,
    state::*,
    steps::worker,
};
use gristmill_common::state::TaskState;

/// Commits a transaction of the engine, and keeps the books on what it did.
pub(crate) fn commit(m: &Deployment, s: &mut State, transaction: Transaction) -> Done {
    let before = s.db.rows;
    let done = s.db.rows.apply(transaction);
    for i in 0..TASKS {
        let bit = 1 << i;
        let old = before.tis[i];
        if done.ended & bit != 0 {
            s.seen.wrong_ending |= old.ended || alive(s, i as Ti, old.fence);
        }
        let unclaimed = matches!(transaction, Transaction::Unclaimed(d) | Transaction::CancelledUnclaimed(d)
            if usize::from(d.ti) == i && !done.stale);
        // What Redis forgot may have run, and its worker have died without a report: nobody can know.
        let known = s.seen.ran & bit != 0 && old.epoch == s.redis.epoch;
        s.seen.wrongly_given_up |= unclaimed && (alive(s, i as Ti, old.fence) || known);
        if done.dispatched & bit != 0 {
            s.seen.ran &= !bit;
            s.redis.late[i] = false;
            let reuse = old.ended && !m.keeps(Rule::ClearTakesFence);
            let row = &mut s.db.rows.tis[i];
            if reuse {
                row.fence = old.fence;
                row.ended = true;
            }
            s.db.outbox[i] |= 1 << row.fence;
            s.broker.epochs[i][usize::from(row.fence)] = row.epoch;
        }
        let row = &s.db.rows.tis[i];
        if row.clear && !row.state.is_dispatched() {
            s.db.rows.clear(i as Ti);
        }
    }
    done
}

/// Whether an attempt has processes.
fn alive(s: &State, ti: Ti, fence: u8) -> bool {
    let attempt = Some(Dispatch { ti, fence });
    s.workers.iter().any(|worker| worker.job.live() == attempt)
}

/// Commits that a dispatch is given up, for which `reported` tells what had been reported when this began.
fn give_up(
    m: &Deployment,
    s: &mut State,
    reported: u8,
    dispatch: Dispatch,
    transaction: Transaction,
) {
    let done = commit(m, s, transaction);
    s.seen.wrongly_given_up |= !done.stale && reported & (1 << dispatch.ti) != 0;
}

/// What had been reported when this scheduler's loop began; it ends now.
fn reported(s: &mut State, i: u8, of: Waits) -> u8 {
    std::mem::take(&mut s.seen.reported[usize::from(i)][of as usize])
}

pub(crate) fn dispatch(m: &Deployment, s: &mut State, i: u8) -> Option<()> {
    let epoch = s.schedulers[usize::from(i)].epoch;
    // The bound on fences is not reached, unless a broken rule makes for endless rounds.
    let bounded =
        s.db.rows
            .tis
            .iter()
            .all(|row| usize::from(row.fence) < FENCES - 1);
    if epoch == 0 || !bounded {
        return None;
    }
    commit(m, s, Transaction::Dispatch(epoch));
    Some(())
}

pub(crate) fn relay(s: &mut State, dispatch: Dispatch) -> Option<()> {
    publish(s, dispatch)?;
    s.db.outbox[usize::from(dispatch.ti)] &= !(1 << dispatch.fence);
    Some(())
}

pub(crate) fn relay_twice(m: &Deployment, s: &mut State, dispatch: Dispatch) -> Option<()> {
    spend(&mut s.left.duplicates)?;
    if !m.keeps(Rule::OutboxUntilConfirmed) {
        let outbox = &mut s.db.outbox[usize::from(dispatch.ti)];
        let without = *outbox & !(1 << dispatch.fence);
        return (std::mem::replace(outbox, without) != without).then_some(());
    }
    publish(s, dispatch)
}

fn publish(s: &mut State, dispatch: Dispatch) -> Option<()> {
    let waits = s.db.outbox[usize::from(dispatch.ti)] & (1 << dispatch.fence) != 0;
    if !waits || !s.broker.up {
        return None;
    }
    *s.copies(dispatch) += 1;
    Some(())
}

pub(crate) fn apply(m: &Deployment, s: &mut State) -> Option<()> {
    apply_head(m, s)?;
    if let Some(Event::Ended(dispatch, ..)) = s.broker.events.head() {
        for reported in s.seen.reported.as_flattened_mut() {
            *reported &= !(1 << dispatch.ti);
        }
    }
    s.broker.events.pop();
    Some(())
}

pub(crate) fn apply_twice(m: &Deployment, s: &mut State) -> Option<()> {
    spend(&mut s.left.duplicates)?;
    // A barrier counts once, by its id.
    if let Some(Event::Barrier { .. }) = s.broker.events.head() {
        return None;
    }
    apply_head(m, s)
}

pub(crate) fn apply_never(m: &Deployment, s: &mut State) -> Option<()> {
    if m.keeps(Rule::AckAfterCommit) {
        return None;
    }
    spend(&mut s.left.duplicates)?;
    s.broker.events.head().filter(|_| s.broker.up)?;
    s.broker.events.pop();
    Some(())
}

fn apply_head(m: &Deployment, s: &mut State) -> Option<()> {
    let event = s.broker.events.head().filter(|_| s.broker.up)?;
    let fenced = |dispatch: Dispatch| match m.keeps(Rule::FenceOfEvents) {
        true => dispatch,
        false => s.current(dispatch.ti),
    };
    match event {
        Event::Started(dispatch, worker) => {
            let transaction = Transaction::Started(fenced(dispatch), worker);
            commit(m, s, transaction);
        }
        Event::Ended(dispatch, worker, outcome) => {
            let transaction = Transaction::Ended(fenced(dispatch), worker, outcome);
            commit(m, s, transaction);
        }
        Event::Bounced(dispatch) => {
            expire_claim(s, dispatch);
        }
        Event::Barrier {
            scheduler,
            of,
            life,
        } => {
            let scheduler = &mut s.schedulers[usize::from(scheduler)];
            if scheduler.life == life {
                scheduler.barrier_applied(of);
            }
        }
    }
    Some(())
}

/// `expire_claim` of the stores: whether it still waits to be claimed.
pub(crate) fn expire_claim(s: &mut State, dispatch: Dispatch) -> bool {
    let row = &mut s.db.rows.tis[usize::from(dispatch.ti)];
    let waits = row.fence == dispatch.fence && row.state == TaskState::Queued;
    row.late |= waits;
    waits
}

pub(crate) fn grant(m: &Deployment, s: &mut State, w: Incarnation) -> Option<()> {
    let i = usize::from(w);
    let Asking::Sent(age) = s.workers[i].asking else {
        return None;
    };
    if !s.broker.up {
        return None;
    }
    s.workers[i].asking = Asking::No;
    if s.db.lost[i] && m.keeps(Rule::LostGetsNoGrant) {
        worker::lease_refused(s, w);
    } else {
        // Until the lease's end by the database's clock, and then as long as it is looked back for.
        s.db.granted[i] = LEASE + 1 + PATIENCE;
        worker::lease_granted(m, s, w, age);
    }
    Some(())
}

fn holds_grant(s: &State, w: Incarnation) -> bool {
    s.db.granted[usize::from(w)] > PATIENCE
}

pub(crate) fn retry_due(m: &Deployment, s: &mut State, ti: Ti) -> Option<()> {
    if s.db.rows.tis[usize::from(ti)].state != TaskState::UpForRetry {
        return None;
    }
    commit(m, s, Transaction::RetryDue(ti));
    Some(())
}

pub(crate) fn see_epoch(s: &mut State, i: u8) -> Option<()> {
    let scheduler = &mut s.schedulers[usize::from(i)];
    if !s.redis.up || scheduler.epoch == s.redis.epoch {
        return None;
    }
    scheduler.epoch = s.redis.epoch;
    scheduler.watched = 0;
    Some(())
}

/// `epoch::record_is_complete`, of the record that was just read.
fn record_is_complete(m: &Deployment, s: &State, i: u8) -> bool {
    let scheduler = &s.schedulers[usize::from(i)];
    let watched = scheduler.watched >= PATIENCE || !m.keeps(Rule::CompleteRecord);
    if scheduler.epoch != s.redis.epoch && m.keeps(Rule::CompleteInOneEpoch) {
        return false;
    }
    let leased =
        s.db.granted
            .iter()
            .zip(s.db.lost)
            .any(|(granted, lost)| *granted > 0 && !lost);
    watched && (!leased || !m.keeps(Rule::CompleteHeedsGrants))
}

pub(crate) fn judge(m: &Deployment, s: &mut State, i: u8, w: Incarnation) -> Option<()> {
    let scheduler = s.schedulers[usize::from(i)];
    let worker = s.workers[usize::from(w)];
    let patience = match m.keeps(Rule::JudgeMargin) {
        true => PATIENCE,
        false => LEASE,
    };
    let looks =
        s.redis.up && scheduler.epoch == s.redis.epoch && scheduler.judge == Judge::Watching;
    let still = worker.quiet.min(scheduler.watched) >= patience;
    let leased = s.redis.leases[usize::from(w)] == Lease::Leased { current: true };
    let suspected = s.db.rows.tis.iter().enumerate().any(|(ti, row)| {
        let holds = matches!(s.record(s.current(ti as Ti)), Record::Held { by, .. } if by == w);
        let busy = row.state.is_dispatched() && row.worker == Some(w);
        busy || (row.late && holds)
    });
    if !looks || !still || !(leased || suspected) {
        return None;
    }
    if !s.db.lost[usize::from(w)] && holds_grant(s, w) && m.keeps(Rule::JudgeHeedsGrants) {
        return None;
    }
    s.note_reports(i, Waits::Judge);
    s.db.lost[usize::from(w)] = true;
    s.schedulers[usize::from(i)].judge = Judge::Judged {
        worker: w,
        epoch: s.redis.epoch,
        moved: false,
    };
    Some(())
}

/// `alike`: the counter of a lease that was restored in another epoch starts anew, and may happen to be what was seen.
pub(crate) fn judge_revokes(m: &Deployment, s: &mut State, i: u8, alike: bool) -> Option<()> {
    let Judge::Judged {
        worker,
        epoch,
        moved,
    } = s.schedulers[usize::from(i)].judge
    else {
        return None;
    };
    if !s.redis.up || (alike && (epoch == s.redis.epoch || !moved)) {
        return None;
    }
    if m.keeps(Rule::Revoke) {
        s.redis.leases[usize::from(worker)] = Lease::Revoked;
    }
    s.schedulers[usize::from(i)].judge = Judge::Waiting {
        worker,
        epoch,
        left: match moved && !alike && m.keeps(Rule::WaitIfMoved) {
            true => PATIENCE,
            false => 0,
        },
    };
    if !moved || alike || !m.keeps(Rule::WaitIfMoved) {
        return judge_waited(m, s, i);
    }
    Some(())
}

pub(crate) fn judge_waited(m: &Deployment, s: &mut State, i: u8) -> Option<()> {
    let Judge::Waiting {
        worker,
        epoch,
        left: 0,
    } = s.schedulers[usize::from(i)].judge
    else {
        return None;
    };
    let next = match m.keeps(Rule::JudgeBarrier) {
        false => Judge::Passed { worker, epoch },
        // A full queue takes it later.
        true if s.broker.up && !s.broker.events.has_room() => return None,
        true if send_barrier(s, i, Waits::Judge) => Judge::Barrier { worker, epoch },
        true => Judge::Watching,
    };
    s.schedulers[usize::from(i)].judge = next;
    Some(())
}

fn send_barrier(s: &mut State, i: u8, of: Waits) -> bool {
    let sent = s.can_publish();
    if sent {
        s.broker.events.push(Event::Barrier {
            scheduler: i,
            of,
            life: s.schedulers[usize::from(i)].life,
        });
    }
    sent
}

pub(crate) fn judge_ends(m: &Deployment, s: &mut State, i: u8) -> Option<()> {
    let Judge::Passed { worker, epoch } = s.schedulers[usize::from(i)].judge else {
        return None;
    };
    let rows = s.db.rows.tis;
    let asks = rows
        .iter()
        .any(|row| row.state.is_dispatched() && row.worker.is_none());
    if !s.redis.up && (asks || m.keeps(Rule::JudgeInOneEpoch)) {
        return None;
    }
    s.schedulers[usize::from(i)].judge = Judge::Watching;
    let reported = reported(s, i, Waits::Judge);
    // Where the rule is broken, the epoch is compared only if there is anything to ask of Redis.
    if s.redis.epoch != epoch && (asks || m.keeps(Rule::JudgeInOneEpoch)) {
        return Some(());
    }
    for (ti, row) in rows.iter().enumerate() {
        let dispatch = s.current(ti as Ti);
        let holds = match row.worker {
            Some(reported) => reported == worker,
            None => {
                matches!(s.record(dispatch), Record::Held { by, .. } | Record::Released { by } if by == worker)
            }
        };
        if row.state.is_dispatched() && holds {
            give_up(m, s, reported, dispatch, Transaction::Lost(dispatch));
        }
    }
    Some(())
}

pub(crate) fn seal(m: &Deployment, s: &mut State, i: u8, ti: Ti) -> Option<()> {
    let scheduler = s.schedulers[usize::from(i)];
    let row = s.db.rows.tis[usize::from(ti)];
    let dispatch = s.current(ti);
    if !s.redis.up
        || !s.can_publish()
        || row.state != TaskState::Queued
        || scheduler.epoch == 0
        || scheduler.resend != Unclaimed::None
    {
        return None;
    }
    let forgotten = row.epoch != scheduler.epoch;
    if !(row.late && !forgotten || forgotten && record_is_complete(m, s, i)) {
        return None;
    }
    match s.record(dispatch) {
        Record::None if m.keeps(Rule::Seal) => s.set_record(dispatch, Record::Sealed),
        Record::None | Record::Sealed => {}
        Record::Held { .. } | Record::Released { .. } => return None,
    }
    if scheduler.epoch != s.redis.epoch {
        return Some(());
    }
    s.note_reports(i, Waits::Resend);
    if m.keeps(Rule::ResendBarrier) {
        send_barrier(s, i, Waits::Resend);
    }
    s.schedulers[usize::from(i)].resend = match m.keeps(Rule::ResendBarrier) {
        true => Unclaimed::Sealed {
            dispatch,
            forgotten,
        },
        false => Unclaimed::Proven {
            dispatch,
            forgotten,
        },
    };
    Some(())
}

pub(crate) fn resend(m: &Deployment, s: &mut State, i: u8) -> Option<()> {
    let Unclaimed::Proven {
        dispatch,
        forgotten,
    } = s.schedulers[usize::from(i)].resend
    else {
        return None;
    };
    s.schedulers[usize::from(i)].resend = Unclaimed::None;
    let transaction = match forgotten {
        true => Transaction::Forgotten(dispatch),
        false => Transaction::Unclaimed(dispatch),
    };
    let reported = reported(s, i, Waits::Resend);
    give_up(m, s, reported, dispatch, transaction);
    Some(())
}

/// The holder's answer comes at once: it takes what it does not know of, and gives it back.
pub(crate) fn check(m: &Deployment, s: &mut State, _i: u8, ti: Ti) -> Option<()> {
    let row = s.db.rows.tis[usize::from(ti)];
    let dispatch = s.current(ti);
    let Record::Held { by, .. } = s.record(dispatch) else {
        return None;
    };
    let asks = row.state == TaskState::Queued && row.late && s.redis.up && s.can_publish();
    let worker = &mut s.workers[usize::from(by)];
    let taken = &mut worker.taken[usize::from(ti)];
    if !asks
        || worker.life != Life::Alive
        || *taken & (1 << dispatch.fence) != 0
        || !m.keeps(Rule::GiveBackUnknown)
    {
        return None;
    }
    *taken |= 1 << dispatch.fence;
    s.broker
        .events
        .push(Event::Ended(dispatch, by, Outcome::Requeued));
    Some(())
}

/// Five minutes later; all else is quicker.
pub(crate) fn window_ends(s: &mut State, ti: Ti) -> Option<()> {
    let dispatch = s.current(ti);
    let somewhere = s.db.outbox[usize::from(ti)] & (1 << dispatch.fence) != 0
        || *s.copies(dispatch) > 0
        || s.workers.iter().any(|worker| {
            matches!(worker.life, Life::Alive | Life::Leaving)
                && worker.job.dispatch() == Some(dispatch)
        });
    if somewhere || s.db.rows.tis[usize::from(ti)].late {
        return None;
    }
    expire_claim(s, dispatch).then_some(())
}

pub(crate) fn cancel_mark(m: &Deployment, s: &mut State, i: u8, ti: Ti) -> Option<()> {
    let row = s.db.rows.tis[usize::from(ti)];
    let dispatch = s.current(ti);
    let wanted = s.db.rows.stopped || row.clear;
    if !wanted || !row.state.is_dispatched() || !s.redis.up {
        return None;
    }
    match s.record(dispatch) {
        Record::None | Record::Sealed => {
            s.set_record(dispatch, Record::Sealed);
            let proven = row.epoch == s.redis.epoch
                || record_is_complete(m, s, i)
                || !m.keeps(Rule::CancelNeedsProof);
            let free = s.schedulers[usize::from(i)].cancel == Unclaimed::None;
            if row.state == TaskState::Queued && proven && free {
                s.schedulers[usize::from(i)].cancel = cancel_unclaimed(m, s, i, dispatch);
            }
        }
        Record::Held { by, .. } => {
            let cancelled = Record::Held {
                by,
                cancelled: true,
            };
            s.set_record(dispatch, cancelled);
            if !m.keeps(Rule::SlotsUntilProof) {
                let rows = &mut s.db.rows;
                rows.used -= i8::from(row.occupies);
                rows.tis[usize::from(ti)].occupies = false;
            }
        }
        Record::Released { .. } => {}
    }
    Some(())
}

/// What an older epoch knew of it was reported perhaps, and is not applied yet.
fn cancel_unclaimed(m: &Deployment, s: &mut State, i: u8, dispatch: Dispatch) -> Unclaimed {
    s.note_reports(i, Waits::Cancel);
    let forgotten = s.epoch_of(dispatch) != s.redis.epoch;
    if !forgotten || !m.keeps(Rule::CancelBarrier) {
        Unclaimed::Proven {
            dispatch,
            forgotten,
        }
    } else if send_barrier(s, i, Waits::Cancel) {
        Unclaimed::Sealed {
            dispatch,
            forgotten,
        }
    } else {
        Unclaimed::None
    }
}

pub(crate) fn cancel_ends(m: &Deployment, s: &mut State, i: u8) -> Option<()> {
    let Unclaimed::Proven {
        dispatch,
        forgotten,
    } = s.schedulers[usize::from(i)].cancel
    else {
        return None;
    };
    s.schedulers[usize::from(i)].cancel = Unclaimed::None;
    let transaction = match (s.db.rows.stopped, forgotten) {
        (true, _) => Transaction::CancelledUnclaimed(dispatch),
        (false, false) => Transaction::Unclaimed(dispatch),
        (false, true) => Transaction::Forgotten(dispatch),
    };
    let reported = reported(s, i, Waits::Cancel);
    give_up(m, s, reported, dispatch, transaction);
    Some(())
}
