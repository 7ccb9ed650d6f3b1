use super::*;
use chrono::TimeDelta;
use gristmill_common::{
    ids::{Fence, RunPk, TiPk, VersionPk},
    limit::{LimitKey, QueueRate},
    row::RunType,
    trigger_rule::Counters,
};
use rstest::rstest;

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
            states: states(&[(TaskState::Success, 1)]),
        },
        Upstream {
            task_id: "wide".into(),
            states: states(&[(TaskState::Success, 5), (TaskState::Running, 2)]),
        },
        Upstream {
            task_id: "last".into(),
            states: states(&[(TaskState::None, 1)]),
        },
    ];
}

#[rstest]
#[case::paused_dag(|f: &mut Facts| { queued_run(f); f.dag_paused = true }, "dag_paused", "d is paused")]
#[case::failing_dag(|f: &mut Facts| { queued_run(f); f.dag_paused = true; f.pause_reason = Some("its last run failed".into()) }, "dag_paused", "because its last run failed")]
#[case::paused_backfill(|f: &mut Facts| { queued_run(f); f.backfill_paused = true }, "backfill_paused", "backfill is paused")]
#[case::backfill(|f: &mut Facts| { queued_run(f); f.run.backfill = Some(gristmill_common::ids::BackfillPk(3)); f.runs_limit = limit(2, 2) }, "backfill_max_active_runs", "2 of at most 2 runs of its backfill")]
#[case::future(|f: &mut Facts| { queued_run(f); f.run.run_after = at(90) }, "run_after", "not start before")]
#[case::runs(|f: &mut Facts| { queued_run(f); f.runs_limit = limit(2, 2) }, "max_active_runs", "2 of at most 2 runs")]
#[case::concurrency(|f: &mut Facts| { queued_run(f); f.run_key = Some(LimitRow { key: LimitKey::RunKey { dag_id: "d".into(), key: "kim".into() }, ..limit(1, 1).unwrap() }) }, "concurrency", "1 of at most 1 runs of d with the key \"kim\"")]
#[case::never_started(|f: &mut Facts| { queued_run(f); f.run.state = RunState::Failed; f.run.stop_reason = Some("a newer run".into()) }, "run_stopped", "a newer run")]
#[case::starting(|f: &mut Facts| queued_run(f), "ready", "about to start")]
#[case::cleared_beside(
    |f: &mut Facts| { f.run.state = RunState::Queued; state(f, TaskState::Success).ended_at = Some(at(-9)) },
    "ended",
    "it has ended: success"
)]
#[case::restarting(
    |f: &mut Facts| { let ti = state(f, TaskState::Restarting); ti.reason = Some("cleared by me".into()); ti.worker = Some("w1".into()) },
    "restarting",
    "cleared by me: worker w1 is stopping its process; then it runs anew"
)]
#[case::upstreams(
    upstream,
    "upstream",
    "waits for wide (2 running, 5 success), last (not started) (trigger rule all_success)"
)]
#[case::decided(|f: &mut Facts| { state(f, TaskState::None); }, "ready", "upstreams have ended")]
#[case::no_pool(|f: &mut Facts| f.pool = None, "pool_missing", "p does not exist")]
#[case::full_pool(|f: &mut Facts| f.pool = limit(4, 3), "pool_full", "3 of 4 slots are taken, it needs 2")]
#[case::small_pool(|f: &mut Facts| f.pool = limit(1, 0), "pool_full", "can never run")]
#[case::active(|f: &mut Facts| f.run.active_tasks = 16, "max_active_tasks", "16 of at most 16")]
#[case::per_dag(|f: &mut Facts| f.task_limit = limit(1, 1), "max_active_tis_per_dag", "all runs")]
#[case::per_run(|f: &mut Facts| f.task_in_run_limit = limit(1, 1), "max_active_tis_per_dagrun", "this run")]
#[case::paused_queue(|f: &mut Facts| f.queue.as_mut().unwrap().paused = true, "queue_paused", "q is paused")]
#[case::backlog(|f: &mut Facts| f.queue = limit(1000, 1000), "queue_backlog", "1000 tasks wait")]
#[case::no_worker(|f: &mut Facts| f.workers = Ok(QueueWorkers::default()), "no_worker", "no worker serves the queue q")]
#[case::no_redis(|f: &mut Facts| f.workers = Err("refused".into()), "presence_away", "refused")]
#[case::fits(|_: &mut Facts| {}, "ready", "fits every limit")]
#[case::in_broker(|f: &mut Facts| { state(f, TaskState::Queued); f.broker_ready = Ok(7) }, "in_broker", "7 are ready; 4 of the workers' 4 slots")]
#[case::outbox(|f: &mut Facts| { state(f, TaskState::Queued); f.broker_ready = Err("away".into()) }, "outbox", "broker is back: away")]
#[case::claimed(|f: &mut Facts| { state(f, TaskState::Queued); f.holder = Some("w9".into()) }, "claimed", "w9")]
#[case::running(|f: &mut Facts| state(f, TaskState::Running).hostname = Some("h1".into()), "running", "on h1, try 1")]
#[case::retry(|f: &mut Facts| state(f, TaskState::UpForRetry).next_at = Some(at(30)), "retry_due", "try 2 is due at")]
#[case::ended(|f: &mut Facts| state(f, TaskState::Failed).reason = Some("exit code 3".into()), "ended", "failed: exit code 3")]
#[case::stopping(|f: &mut Facts| { state(f, TaskState::Running); f.run.stop_reason = Some("cancelled".into()) }, "run_stopping", "cancelled")]
#[case::worker_lost(|f: &mut Facts| { state(f, TaskState::Running).worker = Some("w9".into()); f.lease = Some(false) }, "worker_lost", "w9 has lost its lease")]
#[case::rate(|f: &mut Facts| f.queue.as_mut().unwrap().rate = QueueRate::read(Some(10), Some(1), Some(at(1)), at(0)), "rate_limit", "at most 10/s")]
#[case::rate_with_tokens(|f: &mut Facts| f.queue.as_mut().unwrap().rate = QueueRate::read(Some(10), Some(1), None, at(0)), "ready", "fits every limit")]
#[case::parallelism(|f: &mut Facts| f.parallelism = (Some(3), 3), "parallelism", "3 of at most 3 tasks of the whole deployment")]
#[case::upstream_failed(|f: &mut Facts| state(f, TaskState::UpstreamFailed).reason = Some("trigger rule all_success: an upstream failed".into()), "upstream_failed", "an upstream failed")]
#[case::rule(|f: &mut Facts| state(f, TaskState::Skipped).reason = Some("trigger rule one_success: it can no longer hold".into()), "trigger_rule", "can no longer hold")]
#[case::cancelled(|f: &mut Facts| { state(f, TaskState::Skipped).reason = Some("cancelled by ann".into()); f.run.stop_reason = Some("cancelled by ann".into()) }, "run_stopped", "cancelled by ann")]
#[case::given_up(|f: &mut Facts| { let ti = state(f, TaskState::Failed); ti.infra_losses = 3; ti.reason = Some("its worker died".into()) }, "given_up", "its worker died")]
#[case::retry_now(|f: &mut Facts| state(f, TaskState::UpForRetry).next_at = Some(at(-1)), "retry_due", "try 2 is due now")]
#[case::no_scheduler(|f: &mut Facts| { queued_run(f); f.dag_paused = true; f.scheduler_heard = None }, "dag_paused", "paused")]
#[case::sensor_poke(|f: &mut Facts| { waits_for(f, json!({ "sensor": { "file": "a" } })); state(f, TaskState::UpForReschedule); }, "sensor_poke", "found nothing yet")]
#[case::depends_on_past(|f: &mut Facts| { let ti = state(f, TaskState::None); ti.next_at = Some(at(9)); ti.reason = Some("in the run before, r0".into()) }, "depends_on_past", "in the run before, r0")]
#[case::sensor_time(|f: &mut Facts| waits_for(f, json!({ "sensor": { "time": "12:00" } })), "sensor_time", "the sensor")]
#[case::sensor_dag(|f: &mut Facts| waits_for(f, json!({ "sensor": { "dag": { "dag_id": "o" } } })), "sensor_dag", "another DAG")]
#[case::trigger_dag(|f: &mut Facts| waits_for(f, json!({ "trigger_dag": { "dag_id": "o" } })), "trigger_dag", "about to trigger a run of o")]
#[case::triggered_run(|f: &mut Facts| {
    waits_for(f, json!({ "trigger_dag": { "dag_id": "o" } }));
    f.ti.as_mut().unwrap().wait = serde_json::from_value(json!({ "since": at(0) })).unwrap();
}, "triggered_run", "it ")]
#[case::approval(|f: &mut Facts| waits_for(f, json!({ "approval": { "who": ["ann"] } })), "approval", "an answer of ann")]
fn each_reason_is_told(#[case] change: fn(&mut Facts), #[case] kind: &str, #[case] words: &str) {
    let mut facts = facts();
    change(&mut facts);
    let found = reasons(&facts);
    assert_eq!(found[0]["kind"], kind, "{found:?}");
    let message = found[0]["message"].as_str().unwrap();
    assert!(message.contains(words), "{message}");
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

/// Every kind that stands in the sources is told of in the docs, and tested above.
#[test]
fn every_reason_is_listed() {
    let sources = [include_str!("../explain.rs"), include_str!("waits.rs")];
    let page = include_str!("../../../docs/explain.md");
    let listed: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert!(listed.len() >= 20, "{listed:?}");
    for kind in &listed {
        let quoted = format!("\"{kind}\"");
        assert!(
            sources.iter().any(|source| source.contains(&quoted)),
            "no reason is called {kind}"
        );
    }
    let tests = include_str!("tests.rs");
    for kind in listed {
        assert!(tests.contains(&format!("\"{kind}\"")), "{kind} has no test");
    }
}
