//! Time, what goes wrong, what comes back, and what users do.

use crate::{
    database::Transaction,
    faults::spend,
    model::Deployment,
    rules::Rule,
    state::*,
    steps::{scheduler, worker},
};
use gristmill_common::state::TaskState;

/// Nothing that must be dead by the end of this tick is alive, and who could have renewed its lease has, unless it is
/// paused.
pub(crate) fn tick(m: &Deployment, s: &mut State) -> Option<()> {
    for i in 0..WORKERS {
        let worker = s.workers[i];
        let must_be_dead = worker.deadline == 0 && m.keeps(Rule::KillAtDeadline);
        if must_be_dead && worker.job.live().is_some() {
            return None;
        }
        // The deadline of a call to Redis is shorter than the judge's margin.
        let asking = matches!(worker.job, Job::Asked { answer, .. } if answer != Claim::Unasked);
        if worker.life == Life::Alive && worker.deadline > 1 && asking {
            return None;
        }
        let can_renew = s.reaches_redis(i as Incarnation) || s.broker.up;
        if worker.life == Life::Alive && worker.deadline == 1 && can_renew {
            spend(&mut s.left.pauses)?;
        }
    }
    for worker in &mut s.workers {
        if worker.life == Life::Unborn {
            continue;
        }
        worker.deadline = worker.deadline.saturating_sub(1);
        worker.quiet = (worker.quiet + 1).min(PATIENCE);
        let older = |age: u8| (age + 1).min(LEASE);
        worker.answer = worker.answer.map(older);
        if let Asking::Sent(age) = &mut worker.asking {
            *age = older(*age);
        }
    }
    for granted in &mut s.db.granted {
        *granted = granted.saturating_sub(1);
    }
    for scheduler in &mut s.schedulers {
        if scheduler.epoch > 0 {
            scheduler.watched = (scheduler.watched + 1).min(PATIENCE);
        }
        if let Judge::Waiting { left, .. } = &mut scheduler.judge {
            *left = left.saturating_sub(1);
        }
    }
    Some(())
}

pub(crate) fn kill_worker(s: &mut State, w: Incarnation) -> Option<()> {
    spend(&mut s.left.kills)?;
    worker::give_back(s, w);
    let worker = &mut s.workers[usize::from(w)];
    worker.life = Life::Dead;
    // What it took without a claim, and its unsent reports, are gone; its processes are not, yet.
    if !matches!(worker.job, Job::Live { .. }) {
        worker.job = Job::Idle;
    }
    Some(())
}

pub(crate) fn crash_scheduler(s: &mut State, i: u8) -> Option<()> {
    spend(&mut s.left.crashes)?;
    let scheduler = &mut s.schedulers[usize::from(i)];
    *scheduler = Scheduler {
        life: !scheduler.life,
        ..Scheduler::default()
    };
    s.seen.reported[usize::from(i)] = [0; 3];
    Some(())
}

pub(crate) fn cut(s: &mut State, w: Incarnation) -> Option<()> {
    spend(&mut s.left.cuts)?;
    let worker = &mut s.workers[usize::from(w)];
    worker.cut = worker.life == Life::Alive;
    Some(())
}

pub(crate) fn mend(s: &mut State, w: Incarnation) -> Option<()> {
    s.workers[usize::from(w)].cut = false;
    Some(())
}

pub(crate) fn redis_down(s: &mut State) -> Option<()> {
    spend(&mut s.left.redis_outages)?;
    s.redis.up = s.redis.up.then_some(false)?;
    Some(())
}

pub(crate) fn redis_up(s: &mut State) -> Option<()> {
    s.redis.up = true;
    Some(())
}

pub(crate) fn redis_flush(s: &mut State) -> Option<()> {
    spend(&mut s.left.flushes)?;
    s.redis = Redis {
        up: s.redis.up,
        epoch: s.redis.epoch + 1,
        records: [[Record::None; FENCES]; TASKS],
        leases: [Lease::None; WORKERS],
        late: s.redis.late,
    };
    Some(())
}

pub(crate) fn redis_restart(s: &mut State) -> Option<()> {
    spend(&mut s.left.restarts)?;
    s.redis.epoch += 1;
    for lease in &mut s.redis.leases {
        if let Lease::Leased { current } = lease {
            *current = false;
        }
    }
    Some(())
}

pub(crate) fn broker_down(s: &mut State) -> Option<()> {
    spend(&mut s.left.broker_outages)?;
    s.broker.up = s.broker.up.then_some(false)?;
    for i in 0..WORKERS {
        // What was delivered is delivered again; who has it does not know yet.
        if let Job::Asked {
            dispatch,
            acked: acked @ false,
            ..
        } = &mut s.workers[i].job
        {
            *acked = true;
            let dispatch = *dispatch;
            *s.copies(dispatch) += 1;
        }
    }
    Some(())
}

pub(crate) fn broker_up(s: &mut State) -> Option<()> {
    s.broker.up = true;
    Some(())
}

pub(crate) fn deliver_twice(s: &mut State, dispatch: Dispatch) -> Option<()> {
    spend(&mut s.left.duplicates)?;
    let in_hand = s.workers.iter().any(|worker| {
        matches!(worker.job, Job::Asked { dispatch: asked, acked: false, .. } if asked == dispatch)
    });
    if !in_hand && *s.copies(dispatch) == 0 {
        return None;
    }
    *s.copies(dispatch) += 1;
    Some(())
}

pub(crate) fn expire(s: &mut State, dispatch: Dispatch) -> Option<()> {
    spend(&mut s.left.late)?;
    let copies = s.copies(dispatch);
    *copies = copies.checked_sub(1)?;
    scheduler::expire_claim(s, dispatch);
    Some(())
}

pub(crate) fn late_in_database(s: &mut State, ti: Ti) -> Option<()> {
    spend(&mut s.left.late)?;
    let dispatch = s.current(ti);
    if s.db.rows.tis[usize::from(ti)].late {
        return None;
    }
    scheduler::expire_claim(s, dispatch).then_some(())
}

pub(crate) fn late_in_redis(s: &mut State, ti: Ti) -> Option<()> {
    spend(&mut s.left.late)?;
    let late = &mut s.redis.late[usize::from(ti)];
    let queued = s.db.rows.tis[usize::from(ti)].state == TaskState::Queued;
    *late = (queued && !*late).then_some(true)?;
    Some(())
}

pub(crate) fn cancel(m: &Deployment, s: &mut State) -> Option<()> {
    spend(&mut s.left.cancels)?;
    if s.db.rows.stopped || s.db.rows.all_ended() {
        return None;
    }
    scheduler::commit(m, s, Transaction::Stop);
    Some(())
}

pub(crate) fn clear(m: &Deployment, s: &mut State, ti: Ti) -> Option<()> {
    spend(&mut s.left.clears)?;
    let row = &mut s.db.rows.tis[usize::from(ti)];
    if row.state.is_finished() {
        s.db.rows.stopped = false;
        s.db.rows.clear(ti);
    } else if row.state.is_dispatched() {
        if m.keeps(Rule::ClearWaits) {
            row.clear = true;
        } else {
            // Its slots are free and it is ready again, whatever becomes of what is out.
            s.db.rows.used -= i8::from(row.occupies);
            row.occupies = false;
            s.db.rows.clear(ti);
        }
    } else {
        return None;
    }
    Some(())
}
