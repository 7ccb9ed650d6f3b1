//! Workers: `worker/src/{consume,lease,held,report,run}.rs`, and the scripts that they call
//! (`common/presence/src/redis/scripts/{claim,renew,restore,release}.lua`).

use crate::{faults::spend, model::Deployment, rules::Rule, state::*};

/// Registers a new incarnation in the place of one that ended.
pub(crate) fn born(s: &mut State, w: Incarnation) -> Option<()> {
    let i = usize::from(w);
    let needed = s.workers.iter().any(|worker| worker.life == Life::Dead);
    let next = s
        .workers
        .iter()
        .position(|worker| worker.life == Life::Unborn);
    if !needed || next != Some(i) || !s.redis.up {
        return None;
    }
    s.workers[i] = Worker {
        life: Life::Alive,
        deadline: LEASE,
        epoch: s.redis.epoch,
        ..Worker::default()
    };
    s.redis.leases[i] = Lease::Leased { current: true };
    Some(())
}

/// Whether the incarnation goes on: alive, and its lease not over, at which it ends itself.
fn goes_on(m: &Deployment, worker: &Worker) -> bool {
    worker.life == Life::Alive && (worker.deadline > 0 || !m.keeps(Rule::EndWithLease))
}

pub(crate) fn renew(m: &Deployment, s: &mut State, w: Incarnation) -> Option<()> {
    let worker = &s.workers[usize::from(w)];
    if !goes_on(m, worker) || worker.answer.is_some() || !s.reaches_redis(w) {
        return None;
    }
    if renewal_arrives(m, s, w) {
        let worker = &mut s.workers[usize::from(w)];
        worker.deadline = LEASE;
        worker.asking = Asking::No;
    }
    Some(())
}

pub(crate) fn renew_slowly(m: &Deployment, s: &mut State, w: Incarnation) -> Option<()> {
    spend(&mut s.left.slow_answers)?;
    let worker = &s.workers[usize::from(w)];
    if !goes_on(m, worker) || worker.answer.is_some() || !s.reaches_redis(w) {
        return None;
    }
    if renewal_arrives(m, s, w) {
        s.workers[usize::from(w)].answer = Some(0);
    }
    Some(())
}

pub(crate) fn renew_answer(m: &Deployment, s: &mut State, w: Incarnation) -> Option<()> {
    let worker = &mut s.workers[usize::from(w)];
    let age = worker.answer.take()?;
    if !goes_on(m, worker) {
        return Some(());
    }
    let age = match m.keeps(Rule::DeadlineFromSend) {
        true => age,
        false => 0,
    };
    worker.deadline = worker.deadline.max(LEASE - age);
    Some(())
}

/// `renew.lua`, and `restore.lua` where it says so. `false`: the incarnation was judged lost, and ends.
fn renewal_arrives(m: &Deployment, s: &mut State, w: Incarnation) -> bool {
    let i = usize::from(w);
    match s.redis.leases[i] {
        Lease::Revoked => {
            revoked(s, w);
            return false;
        }
        Lease::Leased { current: true } if s.workers[i].epoch == s.redis.epoch => {}
        _ => restore(m, s, w),
    }
    s.workers[i].quiet = 0;
    for scheduler in &mut s.schedulers {
        if let Judge::Judged { worker, moved, .. } = &mut scheduler.judge
            && *worker == w
        {
            *moved = true;
        }
    }
    if let Some(held) = s.workers[i].job.held()
        && let Record::Held {
            by,
            cancelled: true,
        } = s.record(held)
        && by == w
    {
        wish(&mut s.workers[i].job, Wish::Cancel);
    }
    true
}

fn restore(m: &Deployment, s: &mut State, w: Incarnation) {
    let i = usize::from(w);
    s.redis.leases[i] = Lease::Leased { current: true };
    s.workers[i].epoch = s.redis.epoch;
    let Some(held) = s.workers[i]
        .job
        .held()
        .filter(|_| m.keeps(Rule::RestoreClaims))
    else {
        return;
    };
    match s.record(held) {
        Record::None => s.set_record(
            held,
            Record::Held {
                by: w,
                cancelled: false,
            },
        ),
        Record::Sealed => s.set_record(
            held,
            Record::Held {
                by: w,
                cancelled: true,
            },
        ),
        Record::Held { by, .. } | Record::Released { by } if by == w => {}
        // Another incarnation's record stands: ours must not live.
        Record::Held { .. } | Record::Released { .. } => {
            wish(&mut s.workers[i].job, Wish::Interrupt)
        }
    }
}

/// Asks something of what is held. What has processes ends with a step of its own.
fn wish(job: &mut Job, asked: Wish) {
    if let Job::Held { wish, .. } | Job::Live { wish, .. } = job {
        *wish = asked;
    }
}

/// The incarnation was judged lost: it kills everything, reports nothing more, and ends.
fn revoked(s: &mut State, w: Incarnation) {
    give_back(s, w);
    s.workers[usize::from(w)].job = Job::Idle;
    s.workers[usize::from(w)].life = Life::Dead;
}

/// A message that is not acknowledged goes back to its queue.
pub(crate) fn give_back(s: &mut State, w: Incarnation) {
    if let Job::Asked {
        dispatch,
        acked: false,
        ..
    } = s.workers[usize::from(w)].job
    {
        *s.copies(dispatch) += 1;
        s.workers[usize::from(w)].job = Job::Idle;
    }
}

pub(crate) fn ask_lease(m: &Deployment, s: &mut State, w: Incarnation) -> Option<()> {
    let (reaches, up) = (s.reaches_redis(w), s.broker.up);
    let worker = &mut s.workers[usize::from(w)];
    if reaches || !up || !goes_on(m, worker) || worker.deadline == LEASE {
        return None;
    }
    worker.asking = Asking::Sent(0);
    Some(())
}

/// What an answer over the broker does, at once.
pub(crate) fn lease_granted(m: &Deployment, s: &mut State, w: Incarnation, age: u8) {
    let worker = &mut s.workers[usize::from(w)];
    if goes_on(m, worker) {
        worker.deadline = worker.deadline.max(LEASE - age);
    }
}

/// The same, when it was judged lost.
pub(crate) fn lease_refused(s: &mut State, w: Incarnation) {
    if s.workers[usize::from(w)].life != Life::Dead {
        revoked(s, w);
    }
}

pub(crate) fn lapse(m: &Deployment, s: &mut State, w: Incarnation) -> Option<()> {
    let i = usize::from(w);
    let worker = &s.workers[i];
    if worker.life != Life::Alive || worker.deadline > 0 || matches!(worker.job, Job::Live { .. }) {
        return None;
    }
    give_back(s, w);
    let worker = &mut s.workers[i];
    worker.job = match worker.job {
        Job::Held { dispatch, wish } => ended_before_its_time(dispatch, wish),
        job @ Job::Done { .. } => job,
        _ => Job::Idle,
    };
    if m.keeps(Rule::EndWithLease) {
        worker.life = Life::Leaving;
        worker.answer = None;
    }
    Some(())
}

fn ended_before_its_time(dispatch: Dispatch, wish: Wish) -> Job {
    let outcome = match wish {
        Wish::Cancel => Outcome::Cancelled,
        Wish::GoOn | Wish::Interrupt => Outcome::Requeued,
    };
    Job::Done { dispatch, outcome }
}

fn can_take(s: &mut State, w: Incarnation, dispatch: Dispatch) -> bool {
    let worker = &s.workers[usize::from(w)];
    worker.life == Life::Alive && worker.job == Job::Idle && s.broker.up && *s.copies(dispatch) > 0
}

pub(crate) fn take(
    m: &Deployment,
    s: &mut State,
    w: Incarnation,
    dispatch: Dispatch,
) -> Option<()> {
    if m.keeps(Rule::AckAfterClaim) || !can_take(s, w, dispatch) {
        return None;
    }
    *s.copies(dispatch) -= 1;
    s.workers[usize::from(w)].job = Job::Asked {
        dispatch,
        answer: Claim::Unasked,
        acked: true,
    };
    Some(())
}

pub(crate) fn claim(
    m: &Deployment,
    s: &mut State,
    w: Incarnation,
    dispatch: Dispatch,
) -> Option<()> {
    if !s.reaches_redis(w) {
        return None;
    }
    let job = s.workers[usize::from(w)].job;
    let acked = match job {
        Job::Asked {
            dispatch: asked,
            answer: Claim::Unasked,
            ..
        } if asked == dispatch => true,
        _ if m.keeps(Rule::AckAfterClaim) && can_take(s, w, dispatch) => {
            *s.copies(dispatch) -= 1;
            false
        }
        _ => return None,
    };
    let answer = claim_arrives(m, s, w, dispatch);
    s.workers[usize::from(w)].job = Job::Asked {
        dispatch,
        answer,
        acked,
    };
    Some(())
}

/// `claim.lua`, in its order.
fn claim_arrives(m: &Deployment, s: &mut State, w: Incarnation, dispatch: Dispatch) -> Claim {
    match s.record(dispatch) {
        Record::Sealed => return Claim::NotOurs,
        Record::Held { by, .. } | Record::Released { by } if m.keeps(Rule::ClaimOnce) => {
            return match by == w {
                true => Claim::Ours,
                false => Claim::NotOurs,
            };
        }
        _ => {}
    }
    let current = s.current(dispatch.ti) == dispatch;
    if s.epoch_of(dispatch) != s.redis.epoch && m.keeps(Rule::EpochOfClaims) {
        Claim::Bounce
    } else if s.redis.leases[usize::from(w)] != (Lease::Leased { current: true }) {
        Claim::NoLease
    } else if s.redis.late[usize::from(dispatch.ti)] && current {
        Claim::Bounce
    } else {
        s.set_record(
            dispatch,
            Record::Held {
                by: w,
                cancelled: false,
            },
        );
        Claim::Ours
    }
}

pub(crate) fn claim_answer(m: &Deployment, s: &mut State, w: Incarnation) -> Option<()> {
    let i = usize::from(w);
    let Job::Asked {
        dispatch,
        answer,
        acked,
    } = s.workers[i].job
    else {
        return None;
    };
    let mut job = Job::Idle;
    match answer {
        Claim::Unasked => return None,
        Claim::Ours => {
            let epoch = s.epoch_of(dispatch);
            let worker = &mut s.workers[i];
            let taken = &mut worker.taken[usize::from(dispatch.ti)];
            if *taken & (1 << dispatch.fence) == 0 || !m.keeps(Rule::RunOnce) {
                *taken |= 1 << dispatch.fence;
                job = Job::Held {
                    dispatch,
                    wish: Wish::GoOn,
                };
                if worker.epoch != epoch && m.keeps(Rule::RestoreAgain) {
                    worker.epoch = 0;
                }
            }
        }
        Claim::NotOurs => {}
        Claim::Bounce => {
            if !s.can_publish() {
                return None;
            }
            s.broker.events.push(Event::Bounced(dispatch));
        }
        Claim::NoLease => {
            if !acked {
                *s.copies(dispatch) += 1;
            }
        }
    }
    s.workers[i].job = job;
    Some(())
}

pub(crate) fn claim_answer_lost(s: &mut State, w: Incarnation) -> Option<()> {
    spend(&mut s.left.lost_answers)?;
    let Job::Asked { acked: false, .. } = s.workers[usize::from(w)].job else {
        return None;
    };
    give_back(s, w);
    Some(())
}

pub(crate) fn start(s: &mut State, w: Incarnation) -> Option<()> {
    let worker = &mut s.workers[usize::from(w)];
    let Job::Held { dispatch, wish } = worker.job else {
        return None;
    };
    if worker.life != Life::Alive {
        return None;
    }
    if wish != Wish::GoOn {
        worker.job = ended_before_its_time(dispatch, wish);
        return Some(());
    }
    // The guardian starts nothing once the deadline has come.
    if worker.deadline == 0 || worker.start.is_some() {
        return None;
    }
    worker.job = Job::Live { dispatch, wish };
    worker.start = Some(dispatch);
    if s.current(dispatch.ti) == dispatch {
        s.seen.ran |= 1 << dispatch.ti;
    }
    Some(())
}

pub(crate) fn exit(s: &mut State, w: Incarnation) -> Option<()> {
    let worker = &mut s.workers[usize::from(w)];
    let Job::Live { dispatch, wish } = worker.job else {
        return None;
    };
    worker.job = match (worker.life, wish) {
        (Life::Dead, _) => Job::Idle,
        (_, Wish::GoOn) => Job::Done {
            dispatch,
            outcome: Outcome::Success,
        },
        (_, wish) => ended_before_its_time(dispatch, wish),
    };
    Some(())
}

pub(crate) fn fail(s: &mut State, w: Incarnation) -> Option<()> {
    spend(&mut s.left.failures)?;
    let worker = &mut s.workers[usize::from(w)];
    let Job::Live {
        dispatch,
        wish: Wish::GoOn,
    } = worker.job
    else {
        return None;
    };
    worker.job = Job::Done {
        dispatch,
        outcome: Outcome::Failed,
    };
    Some(())
}

pub(crate) fn kill(m: &Deployment, s: &mut State, w: Incarnation) -> Option<()> {
    let worker = &mut s.workers[usize::from(w)];
    let Job::Live { dispatch, .. } = worker.job else {
        return None;
    };
    match worker.life {
        Life::Dead => worker.job = Job::Idle,
        _ if worker.deadline == 0 && m.keeps(Rule::KillAtDeadline) => {
            worker.job = Job::Done {
                dispatch,
                outcome: Outcome::Requeued,
            };
        }
        _ => return None,
    }
    Some(())
}

pub(crate) fn report_start(s: &mut State, w: Incarnation) -> Option<()> {
    if !s.can_publish() {
        return None;
    }
    let dispatch = s.workers[usize::from(w)].start.take()?;
    s.broker.events.push(Event::Started(dispatch, w));
    Some(())
}

fn publish_end(s: &mut State, w: Incarnation) -> Option<Dispatch> {
    let Job::Done { dispatch, outcome } = s.workers[usize::from(w)].job else {
        return None;
    };
    if !s.can_publish() {
        return None;
    }
    s.broker.events.push(Event::Ended(dispatch, w, outcome));
    Some(dispatch)
}

pub(crate) fn report_end(m: &Deployment, s: &mut State, w: Incarnation) -> Option<()> {
    let dispatch = match s.workers[usize::from(w)].job {
        // It is forgotten although nothing was confirmed.
        Job::Done { dispatch, .. } if !s.broker.up && !m.keeps(Rule::HeldUntilConfirmed) => {
            dispatch
        }
        _ => publish_end(s, w)?,
    };
    let worker = &mut s.workers[usize::from(w)];
    worker.job = Job::Idle;
    // A start that would go along is left out: the result tells it.
    if worker.start == Some(dispatch) {
        worker.start = None;
    }
    release(s, w, dispatch);
    Some(())
}

pub(crate) fn report_end_twice(s: &mut State, w: Incarnation) -> Option<()> {
    spend(&mut s.left.duplicates)?;
    publish_end(s, w).map(|_| ())
}

pub(crate) fn report_end_first(m: &Deployment, s: &mut State, w: Incarnation) -> Option<()> {
    spend(&mut s.left.duplicates)?;
    let start = s.workers[usize::from(w)].start?;
    report_end(m, s, w)?;
    s.workers[usize::from(w)].start = Some(start);
    Some(())
}

/// `release.lua`; what Redis does not hear of is collected as garbage in time.
fn release(s: &mut State, w: Incarnation, dispatch: Dispatch) {
    if let Record::Held { by, .. } = s.record(dispatch)
        && by == w
        && s.reaches_redis(w)
    {
        s.set_record(dispatch, Record::Released { by });
    }
}
