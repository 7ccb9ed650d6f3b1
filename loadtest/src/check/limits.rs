//! No limit is exceeded at any instant: a sweep over the attempts that the ledger saw alive.
//!
//! What counts is certain: an attempt counts from the record of its start to its last record. Between these two, in the
//! order of the ledger, its process was alive, and by the promise that slots are occupied until an attempt is proven dead it
//! held its slots.
//!
//! An attempt that was killed has no end in the ledger. When it died nobody saw; but its slots were held until it was
//! *proven* dead, and that moment is in the database: the ending of its record (`lost`, `requeued`), by the database's clock. So it
//! counts until the last record that was written before that, less [`DOUBT`] for the resolution of the ledger's clock.
//! This needs clocks that were not moved: if they were, it counts to its last sign of life only.
//!
//! Limits on runs are swept likewise: a run is running from its first attempt's start to its last one's end.

use super::{
    Evidence, Verdict,
    ledger::{Ledger, Live},
    rows::{Attempt, Rows},
};
use chrono::{DateTime, Utc};
use gristmill_common::invariant::Invariant;
use std::collections::HashMap;

/// Hundredths of a second.
const DOUBT: u64 = 3;

/// The limits that an attempt spends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    /// Position of its name.
    Pool(usize),
    /// Position of the run.
    ActiveTasks(usize),
    PerDag(String, i32),
    PerRun(usize, i32),
    Runs(String),
    /// A key that runs of a DAG share.
    SharedByRuns(String, String),
    /// A key that instances share.
    SharedByTasks(String),
    /// All of the deployment.
    Parallelism,
}

/// What spends limits, from one position in the ledger to another, both included.
#[derive(Debug)]
struct Span {
    start: usize,
    end: usize,
    /// Each with how much and the cap.
    spends: Vec<(Key, i64, i64)>,
    /// Position of the attempt; of a run, of its first.
    life: usize,
}

/// The wall clock's distance from the boot clock, on this machine, now.
pub(super) fn boot_to_wall() -> chrono::Duration {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let boot = chrono::Duration::seconds(boot.tv_sec) + chrono::Duration::nanoseconds(boot.tv_nsec);
    Utc::now().signed_duration_since(DateTime::UNIX_EPOCH) - boot
}

/// Sweeps. `boot_to_wall` is what to add to a time of the boot clock for one of the wall clock.
pub(super) fn check(
    evidence: &Evidence,
    ledger: &Ledger,
    located: &[Option<usize>],
    rows: &Rows,
    boot_to_wall: chrono::Duration,
    verdict: &mut Verdict,
) {
    let proof = |attempt: &Attempt| -> Option<u64> {
        let boot = attempt.ended_at.signed_duration_since(DateTime::UNIX_EPOCH) - boot_to_wall;
        let hundredths = u64::try_from(boot.num_milliseconds() / 10).ok()?;
        (!evidence.clocks_moved).then_some(hundredths.saturating_sub(DOUBT))
    };
    let keys = keys(rows);
    let mut spans = Vec::with_capacity(ledger.lives.len());
    let mut runs: HashMap<usize, Span> = HashMap::new();
    for (position, life) in ledger.lives.iter().enumerate() {
        let Some(instance) = located[life.instance] else {
            continue;
        };
        let end = end(ledger, life, instance, rows, proof);
        let run = rows.instances[instance].run;
        spans.push(Span {
            start: life.start,
            end,
            spends: spends(rows, instance, &keys),
            life: position,
        });
        let of_run = runs.entry(run).or_insert_with(|| Span {
            start: life.start,
            end,
            spends: run_spends(rows, run),
            life: position,
        });
        of_run.end = of_run.end.max(end);
    }
    spans.extend(runs.into_values());
    sweep(&mut spans, ledger, rows, verdict);
}

/// Until where in the ledger an attempt held its slots for certain.
fn end(
    ledger: &Ledger,
    life: &Live,
    instance: usize,
    rows: &Rows,
    proof: impl Fn(&Attempt) -> Option<u64>,
) -> usize {
    if life.code.is_some() {
        return life.last;
    }
    let attempts = rows.attempts_of(&rows.instances[instance]);
    let record = attempts.iter().find(|attempt| attempt.fence == life.fence);
    match record.and_then(proof) {
        Some(time) => ledger
            .first_not_before(time)
            .saturating_sub(1)
            .max(life.last),
        None => life.last,
    }
}

/// How many may hold each key of instances: where they say different numbers, the highest.
fn keys(rows: &Rows) -> HashMap<&str, i64> {
    let mut keys = HashMap::new();
    for (key, limit) in rows.instances.iter().filter_map(|i| i.shared.as_ref()) {
        let cap: &mut i64 = keys.entry(key.as_str()).or_default();
        *cap = (*cap).max(*limit);
    }
    keys
}

fn spends(rows: &Rows, instance: usize, keys: &HashMap<&str, i64>) -> Vec<(Key, i64, i64)> {
    let instance = &rows.instances[instance];
    let run = &rows.runs[instance.run];
    let mut spends = vec![(Key::ActiveTasks(instance.run), 1, run.max_active_tasks)];
    let pool = ("pool".to_owned(), rows.names[instance.pool].clone());
    if let Some(limit) = rows.limits.get(&pool).filter(|limit| limit.cap >= 0) {
        spends.push((Key::Pool(instance.pool), instance.pool_slots, limit.cap));
    }
    let parallelism = ("parallelism".to_owned(), "all".to_owned());
    if let Some(limit) = rows.limits.get(&parallelism) {
        spends.push((Key::Parallelism, 1, limit.cap));
    }
    if let Some((key, _)) = &instance.shared {
        let cap = keys.get(key.as_str()).copied().unwrap_or_default();
        spends.push((Key::SharedByTasks(key.clone()), 1, cap));
    }
    let task = rows.spec(run).and_then(|spec| spec.task(instance.task_idx));
    if let Some(task) = task {
        if let Some(cap) = task.max_active_tis_per_dag {
            let key = Key::PerDag(run.dag_id.clone(), instance.task_idx);
            spends.push((key, 1, i64::from(cap)));
        }
        if let Some(cap) = task.max_active_tis_per_dagrun {
            let key = Key::PerRun(instance.run, instance.task_idx);
            spends.push((key, 1, i64::from(cap)));
        }
    }
    spends
}

fn run_spends(rows: &Rows, run: usize) -> Vec<(Key, i64, i64)> {
    let run = &rows.runs[run];
    let mut spends = Vec::new();
    if let Some(limit) = rows.limits.get(&run.limit()).filter(|limit| limit.cap >= 0) {
        let whose = match run.backfill {
            Some(id) => format!("backfill {id}"),
            None => run.dag_id.clone(),
        };
        spends.push((Key::Runs(whose), 1, limit.cap));
    }
    // Rows of keys that nobody holds are deleted, so the limit is read where it was said.
    let shared = rows.spec(run).and_then(|spec| spec.concurrency.as_ref());
    if let Some(shared) = shared.filter(|_| !run.key.is_empty()) {
        let key = Key::SharedByRuns(run.dag_id.clone(), run.key.clone());
        spends.push((key, 1, i64::from(shared.limit)));
    }
    spends
}

/// Who holds how much of a limit at the moment.
#[derive(Debug, Default)]
struct Held {
    cap: i64,
    now: i64,
    most: i64,
    /// Spans.
    by: Vec<usize>,
}

fn sweep(spans: &mut [Span], ledger: &Ledger, rows: &Rows, verdict: &mut Verdict) {
    spans.sort_by_key(|span| span.start);
    let mut by_end: Vec<usize> = (0..spans.len()).collect();
    by_end.sort_by_key(|span| spans[*span].end);
    let mut ended = by_end.into_iter().peekable();
    let mut limits: HashMap<&Key, Held> = HashMap::new();
    for (position, span) in spans.iter().enumerate() {
        // A span that ends with a record holds while that record is written, and no longer.
        while let Some(over) = ended.next_if(|over| spans[*over].end < span.start) {
            for (key, n, _) in &spans[over].spends {
                if let Some(held) = limits.get_mut(key) {
                    held.now -= n;
                    held.by.retain(|by| *by != over);
                }
            }
        }
        for (key, n, cap) in &span.spends {
            let held = limits.entry(key).or_default();
            held.cap = *cap;
            held.now += n;
            held.by.push(position);
            held.most = held.most.max(held.now);
            if held.now > held.cap {
                let names: Vec<String> = held
                    .by
                    .iter()
                    .rev()
                    .take(6)
                    .map(|by| shown(ledger, &ledger.lives[spans[*by].life]))
                    .collect();
                let what = format!(
                    "{}: {} of {} used at record {} of the ledger, by {}{}",
                    describe(key, rows),
                    held.now,
                    held.cap,
                    span.start,
                    names.join(", "),
                    if held.by.len() > names.len() {
                        ", …"
                    } else {
                        ""
                    }
                );
                verdict.breach(Invariant::LimitsHold, what);
            }
        }
    }
    verdict.counted.limits = limits.len();
    for (key, held) in limits {
        // Limits of single runs are too many to be listed.
        if !matches!(key, Key::ActiveTasks(_) | Key::PerRun(..)) {
            let name = describe(key, rows);
            verdict.counted.fullest.insert(name, (held.most, held.cap));
        }
    }
}

fn shown(ledger: &Ledger, life: &Live) -> String {
    format!("{} (fence {})", ledger.name_of(life), life.fence)
}

fn describe(key: &Key, rows: &Rows) -> String {
    let task = |run: usize, idx: &i32| {
        let spec = rows.spec(&rows.runs[run]);
        spec.and_then(|spec| spec.task(*idx))
            .map_or_else(String::new, |task| task.task_id.clone())
    };
    match key {
        Key::Pool(name) => format!("pool {}", rows.names[*name]),
        Key::ActiveTasks(run) => format!("max_active_tasks of {}", rows.runs[*run]),
        Key::PerRun(run, idx) => format!(
            "max_active_tis_per_dagrun of {} {}",
            rows.runs[*run],
            task(*run, idx)
        ),
        Key::PerDag(dag, idx) => {
            let run = rows.runs.iter().position(|run| run.dag_id == *dag);
            let task = run.map_or_else(String::new, |run| task(run, idx));
            format!("max_active_tis_per_dag of {dag} {task}")
        }
        Key::Runs(dag) => format!("max_active_runs of {dag}"),
        Key::SharedByRuns(dag, key) => format!("concurrency of {dag} with the key {key:?}"),
        Key::SharedByTasks(key) => format!("concurrency of tasks with the key {key:?}"),
        Key::Parallelism => "parallelism".to_owned(),
    }
}
