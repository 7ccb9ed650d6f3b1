//! The checker over real deployments: a clean one has no breach, and each promise that a deployment is made to break
//! (`gristmill_common::fault::MISBEHAVIOURS`) is found as the breach of the invariant that it belongs to, and of no other.
//!
//! Misbehaviours exist in debug builds only.

use chrono::Utc;
use gristmill_common::invariant::Invariant::{self, *};
use gristmill_loadtest::{
    check::{AcceptedRun, Evidence, Verdict, check},
    deployment::{Deployment, Duty, Layout, start_distributed},
    workload::{Behaviour, Options, Pool, Workload},
};
use gristmill_testkit::DataDir;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// How long runs may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// A deployment, a ledger, and what was asked of them.
struct Bed {
    deployment: Deployment,
    evidence: Evidence,
    _folder: DataDir,
}

impl Bed {
    /// Starts a deployment that misbehaves so (names parted by commas), and deploys the workload.
    async fn start(
        misbehave: &str,
        workload: impl FnOnce(&std::path::Path) -> Workload,
    ) -> (Self, Workload) {
        Self::start_with(Layout::small(16), misbehave, workload).await
    }

    async fn start_with(
        layout: Layout,
        misbehave: &str,
        workload: impl FnOnce(&std::path::Path) -> Workload,
    ) -> (Self, Workload) {
        let folder = DataDir::new("check").unwrap();
        let workload = workload(&folder.path().join("ledger"));
        workload.prepare().unwrap();
        let layout = Layout {
            environment: vec![
                ("GRISTMILL_MISBEHAVE".to_owned(), misbehave.to_owned()),
                ("GRISTMILL_QUEUES".to_owned(), "default,paced".to_owned()),
            ],
            ..layout
        };
        let deployment = start_distributed(&layout).await.unwrap();
        for pool in workload.pools() {
            deployment
                .client
                .add_pool(&pool.name, pool.slots)
                .await
                .unwrap();
        }
        for dag in workload.dags() {
            deployment
                .client
                .deploy(dag.dag_id(), dag.file.clone())
                .await
                .unwrap();
        }
        let servers = deployment.servers().unwrap();
        let evidence = Evidence {
            database_url: servers.database_url().to_owned(),
            amqp_url: servers.amqp_url().to_owned(),
            management_url: None,
            redis_url: servers.redis_url().to_owned(),
            ledger: Some(workload.ledger().folder().to_owned()),
            accepted: Vec::new(),
            patience: PATIENCE,
            clocks_moved: false,
        };
        let bed = Self {
            deployment,
            evidence,
            _folder: folder,
        };
        (bed, workload)
    }

    async fn trigger(&mut self, dag_id: &str) {
        self.trigger_with(dag_id, json!({})).await;
    }

    async fn trigger_with(&mut self, dag_id: &str, conf: Value) {
        let run = self.deployment.client.trigger(dag_id, &conf).await.unwrap();
        self.evidence.accepted.push(AcceptedRun {
            dag_id: dag_id.to_owned(),
            run_id: run.run_id,
            accepted_at: Utc::now(),
        });
    }

    /// Makes a pool in which counts what waits.
    async fn waiting_pool(&self, name: &str, slots: usize) {
        let pool = json!({"name": name, "slots": slots, "include_deferred": true});
        self.deployment.client.post("/pools", &pool).await.unwrap();
    }

    async fn rate(&self, queue: &str, rate: &str) {
        let path = format!("/queues/{queue}/rateLimit");
        let body = json!({"rate_limit": rate});
        self.deployment.client.put(&path, &body).await.unwrap();
    }

    async fn parallelism(&self, n: usize) {
        let body = json!({"parallelism": n});
        self.deployment
            .client
            .put("/parallelism", &body)
            .await
            .unwrap();
    }

    async fn sql(&self, statement: &str) -> String {
        self.deployment
            .servers()
            .unwrap()
            .sql(statement)
            .await
            .unwrap()
    }

    /// Waits until no run is under way, or so many only.
    async fn runs_end(&self, but: usize) {
        gristmill_testkit::wait::until("the runs to end", PATIENCE, async || {
            let left = self
                .sql("SELECT count(*) FROM dag_runs WHERE ended_at IS NULL")
                .await;
            (left.trim() == but.to_string()).then_some(())
        })
        .await
        .unwrap();
    }

    async fn check(&self, workload: &Workload) -> Verdict {
        check(&self.evidence, workload).await.unwrap()
    }
}

/// A DAG file without behaviour of its own: its tasks succeed, in the time that is given.
fn tasks(
    ledger: &std::path::Path,
    file: &str,
    pools: Vec<Pool>,
    tasks: &[(&str, Behaviour)],
) -> Workload {
    let (file, behaviours) = file_of(ledger, file, tasks);
    Workload::of_dag(ledger.to_owned(), pools, &file, behaviours).unwrap()
}

/// The file with the commands of its tasks in their places.
fn file_of(
    ledger: &std::path::Path,
    file: &str,
    tasks: &[(&str, Behaviour)],
) -> (String, BTreeMap<String, Behaviour>) {
    let step = ledger.join("step.sh");
    let mut file = file.to_owned();
    let mut behaviours = BTreeMap::new();
    for (task, behaviour) in tasks {
        let command = behaviour.command(step.to_str().unwrap());
        file = file.replace(
            &format!("\"{task}!\""),
            &serde_json::to_string(&command).unwrap(),
        );
        behaviours.insert((*task).to_owned(), *behaviour);
    }
    (file, behaviours)
}

/// The breaches are of these invariants and no others, each with a text that says what was done.
fn found(verdict: &Verdict, expected: &[(Invariant, &str)]) {
    let mut invariants: Vec<_> = expected.iter().map(|(invariant, _)| *invariant).collect();
    invariants.dedup();
    let totals: Vec<_> = verdict.totals.keys().copied().collect();
    assert_eq!(totals, invariants, "{verdict}");
    for (invariant, text) in expected {
        let texts = verdict
            .breaches
            .iter()
            .filter(|breach| breach.invariant == *invariant);
        assert!(
            texts.clone().any(|breach| breach.what.contains(text)),
            "{invariant} {text:?}: {verdict}"
        );
    }
}

/// Random work leaves nothing to find; then rows are damaged by hand, one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_clean_run_has_no_breach_and_damaged_rows_have() {
    let (mut bed, workload) = Bed::start("", |ledger| {
        Workload::generate(&Options::new(11, 150, ledger.to_owned())).unwrap()
    })
    .await;
    for dag in workload.runs() {
        bed.trigger(dag.dag_id()).await;
    }
    let verdict = bed.check(&workload).await;
    assert!(verdict.holds() && verdict.unchecked.is_empty(), "{verdict}");
    let counted = &verdict.counted;
    assert_eq!(counted.runs, workload.runs().len());
    assert!(counted.live_attempts > 30, "{verdict}");
    assert!(counted.attempts > counted.live_attempts, "{verdict}");
    assert!(counted.limits > 5 && counted.queues > 3, "{verdict}");
    // Somebody else's workload: what the tasks should have done is taken from the records.
    let verdict = bed
        .check(&Workload::unknown(workload.ledger().folder().to_owned()))
        .await;
    assert!(verdict.holds(), "{verdict}");

    bed.evidence.patience = Duration::ZERO;
    let damages = [
        (
            OneEnding,
            "DELETE FROM task_attempts WHERE ti_pk = (SELECT min(ti_pk) FROM task_attempts WHERE ending = 'success')",
        ),
        (
            NoOrphans,
            "UPDATE task_attempts SET ti_pk = -1 WHERE ti_pk = (SELECT min(ti_pk) FROM task_attempts)",
        ),
        (
            OutboxEmpty,
            "INSERT INTO outbox SELECT max(pk), 1, 1, 0, now(), now(), 0, 'default', '' FROM task_instances",
        ),
        (
            NothingHeld,
            "UPDATE task_instances SET occupies = true WHERE pk = (SELECT max(pk) FROM task_instances WHERE fence > 0)",
        ),
        (
            EndingsRight,
            "UPDATE dag_runs SET state = CASE state WHEN 'failed' THEN 'success' ELSE 'failed' END
             WHERE pk = (SELECT max(pk) FROM dag_runs)",
        ),
        (
            EveryRunEnds,
            "UPDATE dag_runs SET state = 'queued', ended_at = NULL WHERE pk = (SELECT max(pk) FROM dag_runs)",
        ),
        (
            NoRunLost,
            "DELETE FROM dag_runs WHERE pk = (SELECT max(pk) FROM dag_runs)",
        ),
    ];
    // Nobody repairs it meanwhile.
    for member in bed.deployment.members() {
        member.role.kill().await.unwrap();
    }
    for (invariant, statement) in damages {
        let before = bed.check(&workload).await.totals.get(&invariant).copied();
        bed.sql(statement).await;
        let verdict = bed.check(&workload).await;
        assert!(
            verdict.totals.get(&invariant).copied() > before,
            "{invariant}: {verdict}"
        );
    }
}

/// A worker that dies with its tasks breaks no promise: what it ran is killed, judged lost, and runs anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_is_no_breach() {
    let (mut bed, workload) = Bed::start("", |ledger| {
        // No more at a time than the limit: what was killed and what takes its place are told apart.
        let file = r#"{"dag_id": "d", "max_active_tasks": 3, "tasks": {
            "m": {"shell": "m!", "expand": {"i": [1, 2, 3, 4, 5, 6]}}, "last": {"depends_on": ["m"], "noop": {}}
        }}"#;
        let sleeps = Behaviour {
            longest: Duration::from_secs(4),
            daemon: true,
            scan_one_in: 1,
            ..Behaviour::default()
        };
        tasks(ledger, file, vec![], &[("m", sleeps)])
    })
    .await;
    bed.trigger("d").await;
    let lines = workload.ledger().lines();
    gristmill_testkit::wait::until("tasks to be under way", PATIENCE, async || {
        let text = std::fs::read_to_string(&lines).unwrap();
        let count = |kind| text.lines().filter(|line| line.starts_with(kind)).count();
        (count("S ") >= count("E ") + 2).then_some(())
    })
    .await
    .unwrap();
    let worker = bed.deployment.members_with(Duty::Worker).next().unwrap();
    worker.role.restart().await.unwrap();
    let verdict = bed.check(&workload).await;
    assert!(verdict.holds(), "{verdict}");
    assert!(verdict.counted.killed_attempts > 0, "{verdict}");
}

/// What is left behind: a lost run, a run that hangs, slots, outbox rows, claims and a message.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_behind_is_found() {
    let misbehave =
        "lose-accepted-run:1,lose-message:1,leak-slot:1,keep-published,leak-claim,skip-ack:1";
    let (mut bed, workload) = Bed::start(misbehave, |ledger| {
        let file = r#"{"dag_id": "d", "tasks": {"a": {"shell": "a!"}}}"#;
        tasks(ledger, file, vec![], &[("a", Behaviour::default())])
    })
    .await;
    // The first run is lost, the message of the second one's task too; the others end.
    for _ in 0..5 {
        bed.trigger("d").await;
        bed.runs_end(usize::from(bed.evidence.accepted.len() > 1))
            .await;
    }
    bed.evidence.patience = Duration::from_secs(7);
    bed.evidence.management_url = Some(bed.deployment.servers().unwrap().admin_url().to_owned());
    found(
        &bed.check(&workload).await,
        &[
            (NoRunLost, "was accepted and is not in the database"),
            (EveryRunEnds, "is running"),
            (NoOrphans, "active_tasks is 1, there are 0"),
            (OutboxEmpty, "for queue default"),
            (NothingHeld, "is held by worker"),
            (QueuesEmpty, "gm.events."),
        ],
    );
}

/// Slots that are free while a task runs, and a task that its trigger rule forbids.
#[tokio::test(flavor = "multi_thread")]
async fn exceeded_limits_and_wrong_endings_are_found() {
    let (mut bed, workload) = Bed::start("free-at-start,ignore-trigger-rule", |ledger| {
        let file = r#"{"dag_id": "d", "max_active_tasks": 3, "tasks": {
            "m": {"shell": "m!", "pool": "two", "expand": {"i": [1, 2, 3, 4, 5, 6]}, "concurrency": {"key": "one", "limit": 2},
                  "max_active_tis_per_dag": 2, "max_active_tis_per_dagrun": 2},
            "last": {"depends_on": ["m", "skipped"], "noop": {}},
            "skipped": {"shell": "skipped!"}
        }}"#;
        let two = Pool {
            name: "two".to_owned(),
            slots: 2,
        };
        let sleeps = Behaviour {
            longest: Duration::from_secs(4),
            ..Behaviour::default()
        };
        let skips = Behaviour {
            skipping: 1000,
            ..Behaviour::default()
        };
        tasks(
            ledger,
            file,
            vec![two],
            &[("m", sleeps), ("skipped", skips)],
        )
    })
    .await;
    bed.parallelism(3).await;
    bed.trigger("d").await;
    found(
        &bed.check(&workload).await,
        &[
            (EndingsRight, "last[-1] is success"),
            (LimitsHold, "pool two: 3 of 2"),
            (LimitsHold, "max_active_tasks of d/"),
            (LimitsHold, "max_active_tis_per_dag of d m: 3 of 2"),
            (LimitsHold, "max_active_tis_per_dagrun of d/"),
            (
                LimitsHold,
                "concurrency of tasks with the key \"one\": 3 of 2",
            ),
            (LimitsHold, "parallelism: 4 of 3"),
        ],
    );
}

/// Limits on runs, a queue's rate, and waits in a pool that nobody counts.
#[tokio::test(flavor = "multi_thread")]
async fn limits_that_are_not_counted_are_found() {
    let misbehave = "forget-run-limits,forget-waits,ignore-rate";
    let (mut bed, workload) = Bed::start(misbehave, |ledger| {
        let file = r#"{"dag_id": "d", "max_active_runs": 1, "concurrency": {"key": "k"}, "tasks": {
            "m": {"shell": "m!", "queue": "paced", "expand": {"i": [1, 2, 3]}},
            "w": {"sensor": {"delta": "8s"}, "pool": "waiting", "expand": {"i": [1, 2]}}
        }}"#;
        let sleeps = Behaviour {
            longest: Duration::from_secs(4),
            ..Behaviour::default()
        };
        tasks(ledger, file, vec![], &[("m", sleeps)])
    })
    .await;
    bed.waiting_pool("waiting", 1).await;
    bed.rate("paced", "1/m").await;
    bed.trigger("d").await;
    bed.trigger("d").await;
    found(
        &bed.check(&workload).await,
        &[
            (LimitsHold, "max_active_runs of d: 2 of 1"),
            (LimitsHold, "concurrency of d with the key \"k\": 2 of 1"),
            (LimitsHold, "rate of queue paced: 2 of 1 tokens"),
            (LimitsHold, "pool waiting with what waits: 2 of 1"),
        ],
    );
}

/// Every limit there is, under load, with three schedulers that are killed one after the other, and a worker beside them.
#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_with_three_schedulers() {
    let layout = Layout {
        schedulers: 3,
        workers: 2,
        ..Layout::small(8)
    };
    let pools = vec![Pool {
        name: "two".to_owned(),
        slots: 2,
    }];
    let (mut bed, workload) = Bed::start_with(layout, "", |ledger| {
        let sleeps = Behaviour {
            longest: Duration::from_millis(800),
            ..Behaviour::default()
        };
        let files = [
            r#"{"dag_id": "a", "max_active_runs": 2, "max_active_tasks": 3, "tasks": {
                "m": {"shell": "m!", "pool": "two", "expand": {"i": [1, 2, 3, 4, 5, 6]}, "max_active_tis_per_dagrun": 2},
                "w": {"sensor": {"delta": "6s"}, "pool": "waiting", "expand": {"i": [1, 2]}}
            }}"#,
            r#"{"dag_id": "b", "params": {"who": "kim"}, "concurrency": {"key": "{{ params.who }}"}, "tasks": {
                "m": {"shell": "m!", "expand": {"i": [1, 2, 3, 4]}, "max_active_tis_per_dag": 2,
                      "concurrency": {"key": "shared", "limit": 3}},
                "p": {"shell": "p!", "queue": "paced", "expand": {"i": [1, 2, 3, 4]}}
            }}"#,
            r#"{"dag_id": "c", "schedule": "@daily", "start_date": "2026-01-01", "max_active_runs": 1, "tasks": {
                "m": {"shell": "m!", "expand": {"i": [1, 2, 3]}, "concurrency": {"key": "shared", "limit": 3}}
            }}"#,
        ];
        let files = files.map(|file| file_of(ledger, file, &[("m", sleeps), ("p", sleeps)]));
        Workload::of_dags(ledger.to_owned(), pools, files.into()).unwrap()
    })
    .await;
    bed.waiting_pool("waiting", 2).await;
    bed.rate("paced", "2/s").await;
    bed.parallelism(6).await;
    let backfill = json!({
        "dag_id": "c", "from_date": "2026-02-01T00:00:00Z", "to_date": "2026-02-06T00:00:00Z", "max_active_runs": 2,
    });
    let client = &bed.deployment.client;
    client.post("/backfills", &backfill).await.unwrap();
    for n in 0..4 {
        bed.trigger("a").await;
        let who = ["kim", "lee"][n % 2];
        bed.trigger_with("b", json!({"who": who})).await;
    }
    let lines = workload.ledger().lines();
    let written = || std::fs::read_to_string(&lines).unwrap().lines().count();
    let members = bed.deployment.members();
    let schedulers = members
        .iter()
        .filter(|member| member.duty == Duty::Scheduler);
    let workers = members.iter().filter(|member| member.duty == Duty::Worker);
    for member in schedulers.chain(workers.take(1)) {
        // Some more work is done between two deaths.
        let until = written() + 12;
        gristmill_testkit::wait::until("work to go on", PATIENCE, async || {
            (written() >= until).then_some(())
        })
        .await
        .unwrap();
        member.role.restart().await.unwrap();
    }
    let verdict = bed.check(&workload).await;
    assert!(verdict.holds(), "{verdict}");
    let fullest = &verdict.counted.fullest;
    // Those that have to have been reached: work waited for each.
    for name in [
        "pool two",
        "pool waiting with what waits",
        "max_active_runs of a",
        "concurrency of b with the key \"kim\"",
        "rate of queue paced",
    ] {
        let (most, cap) = fullest[name];
        assert_eq!(most, cap, "{name}: {fullest:?}");
    }
    for name in [
        "parallelism",
        "concurrency of tasks with the key \"shared\"",
        "max_active_tis_per_dag of b m",
        "max_active_runs of backfill 1",
    ] {
        assert!(fullest.contains_key(name), "{name}: {fullest:?}");
    }
}

/// An attempt that runs beside its successor, whose ending is then taken for the other's.
#[tokio::test(flavor = "multi_thread")]
async fn doubled_attempts_are_found() {
    let (mut bed, workload) = Bed::start("give-up-the-living:1,apply-stale", |ledger| {
        let file = r#"{"dag_id": "d", "tasks": {"a": {"shell": "a!"}}}"#;
        let sleeps = Behaviour {
            salt: 1,
            longest: Duration::from_secs(4),
            scan_one_in: 1,
            ..Behaviour::default()
        };
        tasks(ledger, file, vec![], &[("a", sleeps)])
    })
    .await;
    bed.trigger("d").await;
    found(
        &bed.check(&workload).await,
        &[
            (OneLiveAttempt, "started while the one with fence 1"),
            (OneLiveAttempt, "of earlier attempts were alive"),
            (OneEnding, "another attempt's ending was taken"),
        ],
    );
}

#[test]
fn every_misbehaviour_has_its_test() {
    let source = include_str!("checker.rs");
    for (name, does) in gristmill_common::fault::MISBEHAVIOURS {
        assert!(
            source.contains(name),
            "no test has a deployment where {does} ({name})"
        );
    }
}
