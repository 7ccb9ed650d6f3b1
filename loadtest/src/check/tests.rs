//! Each check over hand-made rows and ledgers: what it has to find, and what it has to let pass.

use super::{
    Evidence, Verdict, attempts, by_clock, endings,
    ledger::Ledger,
    limits, orphans,
    rows::{Attempt, Ending, Instance, Limit, Rows, Run},
};
use crate::workload::{Behaviour, Workload};
use chrono::{DateTime, TimeDelta, Utc};
use gristmill_common::{
    invariant::Invariant::{self, *},
    spec::DagSpec,
    state::{RunState, TaskState},
    trigger_rule::Counters,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// The database and the ledger of runs of one DAG `d`.
struct Scene {
    rows: Rows,
    ledger: String,
    clock: u64,
}

impl Scene {
    fn of(dag: Value) -> Self {
        let spec: DagSpec = serde_json::from_value(dag).unwrap();
        let mut rows = Rows::default();
        rows.names.push("default_pool".to_owned());
        rows.names.push("default".to_owned());
        for (kind, name, cap) in [("pool", "default_pool", 2), ("dag_runs", "d", 1)] {
            let limit = Limit {
                cap,
                ..Limit::default()
            };
            rows.limits
                .insert((kind.to_owned(), name.to_owned()), limit);
        }
        rows.specs.insert(1, Arc::new(spec));
        Self {
            rows,
            ledger: String::new(),
            clock: 0,
        }
    }

    /// Two shell tasks beside each other.
    fn plain() -> Self {
        Self::of(json!({"dag_id": "d", "tasks": [
            {"task_id": "a", "shell": {"command": "true"}},
            {"task_id": "b", "shell": {"command": "true"}},
        ]}))
    }

    fn run(mut self, run_id: &str, state: RunState) -> Self {
        let position = self.rows.runs.len();
        self.rows.runs.push(Run {
            pk: 1 + position as i64,
            dag_id: "d".to_owned(),
            run_id: run_id.to_owned(),
            version: 1,
            backfill: None,
            state,
            stopped: false,
            max_active_tasks: 16,
            active_tasks: 0,
            ready_tasks: 0,
            unfinished_tasks: 0,
            failed_leaves: 0,
            key: String::new(),
        });
        self.rows.add_name(position);
        self
    }

    /// An instance of the last run, whose attempts ended so, under fences 1, 2, …
    fn instance(
        mut self,
        task_idx: i32,
        map_index: i32,
        state: TaskState,
        endings: &[Ending],
    ) -> Self {
        let first = self.rows.attempts.len();
        for (n, ending) in (1..).zip(endings) {
            self.rows.attempts.push(Attempt {
                fence: n,
                try_number: n as i32,
                ending: *ending,
                started_at: None,
                ended_at: DateTime::UNIX_EPOCH,
                pid: None,
                exit_code: None,
            });
        }
        let tries = endings.len();
        self.rows.instances.push(Instance {
            pk: 1 + self.rows.instances.len() as i64,
            run: self.rows.runs.len() - 1,
            task_idx,
            map_index,
            state,
            fence: tries as i64,
            try_number: tries as i32,
            occupies: false,
            expanded_len: None,
            pool: 0,
            pool_slots: 1,
            queue: 1,
            shared: None,
            queued_at: None,
            counters: Counters::default(),
            attempts: first..first + tries,
        });
        self
    }

    fn attempt(mut self, n: usize, change: impl FnOnce(&mut Attempt)) -> Self {
        change(&mut self.rows.attempts[n]);
        self
    }

    /// A record of the ledger, a second after the last: `S`, `E 0`, `A` or `X 42` of a task of a run, by fence.
    fn wrote(mut self, run: &str, task: &str, fence: i64, what: &str) -> Self {
        self.clock += 1;
        let (kind, extra) = what.split_once(' ').unwrap_or((what, "-"));
        let pid = 100 + fence;
        let seconds = self.clock;
        self.ledger.push_str(&format!(
            "\n{kind} d {run} {task} -1 {fence} {fence} {pid} {seconds}.00 {extra} ."
        ));
        self
    }

    fn ledger_breaches(&self) -> Verdict {
        let mut verdict = Verdict::default();
        let ledger = Ledger::parse(&self.ledger);
        let located = attempts::located(&ledger, &self.rows);
        attempts::one_live(&ledger, &mut verdict);
        attempts::ledger_agrees(&ledger, &located, &self.rows, &mut verdict);
        verdict
    }

    fn limit_breaches(&self, clocks_moved: bool) -> Verdict {
        let mut verdict = Verdict::default();
        let ledger = Ledger::parse(&self.ledger);
        let located = attempts::located(&ledger, &self.rows);
        let evidence = Evidence {
            database_url: String::new(),
            amqp_url: String::new(),
            management_url: None,
            redis_url: String::new(),
            ledger: None,
            accepted: Vec::new(),
            patience: std::time::Duration::ZERO,
            clocks_moved,
        };
        let same = TimeDelta::zero();
        limits::check(&evidence, &ledger, &located, &self.rows, same, &mut verdict);
        verdict
    }

    fn ending_breaches(&self, workload: &Workload) -> Verdict {
        let mut verdict = Verdict::default();
        attempts::one_ending(&self.rows, &mut verdict);
        endings::check(&self.rows, workload, &mut verdict);
        verdict
    }
}

fn only(verdict: &Verdict, invariant: Invariant, text: &str) {
    let totals: Vec<_> = verdict.totals.keys().copied().collect();
    assert_eq!(totals, [invariant], "{verdict}");
    assert!(
        verdict
            .breaches
            .iter()
            .any(|breach| breach.what.contains(text)),
        "{verdict}"
    );
}

fn holds(verdict: &Verdict) {
    assert!(verdict.holds(), "{verdict}");
}

fn unknown() -> Workload {
    Workload::unknown("/nowhere".into())
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

// ---- One live attempt

fn retried() -> Scene {
    Scene::plain().run("r", RunState::Success).instance(
        0,
        -1,
        TaskState::Success,
        &[Ending::Lost, Ending::Success],
    )
}

#[test]
fn attempts_one_after_the_other_are_fine() {
    let scene = retried()
        .wrote("r", "a", 1, "S")
        .wrote("r", "a", 1, "A")
        .wrote("r", "a", 2, "S")
        .wrote("r", "a", 2, "E 0");
    holds(&scene.ledger_breaches());
}

#[test]
fn two_attempts_at_once_are_found() {
    let scene = retried()
        .wrote("r", "a", 1, "S")
        .wrote("r", "a", 2, "S")
        .wrote("r", "a", 1, "E 0")
        .wrote("r", "a", 2, "E 0");
    only(&scene.ledger_breaches(), OneLiveAttempt, "started while");
}

#[test]
fn a_daemon_that_outlives_its_attempt_is_found() {
    let scene = retried()
        .wrote("r", "a", 1, "S")
        .wrote("r", "a", 1, "E 0")
        .wrote("r", "a", 2, "S")
        .wrote("r", "a", 1, "A")
        .wrote("r", "a", 2, "E 0");
    only(&scene.ledger_breaches(), OneLiveAttempt, "started while");
}

#[test]
fn a_process_that_was_met_is_found() {
    let scene = retried()
        .wrote("r", "a", 1, "S")
        .wrote("r", "a", 2, "S")
        .wrote("r", "a", 2, "X 42")
        .wrote("r", "a", 2, "E 0");
    only(&scene.ledger_breaches(), OneLiveAttempt, "[42]");
}

#[test]
fn a_stale_dispatch_that_runs_is_found() {
    let scene = retried()
        .wrote("r", "a", 2, "S")
        .wrote("r", "a", 2, "E 0")
        .wrote("r", "a", 1, "S");
    only(
        &scene.ledger_breaches(),
        OneLiveAttempt,
        "under fence 1 after",
    );
}

#[test]
fn a_dispatch_that_runs_twice_is_found() {
    let scene = retried()
        .wrote("r", "a", 2, "S")
        .wrote("r", "a", 2, "E 0")
        .wrote("r", "a", 2, "S")
        .wrote("r", "a", 2, "E 0");
    only(&scene.ledger_breaches(), OneLiveAttempt, "ran twice");
}

// ---- One ending

#[test]
fn an_attempt_without_an_ending_is_found() {
    let scene = retried().wrote("r", "a", 3, "S");
    only(&scene.ledger_breaches(), OneEnding, "has no ending");
}

#[test]
fn an_attempt_that_is_under_way_needs_none() {
    let mut scene = retried().wrote("r", "a", 3, "S");
    scene.rows.instances[0].state = TaskState::Running;
    scene.rows.instances[0].fence = 3;
    holds(&scene.ledger_breaches());
}

#[test]
fn another_process_than_the_one_that_ran_is_found() {
    let scene = retried()
        .wrote("r", "a", 2, "S")
        .wrote("r", "a", 2, "E 0")
        .attempt(1, |attempt| attempt.pid = Some(101));
    only(
        &scene.ledger_breaches(),
        OneEnding,
        "another attempt's ending",
    );
}

#[test]
fn a_killed_attempt_that_is_a_success_is_found() {
    let scene = retried().wrote("r", "a", 2, "S");
    only(&scene.ledger_breaches(), OneEnding, "it was killed");
}

#[test]
fn a_failure_that_is_recorded_as_success_is_found() {
    let scene = retried().wrote("r", "a", 2, "S").wrote("r", "a", 2, "E 1");
    only(&scene.ledger_breaches(), OneEnding, "exit code 1");
}

#[test]
fn a_run_that_ran_and_is_gone_is_lost() {
    let scene = retried().wrote("gone", "a", 1, "S");
    only(&scene.ledger_breaches(), NoRunLost, "not in the database");
}

#[test]
fn records_are_dense_and_rise_and_end_with_the_instance() {
    let both = |scene: Scene| {
        let mut verdict = Verdict::default();
        attempts::one_ending(&scene.rows, &mut verdict);
        verdict
    };
    holds(&both(retried()));
    let gap = retried().attempt(0, |attempt| attempt.try_number = 0);
    only(&both(gap), OneEnding, "try 1 has no ending");
    let same = retried().attempt(0, |attempt| attempt.fence = 2);
    only(&both(same), OneEnding, "ended twice");
    let final_twice = retried().attempt(0, |attempt| attempt.ending = Ending::Failed);
    only(&both(final_twice), OneEnding, "is not the last");
    let mut other = retried();
    other.rows.instances[0].state = TaskState::Failed;
    only(&both(other), OneEnding, "the instance is failed");
    let mut none = retried();
    none.rows.instances[0].attempts = 0..0;
    only(&both(none), OneEnding, "has no ending");
    let mut older = retried();
    older.rows.instances[0].fence = 3;
    only(&both(older), OneEnding, "under fence 3");
}

// ---- Limits

/// `a` is killed, and proven dead at this second; `b` starts after it at second 2.
fn killed(proof: i64) -> Scene {
    let mut scene = Scene::plain()
        .run("r", RunState::Success)
        .instance(0, -1, TaskState::Failed, &[Ending::Lost])
        .instance(1, -1, TaskState::Success, &[Ending::Success])
        .wrote("r", "a", 1, "S")
        .wrote("r", "b", 1, "S")
        .wrote("r", "b", 1, "E 0")
        .attempt(0, |attempt| attempt.ended_at = at(proof));
    scene.rows.runs[0].max_active_tasks = 1;
    scene
}

#[test]
fn a_killed_attempt_counts_until_its_proof_of_death() {
    only(&killed(3).limit_breaches(false), LimitsHold, "2 of 1");
    holds(&killed(2).limit_breaches(false));
}

#[test]
fn with_moved_clocks_it_counts_until_its_last_sign_of_life() {
    holds(&killed(3).limit_breaches(true));
    let mut scene = killed(0).wrote("r", "a", 1, "A");
    only(&scene.limit_breaches(true), LimitsHold, "2 of 1");
    scene.rows.runs[0].max_active_tasks = 2;
    holds(&scene.limit_breaches(true));
}

#[test]
fn pools_count_slots() {
    let mut scene = Scene::plain()
        .run("r", RunState::Success)
        .instance(0, -1, TaskState::Success, &[Ending::Success])
        .instance(1, -1, TaskState::Success, &[Ending::Success])
        .wrote("r", "a", 1, "S")
        .wrote("r", "b", 1, "S")
        .wrote("r", "a", 1, "E 0")
        .wrote("r", "b", 1, "E 0");
    let verdict = scene.limit_breaches(false);
    holds(&verdict);
    assert_eq!(verdict.counted.fullest["pool default_pool"], (2, 2));
    scene.rows.instances[1].pool_slots = 2;
    only(
        &scene.limit_breaches(false),
        LimitsHold,
        "pool default_pool: 3 of 2",
    );
}

#[test]
fn limits_of_tasks_and_of_runs_are_swept() {
    let limited = |key: &str| {
        let mut task = json!({"task_id": "a", "shell": {"command": "true"}});
        task[key] = json!(1);
        let scene = Scene::of(json!({"dag_id": "d", "tasks": [task]}));
        let scene = ["r", "s"].iter().fold(scene, |scene, run| {
            scene.run(run, RunState::Success).instance(
                0,
                -1,
                TaskState::Success,
                &[Ending::Success],
            )
        });
        scene
            .wrote("r", "a", 1, "S")
            .wrote("s", "a", 1, "S")
            .wrote("r", "a", 1, "E 0")
            .wrote("s", "a", 1, "E 0")
    };
    let verdict = limited("max_active_tis_per_dag").limit_breaches(false);
    let found: Vec<&str> = verdict.breaches.iter().map(|b| b.what.as_str()).collect();
    assert_eq!(found.len(), 2, "{verdict}");
    assert!(
        found[0].starts_with("max_active_tis_per_dag of d a: 2 of 1"),
        "{verdict}"
    );
    assert!(
        found[1].starts_with("max_active_runs of d: 2 of 1"),
        "{verdict}"
    );
    // Each in a run of its own: only the limit on runs is exceeded.
    let verdict = limited("max_active_tis_per_dagrun").limit_breaches(false);
    only(&verdict, LimitsHold, "max_active_runs of d: 2 of 1");
    assert_eq!(verdict.totals[&LimitsHold], 1);
}

#[test]
fn keys_and_parallelism_are_swept() {
    let scene = || {
        Scene::plain()
            .run("r", RunState::Success)
            .instance(0, -1, TaskState::Success, &[Ending::Success])
            .instance(1, -1, TaskState::Success, &[Ending::Success])
            .wrote("r", "a", 1, "S")
            .wrote("r", "b", 1, "S")
            .wrote("r", "a", 1, "E 0")
            .wrote("r", "b", 1, "E 0")
    };
    let key = |key: &str, limit| Some((key.to_owned(), limit));
    let mut keyed = scene();
    keyed.rows.instances[0].shared = key("kim", 1);
    keyed.rows.instances[1].shared = key("lee", 1);
    holds(&keyed.limit_breaches(false));
    keyed.rows.instances[1].shared = key("kim", 1);
    let verdict = keyed.limit_breaches(false);
    only(
        &verdict,
        LimitsHold,
        "concurrency of tasks with the key \"kim\": 2 of 1",
    );
    let mut parallel = scene();
    let all = ("parallelism".to_owned(), "all".to_owned());
    for (cap, breaks) in [(2, false), (1, true)] {
        let limit = Limit {
            cap,
            ..Limit::default()
        };
        parallel.rows.limits.insert(all.clone(), limit);
        let verdict = parallel.limit_breaches(false);
        match breaks {
            true => only(&verdict, LimitsHold, "parallelism: 2 of 1"),
            false => holds(&verdict),
        }
    }
}

#[test]
fn keys_of_runs_are_swept() {
    let scene = |keys: [&str; 2]| {
        let dag = json!({"dag_id": "d", "concurrency": {"key": "{{ params.k }}"}, "tasks": [
            {"task_id": "a", "shell": {"command": "true"}},
        ]});
        let mut scene = Scene::of(dag);
        scene
            .rows
            .limits
            .remove(&("dag_runs".to_owned(), "d".to_owned()));
        for (run, key) in ["r", "s"].into_iter().zip(keys) {
            scene = scene.run(run, RunState::Success).instance(
                0,
                -1,
                TaskState::Success,
                &[Ending::Success],
            );
            scene.rows.runs.last_mut().unwrap().key = key.to_owned();
        }
        scene
            .wrote("r", "a", 1, "S")
            .wrote("s", "a", 1, "S")
            .wrote("r", "a", 1, "E 0")
            .wrote("s", "a", 1, "E 0")
    };
    holds(&scene(["kim", "lee"]).limit_breaches(false));
    holds(&scene(["", ""]).limit_breaches(false));
    only(
        &scene(["kim", "kim"]).limit_breaches(false),
        LimitsHold,
        "concurrency of d with the key \"kim\": 2 of 1",
    );
}

#[test]
fn rates_are_read_off_the_times_of_dispatches() {
    let breaches = |times: &[i64]| {
        let mut scene = Scene::plain().run("r", RunState::Success);
        for (n, at) in (0..).zip(times) {
            scene = scene.instance(0, n, TaskState::Success, &[Ending::Success]);
            scene.rows.instances.last_mut().unwrap().queued_at =
                Some(DateTime::UNIX_EPOCH + TimeDelta::milliseconds(*at));
        }
        let limit = Limit {
            rate: Some((2, 1)),
            ..Limit::default()
        };
        let queue = ("queue".to_owned(), "default".to_owned());
        scene.rows.limits.insert(queue, limit);
        let mut verdict = Verdict::default();
        by_clock::rates(&scene.rows, &mut verdict);
        verdict
    };
    // Two at once, then one each half second.
    let verdict = breaches(&[0, 0, 500, 1000, 5000, 5000]);
    holds(&verdict);
    assert_eq!(verdict.counted.fullest["rate of queue default"], (2, 2));
    only(
        &breaches(&[0, 0, 499]),
        LimitsHold,
        "rate of queue default: 3 of 2 tokens",
    );
}

#[test]
fn what_waits_in_a_pool_is_swept_by_the_clock() {
    // An approval that waits from second 10 to second 30, and a process from `start` to `end`.
    let breaches = |include_deferred, start: u64, end: u64| {
        let mut scene = Scene::of(json!({"dag_id": "d", "tasks": [
            {"task_id": "a", "approval": {"who": ["ann"]}},
            {"task_id": "b", "shell": {"command": "true"}},
        ]}))
        .run("r", RunState::Success)
        .instance(0, -1, TaskState::Success, &[Ending::Success])
        .instance(1, -1, TaskState::Success, &[Ending::Success])
        .attempt(0, |attempt| {
            attempt.started_at = DateTime::from_timestamp(10, 0);
            attempt.ended_at = DateTime::from_timestamp(30, 0).unwrap();
        });
        let pool = ("pool".to_owned(), "default_pool".to_owned());
        let limit = Limit {
            cap: 1,
            include_deferred,
            ..Limit::default()
        };
        scene.rows.limits.insert(pool, limit);
        scene.clock = start - 1;
        scene = scene.wrote("r", "b", 1, "S");
        scene.clock = end - 1;
        scene = scene.wrote("r", "b", 1, "E 0");
        let ledger = Ledger::parse(&scene.ledger);
        let located = attempts::located(&ledger, &scene.rows);
        let mut verdict = Verdict::default();
        let same = TimeDelta::zero();
        by_clock::waits(&ledger, &located, &scene.rows, same, &mut verdict);
        verdict
    };
    only(
        &breaches(true, 15, 20),
        LimitsHold,
        "pool default_pool with what waits: 2 of 1",
    );
    holds(&breaches(false, 15, 20));
    // At its ends nobody knows.
    holds(&breaches(true, 5, 12));
    holds(&breaches(true, 28, 40));
}

// ---- Endings

#[test]
fn endings_follow_from_the_dag() {
    let dag = json!({"dag_id": "d", "tasks": [
        {"task_id": "a", "noop": {}},
        {"task_id": "b", "noop": {}, "depends_on": ["a"]},
    ]});
    let ended = |a: TaskState, b: TaskState, run: RunState| {
        let tries = |state| match state {
            TaskState::Success => vec![Ending::Success],
            TaskState::Failed => vec![Ending::Failed],
            _ => vec![],
        };
        Scene::of(dag.clone())
            .run("r", run)
            .instance(0, -1, a, &tries(a))
            .instance(1, -1, b, &tries(b))
            .ending_breaches(&unknown())
    };
    use TaskState::{Failed, Skipped, Success, UpstreamFailed};
    holds(&ended(Success, Success, RunState::Success));
    holds(&ended(Failed, UpstreamFailed, RunState::Failed));
    only(
        &ended(Failed, Skipped, RunState::Success),
        EndingsRight,
        "b[-1] is skipped",
    );
    only(
        &ended(Failed, Success, RunState::Success),
        EndingsRight,
        "b[-1] is success",
    );
    only(
        &ended(Success, Success, RunState::Failed),
        EndingsRight,
        "the run is failed",
    );
}

#[test]
fn outcomes_are_those_of_the_workload() {
    let file = r#"{"dag_id": "d", "tasks": {"a": {"retries": 1, "shell": "x"}}}"#;
    let flaky = Behaviour {
        flaky: 1000,
        flaky_tries: 1,
        ..Behaviour::default()
    };
    let behaviours = BTreeMap::from([("a".to_owned(), flaky)]);
    let workload = Workload::of_dag("/l".into(), vec![], file, behaviours).unwrap();
    let spec = serde_json::to_value(&workload.dags()[0].spec).unwrap();
    let ended = |endings: &[Ending]| {
        Scene::of(spec.clone())
            .run("r", RunState::Success)
            .instance(0, -1, TaskState::Success, endings)
            .ending_breaches(&workload)
    };
    use Ending::{Lost, Success, UpForRetry};
    holds(&ended(&[UpForRetry, Success]));
    holds(&ended(&[Lost, Success]));
    holds(&ended(&[UpForRetry, Lost, Success]));
    only(&ended(&[Success]), EndingsRight, "");
    only(&ended(&[Lost, UpForRetry, Success]), EndingsRight, "try 2");
}

// ---- Counters

#[test]
fn counters_agree_with_what_they_count() {
    let scene = || {
        Scene::plain()
            .run("r", RunState::Success)
            .instance(0, -1, TaskState::Success, &[Ending::Success])
            .instance(1, -1, TaskState::Success, &[Ending::Success])
    };
    let found = |scene: Scene| {
        let mut verdict = Verdict::default();
        orphans::counters(&scene.rows, &mut verdict);
        verdict
    };
    holds(&found(scene()));
    let mut leaked = scene();
    let pool = ("pool".to_owned(), "default_pool".to_owned());
    leaked.rows.limits.get_mut(&pool).unwrap().used = 1;
    only(
        &found(leaked),
        NoOrphans,
        "used is 1, what spends it adds up to 0",
    );
    let mut active = scene();
    active.rows.runs[0].active_tasks = 1;
    only(&found(active), NoOrphans, "active_tasks is 1");
    let mut leaves = scene();
    leaves.rows.instances[1].state = TaskState::Failed;
    only(&found(leaves), NoOrphans, "failed_leaves is 0, there are 1");
}

#[test]
fn counters_of_undecided_nodes_agree_with_their_upstreams() {
    let dag = json!({"dag_id": "d", "tasks": [
        {"task_id": "a", "noop": {}},
        {"task_id": "b", "noop": {}, "depends_on": ["a"]},
    ]});
    let found = |counters: Counters| {
        let mut scene = Scene::of(dag.clone())
            .run("r", RunState::Running)
            .instance(0, -1, TaskState::Success, &[Ending::Success])
            .instance(1, -1, TaskState::None, &[]);
        scene.rows.runs[0].unfinished_tasks = 1;
        scene.rows.instances[1].counters = counters;
        let runs = ("dag_runs".to_owned(), "d".to_owned());
        scene.rows.limits.get_mut(&runs).unwrap().used = 1;
        let mut verdict = Verdict::default();
        orphans::counters(&scene.rows, &mut verdict);
        verdict
    };
    let right = Counters {
        total: 1,
        success: 1,
        ..Counters::default()
    };
    holds(&found(right));
    let missed = Counters {
        total: 1,
        ..Counters::default()
    };
    only(&found(missed), NoOrphans, "d/r b: its counters are");
}

#[test]
fn breaches_beyond_a_hundred_are_counted() {
    let mut verdict = Verdict::default();
    for n in 0..150 {
        verdict.breach(QueuesEmpty, n.to_string());
    }
    verdict.breach(NoRunLost, "first");
    assert_eq!(verdict.breaches.len(), 101);
    assert_eq!(verdict.totals[&QueuesEmpty], 150);
    assert_eq!(verdict.breaches[0].what, "first");
}
