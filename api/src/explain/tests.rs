use super::*;
use chrono::TimeDelta;
use gristmill_common::{
    ids::{Fence, RunPk, TiPk, VersionPk},
    limit::{LimitKey, QueueRate},
    row::{RunType, SharedKey},
    trigger_rule::Counters,
};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn limit(cap: i64, used: i64) -> Option<LimitRow> {
    Some(LimitRow {
        key: LimitKey::pool("p"),
        cap,
        used,
        paused: false,
        rate: None,
        include_deferred: false,
    })
}

/// A run that goes on, and in it a ready instance that fits everywhere.
fn facts() -> Facts {
    let run = RunRow {
        pk: RunPk(1),
        dag_id: "d".into(),
        run_id: "r".into(),
        version: VersionPk(1),
        state: RunState::Running,
        run_type: RunType::Manual,
        triggered_by: "cli".into(),
        backfill: None,
        logical_date: None,
        data_interval_start: None,
        data_interval_end: None,
        run_after: at(-60),
        queued_at: at(-60),
        started_at: Some(at(-50)),
        ended_at: None,
        conf: Default::default(),
        params: Default::default(),
        note: None,
        cancelled: false,
        stop_reason: None,
        clean_up: None,
        max_active_tasks: 16,
        active_tasks: 0,
        ready_tasks: 1,
        unfinished_tasks: 1,
        failed_leaves: 0,
        concurrency_key: None,
    };
    let ti = TiRow {
        pk: TiPk(1),
        run: RunPk(1),
        task_idx: 0,
        task_id: "t".into(),
        map_index: -1,
        state: TaskState::Scheduled,
        fence: Fence(1),
        try_number: 1,
        max_tries: 2,
        user_failures: 0,
        infra_losses: 0,
        attempt: None,
        epoch: 1,
        queue: "q".into(),
        pool: "p".into(),
        pool_slots: 2,
        priority_weight: 1,
        occupies: false,
        counters: Counters::default(),
        expanded_len: None,
        map_values: None,
        map_name: None,
        shared: None,
        scheduled_at: Some(at(-10)),
        queued_at: None,
        claim_by: None,
        started_at: None,
        ended_at: None,
        next_at: None,
        wait: None,
        then: None,
        worker: None,
        hostname: None,
        pid: None,
        exit_code: None,
        reason: None,
    };
    Facts {
        now: at(0),
        dag_paused: false,
        pause_reason: None,
        backfill_paused: false,
        run,
        task: serde_json::from_value(json!({ "task_id": "t", "noop": {} })).unwrap(),
        ti: Some(ti),
        upstreams: vec![],
        runs_limit: limit(16, 1),
        run_key: None,
        pool: limit(4, 0),
        task_limit: None,
        task_in_run_limit: None,
        key_used: 0,
        queue: limit(1000, 0),
        parallelism: (None, 3),
        workers: Ok(QueueWorkers {
            consumers: 1,
            slots: 4,
            free: 4,
        }),
        broker_ready: Ok(0),
        holder: None,
        lease: Some(true),
        scheduler_heard: Some(at(-1)),
    }
}

fn queued_run(f: &mut Facts) {
    f.run.state = RunState::Queued;
    f.ti = None;
}

fn state(f: &mut Facts, state: TaskState) -> &mut TiRow {
    let ti = f.ti.as_mut().unwrap();
    ti.state = state;
    ti
}

fn shared(strategy: Strategy) -> Option<SharedKey> {
    Some(SharedKey {
        key: "kim".into(),
        limit: 2,
        strategy,
    })
}

fn waits_for(f: &mut Facts, mut task: Value) {
    task["task_id"] = "t".into();
    f.task = serde_json::from_value(task).unwrap();
    state(f, TaskState::Deferred);
}

fn upstream(f: &mut Facts) {
    state(f, TaskState::None);
    let states = |list: &[(TaskState, usize)]| list.iter().copied().collect();
    f.upstreams = vec![
        Upstream {
            task_id: "done".into(),
            is_needed_setup: false,
            states: states(&[(TaskState::Success, 1)]),
        },
        Upstream {
            task_id: "wide".into(),
            is_needed_setup: false,
            states: states(&[(TaskState::Success, 5), (TaskState::Running, 2)]),
        },
        Upstream {
            task_id: "last".into(),
            is_needed_setup: false,
            states: states(&[(TaskState::None, 1)]),
        },
    ];
}

/// What is changed of the facts, the kind of reason that it gives, and words of the message.
type Case = (&'static str, fn(&mut Facts), &'static str, &'static str);

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("paused_dag", |f: &mut Facts| { queued_run(f); f.dag_paused = true }, "dag_paused", "d is paused"),
    ("failing_dag", |f: &mut Facts| { queued_run(f); f.dag_paused = true; f.pause_reason = Some("its last run failed".into()) }, "dag_paused", "because its last run failed"),
    ("paused_backfill", |f: &mut Facts| { queued_run(f); f.backfill_paused = true }, "backfill_paused", "backfill is paused"),
    ("backfill", |f: &mut Facts| { queued_run(f); f.run.backfill = Some(gristmill_common::ids::BackfillPk(3)); f.runs_limit = limit(2, 2) }, "backfill_max_active_runs", "2 of at most 2 runs of its backfill"),
    ("future", |f: &mut Facts| { queued_run(f); f.run.run_after = at(90) }, "run_after", "not start before"),
    ("runs", |f: &mut Facts| { queued_run(f); f.runs_limit = limit(2, 2) }, "max_active_runs", "2 of at most 2 runs"),
    ("concurrency", |f: &mut Facts| { queued_run(f); f.run_key = Some(LimitRow { key: LimitKey::RunKey { dag_id: "d".into(), key: "kim".into() }, ..limit(1, 1).unwrap() }) }, "concurrency", "1 of at most 1 runs of d with the key \"kim\""),
    ("never_started", |f: &mut Facts| { queued_run(f); f.run.state = RunState::Failed; f.run.stop_reason = Some("a newer run".into()) }, "run_stopped", "a newer run"),
    ("starting", |f: &mut Facts| queued_run(f), "ready", "about to start"),
    ("cleared_beside", |f: &mut Facts| { f.run.state = RunState::Queued; state(f, TaskState::Success).ended_at = Some(at(-9)) },
    "ended",
    "it has ended: success"),
    ("restarting", |f: &mut Facts| { let ti = state(f, TaskState::Restarting); ti.reason = Some("cleared by me".into()); ti.worker = Some("w1".into()) },
    "restarting",
    "cleared by me: worker w1 is stopping its process; then it runs anew"),
    ("upstreams", upstream,
    "upstream",
    "waits for wide (2 running, 5 success), last (not started) (trigger rule all_success)"),
    ("setup", |f: &mut Facts| { upstream(f); f.upstreams.remove(1); f.upstreams[1].is_needed_setup = true },
    "setup",
    "needs what is set up by last (not started), which has to succeed first"),
    ("decided", |f: &mut Facts| { state(f, TaskState::None); }, "ready", "upstreams have ended"),
    ("no_pool", |f: &mut Facts| f.pool = None, "pool_missing", "p does not exist"),
    ("full_pool", |f: &mut Facts| f.pool = limit(4, 3), "pool_full", "3 of 4 slots are taken, it needs 2"),
    ("small_pool", |f: &mut Facts| f.pool = limit(1, 0), "pool_full", "can never run"),
    ("active", |f: &mut Facts| f.run.active_tasks = 16, "max_active_tasks", "16 of at most 16"),
    ("per_dag", |f: &mut Facts| f.task_limit = limit(1, 1), "max_active_tis_per_dag", "all runs"),
    ("per_run", |f: &mut Facts| f.task_in_run_limit = limit(1, 1), "max_active_tis_per_dagrun", "this run"),
    ("paused_queue", |f: &mut Facts| f.queue.as_mut().unwrap().paused = true, "queue_paused", "q is paused"),
    ("backlog", |f: &mut Facts| f.queue = limit(1000, 1000), "queue_backlog", "1000 tasks wait"),
    ("no_worker", |f: &mut Facts| f.workers = Ok(QueueWorkers::default()), "no_worker", "no worker serves the queue q"),
    ("no_redis", |f: &mut Facts| f.workers = Err("refused".into()), "presence_away", "refused"),
    ("fits", |_: &mut Facts| {}, "ready", "fits every limit"),
    ("in_broker", |f: &mut Facts| { state(f, TaskState::Queued); f.broker_ready = Ok(7) }, "in_broker", "7 are ready; 4 of the workers' 4 slots"),
    ("outbox", |f: &mut Facts| { state(f, TaskState::Queued); f.broker_ready = Err("away".into()) }, "outbox", "broker is back: away"),
    ("claimed", |f: &mut Facts| { state(f, TaskState::Queued); f.holder = Some("w9".into()) }, "claimed", "w9"),
    ("running", |f: &mut Facts| state(f, TaskState::Running).hostname = Some("h1".into()), "running", "on h1, try 1"),
    ("retry", |f: &mut Facts| state(f, TaskState::UpForRetry).next_at = Some(at(30)), "retry_due", "try 2 is due at"),
    ("ended", |f: &mut Facts| state(f, TaskState::Failed).reason = Some("exit code 3".into()), "ended", "failed: exit code 3"),
    ("stopping", |f: &mut Facts| { state(f, TaskState::Running); f.run.stop_reason = Some("cancelled".into()) }, "run_stopping", "cancelled"),
    ("worker_lost", |f: &mut Facts| { state(f, TaskState::Running).worker = Some("w9".into()); f.lease = Some(false) }, "worker_lost", "w9 has lost its lease"),
    ("rate", |f: &mut Facts| f.queue.as_mut().unwrap().rate = QueueRate::read(Some(10), Some(1), Some(at(1)), at(0)), "rate_limit", "at most 10/s"),
    ("rate_with_tokens", |f: &mut Facts| f.queue.as_mut().unwrap().rate = QueueRate::read(Some(10), Some(1), None, at(0)), "ready", "fits every limit"),
    ("parallelism", |f: &mut Facts| f.parallelism = (Some(3), 3), "parallelism", "3 of at most 3 tasks of the whole deployment"),
    ("upstream_failed", |f: &mut Facts| state(f, TaskState::UpstreamFailed).reason = Some("trigger rule all_success: an upstream failed".into()), "upstream_failed", "an upstream failed"),
    ("rule", |f: &mut Facts| state(f, TaskState::Skipped).reason = Some("trigger rule one_success: it can no longer hold".into()), "trigger_rule", "can no longer hold"),
    ("cancelled", |f: &mut Facts| { state(f, TaskState::Skipped).reason = Some("cancelled by ann".into()); f.run.stop_reason = Some("cancelled by ann".into()) }, "run_stopped", "cancelled by ann"),
    ("given_up", |f: &mut Facts| { let ti = state(f, TaskState::Failed); ti.infra_losses = 3; ti.reason = Some("its worker died".into()) }, "given_up", "its worker died"),
    ("retry_now", |f: &mut Facts| state(f, TaskState::UpForRetry).next_at = Some(at(-1)), "retry_due", "try 2 is due now"),
    ("no_scheduler", |f: &mut Facts| { queued_run(f); f.dag_paused = true; f.scheduler_heard = None }, "dag_paused", "paused"),
    ("sensor_poke", |f: &mut Facts| { waits_for(f, json!({ "sensor": { "file": "a" } })); state(f, TaskState::UpForReschedule); }, "sensor_poke", "found nothing yet"),
    ("depends_on_past", |f: &mut Facts| { let ti = state(f, TaskState::None); ti.next_at = Some(at(9)); ti.reason = Some("in the run before, r0".into()) }, "depends_on_past", "in the run before, r0"),
    ("sensor_time", |f: &mut Facts| waits_for(f, json!({ "sensor": { "time": "12:00" } })), "sensor_time", "the sensor"),
    ("sensor_asset", |f: &mut Facts| waits_for(f, json!({ "sensor": { "asset": { "name": "o" } } })), "sensor_asset", "an asset"),
    ("sensor_dag", |f: &mut Facts| waits_for(f, json!({ "sensor": { "dag": { "dag_id": "o" } } })), "sensor_dag", "another DAG"),
    ("trigger_dag", |f: &mut Facts| waits_for(f, json!({ "trigger_dag": { "dag_id": "o" } })), "trigger_dag", "about to trigger a run of o"),
    ("triggered_run", |f: &mut Facts| {
    waits_for(f, json!({ "trigger_dag": { "dag_id": "o" } }));
    f.ti.as_mut().unwrap().wait = serde_json::from_value(json!({ "since": at(0) })).unwrap();
}, "triggered_run", "it "),
    ("approval", |f: &mut Facts| waits_for(f, json!({ "approval": { "who": ["ann"] } })), "approval", "an answer of ann"),
    ("waits_otherwise", |f: &mut Facts| { state(f, TaskState::Deferred).reason = Some("of something".into()) }, "waiting", "it is deferred: of something"),
    ("silent_scheduler", |f: &mut Facts| { f.scheduler_heard = Some(at(-31)); f.pool = None }, "no_scheduler", "no scheduler has reported since"),
    ("task_key", |f: &mut Facts| { f.ti.as_mut().unwrap().shared = shared(Strategy::Queue); f.key_used = 2 }, "task_concurrency", "2 of at most 2 task instances with the key \"kim\" are active"),
    ("task_key_skips", |f: &mut Facts| { f.ti.as_mut().unwrap().shared = shared(Strategy::CancelNew); f.key_used = 2 }, "task_concurrency", "about to be skipped"),
    ("task_key_stops", |f: &mut Facts| { f.ti.as_mut().unwrap().shared = shared(Strategy::CancelRunning); f.key_used = 2 }, "task_concurrency", "has to make way"),
    ("task_key_with_room", |f: &mut Facts| { f.ti.as_mut().unwrap().shared = shared(Strategy::Queue); f.key_used = 1 }, "ready", "fits every limit"),
    ("pool_without_end", |f: &mut Facts| f.pool = limit(-1, 500), "ready", "fits every limit"),
    ("pool_with_waits", |f: &mut Facts| {
        waits_for(f, json!({ "approval": { "who": ["ann"] } }));
        f.pool = limit(4, 3);
        f.pool.as_mut().unwrap().include_deferred = true;
    }, "pool_full", "those of what waits included"),
    ("pool_without_waits", |f: &mut Facts| { waits_for(f, json!({ "approval": { "who": ["ann"] } })); f.pool = limit(4, 3) }, "approval", "an answer of ann"),
];

#[test]
fn each_reason_is_told() {
    for (name, change, kind, words) in CASES {
        let mut facts = facts();
        change(&mut facts);
        let found = reasons(&facts);
        // A silent scheduler is told beside what is waited for; everything else comes first.
        let told = match *kind {
            "no_scheduler" => found.last(),
            _ => found.first(),
        };
        let told = told.unwrap_or_else(|| panic!("{name}: no reason"));
        assert_eq!(told["kind"], *kind, "{name}: {found:?}");
        let message = told["message"].as_str().unwrap();
        assert!(message.contains(words), "{name}: {message}");
    }
}

/// Each kind has a case above, and a line in the docs; there is no other.
#[test]
fn every_kind_is_covered() {
    use std::collections::BTreeSet;
    let kinds: BTreeSet<&str> = KINDS.iter().copied().collect();
    assert_eq!(kinds.len(), KINDS.len(), "a kind stands twice");
    let covered: BTreeSet<&str> = CASES.iter().map(|(_, _, kind, _)| *kind).collect();
    assert_eq!(covered, kinds);
    let page = include_str!("../../../docs/explain.md");
    let listed: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(listed, kinds);
    for source in [include_str!("../explain.rs"), include_str!("waits.rs")] {
        let adds = source.split("found.add(").skip(1);
        for literal in adds.filter_map(|call| call.trim_start().strip_prefix('"')) {
            let kind = literal.split('"').next().unwrap();
            assert!(kinds.contains(kind), "{kind} is not listed");
        }
    }
}

#[test]
fn all_that_holds_is_told() {
    let mut facts = facts();
    facts.pool = limit(1, 1);
    facts.run.active_tasks = 16;
    facts.workers = Ok(QueueWorkers::default());
    facts.scheduler_heard = Some(at(0) - TimeDelta::seconds(31));
    let kinds: Vec<Value> = reasons(&facts)
        .into_iter()
        .map(|r| r["kind"].clone())
        .collect();
    assert_eq!(
        kinds,
        ["pool_full", "max_active_tasks", "no_worker", "no_scheduler"]
    );
}

#[test]
fn a_task_without_a_worker_needs_none() {
    let mut facts = facts();
    facts.task = serde_json::from_value(json!({ "task_id": "t", "empty": {} })).unwrap();
    facts.workers = Ok(QueueWorkers::default());
    assert_eq!(reasons(&facts)[0]["kind"], "ready");
}
