//! Why a task instance is not running: which limit, dependency, queue or missing worker it waits for.
//!
//! [`reasons`] is pure: everything it says comes from the [`Facts`] it is given.

mod waits;

use chrono::{DateTime, Utc};
use gristmill_common::{
    limit::{LimitKey, LimitRow},
    retry::MAX_INFRA_LOSSES,
    row::{RunRow, TiRow},
    spec::{Strategy, TaskSpec},
    state::{RunState, TaskState},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// An upstream task, and how many of its instances are in each state.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Upstream {
    pub(crate) task_id: String,
    /// A setup that the task needs, and depends on through others only.
    pub(crate) is_needed_setup: bool,
    pub(crate) states: BTreeMap<TaskState, usize>,
}

impl Upstream {
    fn has_ended(&self) -> bool {
        !self.states.is_empty() && self.states.keys().all(|state| state.is_finished())
    }
}

/// The workers of the instance's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct QueueWorkers {
    pub(crate) consumers: u64,
    pub(crate) slots: u64,
    pub(crate) free: u64,
}

/// What is known about one instance and all that it may wait for.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) now: DateTime<Utc>,
    pub(crate) dag_paused: bool,
    /// Why, if not a user paused it.
    pub(crate) pause_reason: Option<String>,
    /// The run belongs to a backfill that is paused.
    pub(crate) backfill_paused: bool,
    pub(crate) run: RunRow,
    pub(crate) task: TaskSpec,
    /// Absent before the run has started.
    pub(crate) ti: Option<TiRow>,
    pub(crate) upstreams: Vec<Upstream>,
    /// `max_active_runs` of the DAG, or of the run's backfill.
    pub(crate) runs_limit: Option<LimitRow>,
    /// The limit that its run shares with others of the same key (`concurrency`).
    pub(crate) run_key: Option<LimitRow>,
    /// With what waits in it, if that counts.
    pub(crate) pool: Option<LimitRow>,
    pub(crate) task_limit: Option<LimitRow>,
    pub(crate) task_in_run_limit: Option<LimitRow>,
    /// How many hold the key that it shares (`concurrency` of the task).
    pub(crate) key_used: i64,
    pub(crate) queue: Option<LimitRow>,
    /// What the whole deployment may have active (absent: no limit), and has.
    pub(crate) parallelism: (Option<i64>, i64),
    /// Or why presence does not tell.
    pub(crate) workers: Result<QueueWorkers, String>,
    /// Messages ready in the instance's queue, or why the broker does not tell.
    pub(crate) broker_ready: Result<u64, String>,
    /// The worker that has claimed the dispatch.
    pub(crate) holder: Option<String>,
    /// Whether the worker that runs it still has a lease; absent: nobody knows.
    pub(crate) lease: Option<bool>,
    /// When a scheduler was last heard of.
    pub(crate) scheduler_heard: Option<DateTime<Utc>>,
}

/// A scheduler that was silent for this long is probably dead.
const SCHEDULER_SILENCE: chrono::TimeDelta = chrono::TimeDelta::seconds(30);

/// Every kind of reason: docs/explain.md tells of each.
#[cfg(test)]
const KINDS: &[&str] = &[
    "dag_paused",
    "run_after",
    "max_active_runs",
    "backfill_paused",
    "backfill_max_active_runs",
    "concurrency",
    "run_stopping",
    "ready",
    "no_scheduler",
    "upstream",
    "depends_on_past",
    "pool_missing",
    "pool_full",
    "max_active_tasks",
    "max_active_tis_per_dag",
    "max_active_tis_per_dagrun",
    "task_concurrency",
    "parallelism",
    "queue_paused",
    "queue_backlog",
    "rate_limit",
    "presence_away",
    "no_worker",
    "in_broker",
    "outbox",
    "claimed",
    "running",
    "worker_lost",
    "restarting",
    "retry_due",
    "sensor_poke",
    "sensor_time",
    "setup",
    "sensor_asset",
    "sensor_dag",
    "trigger_dag",
    "triggered_run",
    "approval",
    "waiting",
    "ended",
    "trigger_rule",
    "upstream_failed",
    "run_stopped",
    "given_up",
];

/// Every reason that holds, the most important first. Never empty.
pub(crate) fn reasons(facts: &Facts) -> Vec<Value> {
    let mut found = Found(Vec::new());
    let ended = facts.ti.as_ref().is_some_and(|ti| ti.state.is_finished());
    let over = ended || facts.run.state.is_finished();
    if let (Some(why), false) = (&facts.run.stop_reason, over) {
        found.add(
            "run_stopping",
            format!("the run is being stopped: {why}"),
            json!({}),
        );
    }
    match (&facts.ti, facts.run.state) {
        // A run that was cleared in part waits for its start, but not what has ended in it.
        (Some(ti), RunState::Queued) if ti.state.is_finished() => has_ended(facts, ti, &mut found),
        (None, state) if state.is_finished() => {
            let why = facts.run.stop_reason.as_deref().unwrap_or("it is over");
            found.add(
                "run_stopped",
                format!("its run ended before it had started: {why}"),
                json!({ "at": facts.run.ended_at }),
            );
            return found.0;
        }
        (None, _) | (_, RunState::Queued) => run_not_started(facts, &mut found),
        (Some(ti), _) => match ti.state {
            TaskState::None if ti.waits_for_past() => waits::past(ti, &mut found),
            TaskState::None => upstreams(facts, &mut found),
            TaskState::Scheduled => limits(facts, ti, &mut found),
            TaskState::Queued => queued(facts, ti, &mut found),
            TaskState::Running => running(facts, ti, &mut found),
            TaskState::UpForRetry => retry(facts, ti, &mut found),
            TaskState::UpForReschedule | TaskState::Deferred | TaskState::AwaitingInput => {
                waits::waiting(facts, ti, &mut found);
            }
            TaskState::Restarting => restarting(ti, &mut found),
            state if state.is_finished() => has_ended(facts, ti, &mut found),
            state => found.add("waiting", format!("it is {state}"), json!({})),
        },
    }
    if !ended && !matches!(&facts.ti, Some(ti) if ti.state.is_dispatched()) {
        scheduler(facts, &mut found);
    }
    found.0
}

/// Why it ended as it did: by itself, by its trigger rule, because of its run, or because its workers died one after the other.
fn ended_kind(facts: &Facts, ti: &TiRow) -> &'static str {
    let never_ran = ti.started_at.is_none();
    let by_rule = ti
        .reason
        .as_deref()
        .is_some_and(|why| why.starts_with("trigger rule "));
    match ti.state {
        TaskState::Success => "ended",
        TaskState::UpstreamFailed => "upstream_failed",
        TaskState::Failed if ti.infra_losses >= MAX_INFRA_LOSSES => "given_up",
        _ if by_rule => "trigger_rule",
        _ if facts.run.stop_reason.is_some()
            && (never_ran || facts.run.stop_reason == ti.reason) =>
        {
            "run_stopped"
        }
        _ => "ended",
    }
}

#[derive(Debug)]
struct Found(Vec<Value>);

impl Found {
    fn add(&mut self, kind: &str, message: impl Into<String>, facts: Value) {
        let mut reason = json!({ "kind": kind, "message": message.into() });
        if let (Some(reason), Value::Object(facts)) = (reason.as_object_mut(), facts) {
            reason.extend(facts);
        }
        self.0.push(reason);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn has_ended(facts: &Facts, ti: &TiRow, found: &mut Found) {
    let why = ti
        .reason
        .as_ref()
        .map_or_else(String::new, |why| format!(": {why}"));
    found.add(
        ended_kind(facts, ti),
        format!("it has ended: {}{why}", ti.state),
        json!({ "at": ti.ended_at, "state": ti.state }),
    );
}

/// It was cleared or marked while its dispatch was out.
fn restarting(ti: &TiRow, found: &mut Found) {
    let why = ti.reason.as_deref().unwrap_or("it was cleared");
    let then = ti.then.map_or_else(
        || "then it runs anew".to_owned(),
        |state| format!("then it is {state}"),
    );
    let by = match &ti.worker {
        Some(worker) => format!("worker {worker} is stopping its process"),
        None => "its dispatch is being taken back".to_owned(),
    };
    found.add(
        "restarting",
        format!("{why}: {by}; {then}"),
        json!({ "worker": ti.worker }),
    );
}

fn run_not_started(facts: &Facts, found: &mut Found) {
    let run = &facts.run;
    if facts.dag_paused {
        found.add(
            "dag_paused",
            match &facts.pause_reason {
                None => format!(
                    "the DAG {} is paused: its queued runs do not start",
                    run.dag_id
                ),
                Some(why) => format!(
                    "the DAG {} is paused, because {why}: its queued runs do not start until it is unpaused",
                    run.dag_id
                ),
            },
            json!({ "dag_id": run.dag_id, "reason": facts.pause_reason }),
        );
    }
    if facts.backfill_paused {
        found.add(
            "backfill_paused",
            "its backfill is paused: its queued runs do not start".to_owned(),
            json!({ "backfill_id": run.backfill }),
        );
    }
    if run.run_after > facts.now {
        found.add(
            "run_after",
            format!("the run does not start before {}", run.run_after),
            json!({ "run_after": run.run_after }),
        );
    }
    if let Some(limit) = facts.runs_limit.as_ref().filter(|limit| limit.free() == 0) {
        let (reason, whose) = match run.backfill {
            Some(_) => ("backfill_max_active_runs", "its backfill".to_owned()),
            None => ("max_active_runs", run.dag_id.clone()),
        };
        let message = format!(
            "{} of at most {} runs of {whose} are running (max_active_runs)",
            limit.used, limit.cap
        );
        found.add(
            reason,
            message,
            json!({ "used": limit.used, "cap": limit.cap }),
        );
    }
    if let Some(limit) = facts.run_key.as_ref().filter(|limit| limit.free() == 0)
        && let LimitKey::RunKey { key, .. } = &limit.key
    {
        let message = format!(
            "{} of at most {} runs of {} with the key {key:?} are running (concurrency)",
            limit.used, limit.cap, run.dag_id
        );
        let facts = json!({ "key": key, "used": limit.used, "cap": limit.cap });
        found.add("concurrency", message, facts);
    }
    if found.is_empty() {
        found.add(
            "ready",
            "the run is about to start: it waits for a scheduler",
            json!({}),
        );
    }
}

fn upstreams(facts: &Facts, found: &mut Found) {
    let waiting = facts.upstreams.iter().filter(|u| !u.has_ended());
    let (setups, waiting): (Vec<&Upstream>, Vec<&Upstream>) =
        waiting.partition(|upstream| upstream.is_needed_setup);
    if waiting.is_empty() && setups.is_empty() {
        found.add(
            "ready",
            "its upstreams have ended; a scheduler is about to decide on it",
            json!({}),
        );
        return;
    }
    let names = |upstreams: &[&Upstream]| -> String {
        let names: Vec<String> = upstreams
            .iter()
            .map(|upstream| describe(upstream))
            .collect();
        names.join(", ")
    };
    let with_states = |upstreams: &[&Upstream]| -> Vec<Value> {
        let of = |upstream: &&Upstream| {
            let states = upstream.states.iter();
            let states: BTreeMap<&str, usize> = states.map(|(s, n)| (s.as_str(), *n)).collect();
            json!({ "task_id": upstream.task_id, "states": states })
        };
        upstreams.iter().map(of).collect()
    };
    if !waiting.is_empty() {
        let rule = facts.task.trigger_rule.as_str();
        found.add(
            "upstream",
            format!("waits for {} (trigger rule {rule})", names(&waiting)),
            json!({ "trigger_rule": rule, "upstreams": with_states(&waiting) }),
        );
    }
    if !setups.is_empty() {
        found.add(
            "setup",
            format!(
                "needs what is set up by {}, which has to succeed first",
                names(&setups)
            ),
            json!({ "setups": with_states(&setups) }),
        );
    }
}

fn describe(upstream: &Upstream) -> String {
    let states: Vec<String> = upstream
        .states
        .iter()
        .map(|(state, n)| match (state, n) {
            (TaskState::None, 1) => "not started".to_owned(),
            (TaskState::None, n) => format!("{n} not started"),
            (state, 1) => state.to_string(),
            (state, n) => format!("{n} {state}"),
        })
        .collect();
    format!("{} ({})", upstream.task_id, states.join(", "))
}

/// What its pool has no room for.
fn pool(facts: &Facts, ti: &TiRow, found: &mut Found) {
    let slots = i64::from(ti.pool_slots);
    match &facts.pool {
        None => found.add(
            "pool_missing",
            format!("the pool {} does not exist; create it", ti.pool),
            json!({ "pool": ti.pool }),
        ),
        Some(pool) if pool.cap >= 0 && pool.cap < slots => {
            let message = format!(
                "it needs {slots} slots of the pool {}, which has only {}: it can never run",
                ti.pool, pool.cap
            );
            found.add("pool_full", message, full(pool, slots));
        }
        Some(pool) if pool.free() < slots => {
            let waits = match pool.include_deferred {
                true => ", those of what waits included",
                false => "",
            };
            let message = format!(
                "the pool {} is full: {} of {} slots are taken{waits}, it needs {slots}",
                ti.pool, pool.used, pool.cap
            );
            found.add("pool_full", message, full(pool, slots));
        }
        Some(_) => {}
    }
}

fn limits(facts: &Facts, ti: &TiRow, found: &mut Found) {
    let run = &facts.run;
    pool(facts, ti, found);
    if run.active_tasks >= run.max_active_tasks {
        let message = format!(
            "{} of at most {} tasks of the run are active (max_active_tasks)",
            run.active_tasks, run.max_active_tasks
        );
        found.add(
            "max_active_tasks",
            message,
            json!({ "used": run.active_tasks, "cap": run.max_active_tasks }),
        );
    }
    for (kind, limit, scope) in [
        ("max_active_tis_per_dag", &facts.task_limit, "all runs"),
        (
            "max_active_tis_per_dagrun",
            &facts.task_in_run_limit,
            "this run",
        ),
    ] {
        if let Some(limit) = limit.as_ref().filter(|limit| limit.free() == 0) {
            let message = format!(
                "{} of at most {} instances of {} are active in {scope} ({kind})",
                limit.used, limit.cap, ti.task_id
            );
            found.add(kind, message, full(limit, 1));
        }
    }
    if let Some(shared) = &ti.shared
        && facts.key_used >= i64::from(shared.limit)
    {
        let then = match shared.strategy {
            Strategy::Queue => "",
            Strategy::CancelNew => "; it is about to be skipped (cancel_new)",
            Strategy::CancelRunning => "; the oldest of its DAG has to make way (cancel_running)",
        };
        let message = format!(
            "{} of at most {} task instances with the key {:?} are active (concurrency){then}",
            facts.key_used, shared.limit, shared.key
        );
        let facts = json!({ "key": shared.key, "used": facts.key_used, "cap": shared.limit });
        found.add("task_concurrency", message, facts);
    }
    match &facts.queue {
        Some(queue) if queue.paused => {
            found.add(
                "queue_paused",
                format!("the queue {} is paused", ti.queue),
                json!({ "queue": ti.queue }),
            );
        }
        Some(queue) if queue.room() == 0 => {
            let message = format!(
                "{} tasks wait in the queue {} for workers already, at most {} are published ahead; priority decides who is next",
                queue.used, ti.queue, queue.cap
            );
            found.add("queue_backlog", message, full(queue, 1));
        }
        Some(queue) if queue.free() == 0 => {
            let rate = queue
                .rate
                .map_or_else(String::new, |rate| rate.limit.to_string());
            let message = format!(
                "the queue {} starts at most {rate}, and has done so (gristmill queues rate-limit)",
                ti.queue
            );
            let facts = json!({ "queue": ti.queue, "rate_limit": rate });
            found.add("rate_limit", message, facts);
        }
        _ => {}
    }
    if let (Some(cap), active) = facts.parallelism
        && active >= cap
    {
        let message = format!(
            "{active} of at most {cap} tasks of the whole deployment are active (gristmill parallelism)"
        );
        let facts = json!({ "used": active, "cap": cap });
        found.add("parallelism", message, facts);
    }
    no_worker(facts, ti, found);
    if let Err(why) = &facts.workers {
        found.add(
            "presence_away",
            format!("nothing is dispatched while Redis is away: {why}"),
            json!({}),
        );
    }
    if found.is_empty() {
        found.add(
            "ready",
            "it fits every limit: a scheduler is about to dispatch it",
            json!({}),
        );
    }
}

fn full(limit: &LimitRow, needed: i64) -> Value {
    json!({ "used": limit.used, "cap": limit.cap, "needed": needed })
}

fn no_worker(facts: &Facts, ti: &TiRow, found: &mut Found) {
    if !facts.task.kind.needs_worker() {
        return;
    }
    match &facts.workers {
        Ok(workers) if workers.consumers == 0 => {
            let message = format!(
                "no worker serves the queue {}; start one with --queues {}",
                ti.queue, ti.queue
            );
            found.add("no_worker", message, json!({ "queue": ti.queue }));
        }
        _ => {}
    }
}

fn queued(facts: &Facts, ti: &TiRow, found: &mut Found) {
    if let Some(worker) = &facts.holder {
        found.add(
            "claimed",
            format!("worker {worker} has claimed it and is about to start it"),
            json!({ "worker": worker }),
        );
        return;
    }
    no_worker(facts, ti, found);
    match (&facts.broker_ready, &facts.workers) {
        (Err(why), _) => found.add(
            "outbox",
            format!("its message waits until the broker is back: {why}"),
            json!({ "queue": ti.queue }),
        ),
        (Ok(ready), workers) => {
            // Pokes take no slots of the workers.
            let (slots, free) = match workers {
                Ok(w) if !facts.task.kind.pokes() => (Some(w.slots), Some(w.free)),
                _ => (None, None),
            };
            let busy = match (slots, free) {
                (Some(slots), Some(free)) => {
                    format!("; {free} of the workers' {slots} slots are free")
                }
                _ => String::new(),
            };
            let message = format!(
                "its message waits for a worker in the queue {}, where {ready} are ready{busy}",
                ti.queue
            );
            let facts = json!({ "queue": ti.queue, "ready": ready, "slots": slots, "free_slots": free, "since": ti.queued_at, "claim_by": ti.claim_by });
            found.add("in_broker", message, facts);
        }
    }
}

fn running(facts: &Facts, ti: &TiRow, found: &mut Found) {
    if facts.lease == Some(false) {
        let worker = ti.worker.as_deref().unwrap_or("it ran on");
        let message = format!(
            "worker {worker} has lost its lease; once it is proven dead the task goes out again, and until then it keeps its slots"
        );
        let facts = json!({ "worker": ti.worker, "hostname": ti.hostname, "since": ti.started_at });
        found.add("worker_lost", message, facts);
        return;
    }
    let place = match (&ti.hostname, &ti.worker) {
        (Some(host), _) => format!(" on {host}"),
        (None, Some(worker)) => format!(" on worker {worker}"),
        (None, None) => String::new(),
    };
    let facts = json!({ "hostname": ti.hostname, "worker": ti.worker, "pid": ti.pid, "since": ti.started_at });
    found.add(
        "running",
        format!("it is running{place}, try {}", ti.try_number),
        facts,
    );
}

fn retry(facts: &Facts, ti: &TiRow, found: &mut Found) {
    let why = ti
        .reason
        .as_ref()
        .map_or_else(String::new, |why| format!("; the last try: {why}"));
    let message = match ti.next_at {
        Some(at) if at > facts.now => format!("try {} is due at {at}{why}", ti.try_number + 1),
        _ => format!("try {} is due now{why}", ti.try_number + 1),
    };
    let facts = json!({ "at": ti.next_at, "try_number": ti.try_number, "max_tries": ti.max_tries });
    found.add("retry_due", message, facts);
}

fn scheduler(facts: &Facts, found: &mut Found) {
    let silent = match facts.scheduler_heard {
        None => "no scheduler has ever reported; start one".to_owned(),
        Some(at) if facts.now - at > SCHEDULER_SILENCE => {
            format!("no scheduler has reported since {at}")
        }
        Some(_) => return,
    };
    found.add(
        "no_scheduler",
        silent,
        json!({ "last_heartbeat": facts.scheduler_heard }),
    );
}

#[cfg(test)]
#[path = "explain/tests.rs"]
mod tests;
