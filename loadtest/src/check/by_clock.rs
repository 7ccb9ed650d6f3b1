//! Limits that the ledger does not tell of: rates of queues, and what waits in pools without a worker. Both are read off the
//! database's own times, so clocks that were moved leave them unchecked.
//!
//! A rate is exact: the time of a dispatch is that by which its token was taken. A transaction that begins or ends a wait, or
//! dispatches, has its time from before it had its locks, so a wait counts from [`LOCKS`] after its beginning to [`LOCKS`] before its
//! end: in between it held its slots for certain. The processes beside it are those of the ledger.

use super::{
    Verdict,
    ledger::Ledger,
    rows::{Instance, Rows},
};
use chrono::{DateTime, TimeDelta, Utc};
use gristmill_common::invariant::Invariant;
use std::collections::BTreeMap;

/// Longer than a transaction waits for its locks.
const LOCKS: TimeDelta = TimeDelta::seconds(2);
/// The resolution of the ledger's clock, and what lies between reading it and writing the record.
const LEDGER: TimeDelta = TimeDelta::milliseconds(30);

/// No queue gave out more than its rate.
pub(super) fn rates(rows: &Rows, verdict: &mut Verdict) {
    let mut by_queue: BTreeMap<usize, Vec<DateTime<Utc>>> = BTreeMap::new();
    for instance in &rows.instances {
        let at = instance.queued_at.filter(|_| instance.fence > 0);
        by_queue.entry(instance.queue).or_default().extend(at);
    }
    for (queue, mut times) in by_queue {
        let name = &rows.names[queue];
        let limit = rows.limits.get(&("queue".to_owned(), name.clone()));
        let Some((count, seconds)) = limit.and_then(|limit| limit.rate) else {
            continue;
        };
        times.sort_unstable();
        // A bucket of `count` tokens; it is full again at `full`. Microseconds.
        let (size, mut full, mut most) = (seconds * 1_000_000, i64::MIN, 0);
        for at in &times {
            let at = at.timestamp_micros();
            full = full.max(at) + size / count;
            let taken = ((full - at) * count + size - 1) / size;
            most = most.max(taken);
            // What was cut off by the division.
            if full - at > size {
                let what = format!(
                    "rate of queue {name}: {taken} of {count} tokens were taken at {}",
                    DateTime::from_timestamp_micros(at).unwrap_or_default()
                );
                verdict.breach(Invariant::LimitsHold, what);
            }
        }
        let name = format!("rate of queue {name}");
        verdict.counted.limits += 1;
        verdict.counted.fullest.insert(name, (most, count));
    }
}

/// What held slots of a pool, and when for certain.
struct Hold {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    slots: i64,
    what: String,
}

/// No pool in which waits count held more than its slots.
pub(super) fn waits(
    ledger: &Ledger,
    located: &[Option<usize>],
    rows: &Rows,
    boot_to_wall: TimeDelta,
    verdict: &mut Verdict,
) {
    let mut by_pool: BTreeMap<usize, Vec<Hold>> = BTreeMap::new();
    let counts = |instance: &Instance| {
        let key = ("pool".to_owned(), rows.names[instance.pool].clone());
        let limit = rows.limits.get(&key);
        limit.is_some_and(|limit| limit.include_deferred && limit.cap >= 0)
    };
    for instance in rows.instances.iter().filter(|instance| counts(instance)) {
        let spec = rows.spec(&rows.runs[instance.run]);
        let task = spec.and_then(|spec| spec.task(instance.task_idx));
        if !task.is_some_and(|task| task.kind.is_deferred()) {
            continue;
        }
        for attempt in rows.attempts_of(instance) {
            let Some(begun) = attempt.started_at else {
                continue;
            };
            by_pool.entry(instance.pool).or_default().push(Hold {
                from: begun + LOCKS,
                to: attempt.ended_at - LOCKS,
                slots: instance.pool_slots,
                what: format!("{} (waiting)", rows.name(instance)),
            });
        }
    }
    for life in &ledger.lives {
        let Some(instance) = located[life.instance].map(|at| &rows.instances[at]) else {
            continue;
        };
        if !counts(instance) {
            continue;
        }
        let wall = |record: usize| {
            let boot = i64::try_from(ledger.times[record]).unwrap_or(i64::MAX / 100) * 10;
            DateTime::UNIX_EPOCH + TimeDelta::milliseconds(boot) + boot_to_wall
        };
        by_pool.entry(instance.pool).or_default().push(Hold {
            from: wall(life.start) + LEDGER,
            to: wall(life.last) - LEDGER,
            slots: instance.pool_slots,
            what: ledger.name_of(life).to_string(),
        });
    }
    for (pool, mut holds) in by_pool {
        let name = rows.names[pool].clone();
        let cap = rows
            .limits
            .get(&("pool".to_owned(), name.clone()))
            .map_or(-1, |limit| limit.cap);
        holds.retain(|hold| hold.from < hold.to);
        holds.sort_by_key(|hold| hold.from);
        let mut held: Vec<&Hold> = Vec::new();
        let mut most = 0;
        for hold in &holds {
            held.retain(|other| other.to >= hold.from);
            held.push(hold);
            let slots: i64 = held.iter().map(|hold| hold.slots).sum();
            most = most.max(slots);
            if slots > cap {
                let by: Vec<&str> = held.iter().rev().take(6).map(|h| h.what.as_str()).collect();
                let what = format!(
                    "pool {name} with what waits: {slots} of {cap} used at {}, by {}",
                    hold.from,
                    by.join(", ")
                );
                verdict.breach(Invariant::LimitsHold, what);
            }
        }
        let name = format!("pool {name} with what waits");
        verdict.counted.limits += 1;
        verdict.counted.fullest.insert(name, (most, cap));
    }
}
