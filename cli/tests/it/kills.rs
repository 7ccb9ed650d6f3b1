//! `kill -9` of each part while a run of 200 tasks goes on, and servers that are away for a while.

use crate::support::{Deployment, LATER, Run, SOON, Servers, Shape, long_tests, step};
use gristmill_testkit::{Postgres, RabbitMq, Redis, sys, wait};
use std::time::Duration;

/// How long a killed server stays away: longer than every retry's first waits.
const AWAY: Duration = Duration::from_secs(3);

/// Of workers, unless set otherwise.
const LEASE: Duration = gristmill_common::message::LEASE;

const SHAPE: Shape = Shape {
    schedulers: 1,
    workers: 2,
    slots: 8,
};

/// A run of 200 tasks that has come to the middle.
async fn midway(deployment: &Deployment) -> Run {
    let items = serde_json::to_string(&(0..200).collect::<Vec<_>>()).unwrap();
    let work = step("sleep 0.4");
    let yaml = format!(
        "dag_id: midway\nmax_active_tasks: 200\ntasks:\n  t: {{expand: {{i: {items}}}, shell: {work}}}\n"
    );
    let run = deployment.client.start("midway", &yaml).await;
    let some = async || (deployment.ledger.ends() >= 40).then_some(());
    wait::until("40 tasks to have ended", SOON, some)
        .await
        .unwrap();
    run
}

/// The run ends well, and no task had to run a second time.
async fn ends_at_no_cost(deployment: &Deployment, run: &Run) {
    deployment.succeeds(run, LATER).await;
    assert_eq!(deployment.ledger.of_task("t").len(), 200, "tasks ran anew");
    assert_eq!(deployment.count_endings("success").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_postgres_costs_no_task_anything() {
    let postgres = Postgres::start().await.unwrap();
    let deployment = Deployment::start(Servers::with_postgres(&postgres).await, SHAPE).await;
    let run = midway(&deployment).await;
    postgres.kill().await.unwrap();
    tokio::time::sleep(AWAY).await;
    postgres.restart().await.unwrap();
    ends_at_no_cost(&deployment, &run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_rabbitmq_costs_no_task_anything() {
    let rabbitmq = RabbitMq::start().await.unwrap();
    let deployment = Deployment::start(Servers::with_rabbitmq(&rabbitmq).await, SHAPE).await;
    let run = midway(&deployment).await;
    rabbitmq.kill().await.unwrap();
    tokio::time::sleep(AWAY).await;
    rabbitmq.restart().await.unwrap();
    ends_at_no_cost(&deployment, &run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_and_emptying_redis_costs_no_task_anything() {
    let redis = Redis::start().await.unwrap();
    let deployment = Deployment::start(Servers::with_redis(&redis).await, SHAPE).await;
    let run = midway(&deployment).await;
    redis.kill().await.unwrap();
    tokio::time::sleep(AWAY).await;
    redis.restart_empty().await.unwrap();
    ends_at_no_cost(&deployment, &run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_only_scheduler_costs_no_task_anything() {
    let deployment = Deployment::of(SHAPE).await;
    let run = midway(&deployment).await;
    deployment.schedulers[0].restart().await.unwrap();
    ends_at_no_cost(&deployment, &run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_api_costs_no_task_anything() {
    let deployment = Deployment::of(SHAPE).await;
    let run = midway(&deployment).await;
    deployment.api.restart().await.unwrap();
    ends_at_no_cost(&deployment, &run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_worker_held_runs_anew() {
    let deployment = Deployment::of(SHAPE).await;
    let run = midway(&deployment).await;
    deployment.workers[0].restart().await.unwrap();
    deployment.succeeds(&run, LATER).await;
    assert_eq!(deployment.ledger.attempts().len(), 200);
    let lost = deployment.count_endings("lost").await;
    // What ran, and what had ended but was not confirmed yet: hence no bound by its slots.
    assert!(lost >= 1, "the killed worker held nothing");
    assert_eq!(deployment.count_endings("success").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_with_redis_is_missed_all_the_same() {
    let redis = Redis::start().await.unwrap();
    let deployment = Deployment::start(Servers::with_redis(&redis).await, SHAPE).await;
    let run = midway(&deployment).await;
    redis.kill().await.unwrap();
    deployment.workers[0].kill().await.unwrap();
    redis.restart_empty().await.unwrap();
    deployment.succeeds(&run, LATER).await;
    assert_eq!(deployment.count_endings("success").await, 200);
    let lost = deployment.count_endings("lost").await;
    assert!(
        lost <= 8,
        "{lost} attempts of a worker with 8 slots were lost"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_dies_at_once() {
    let (postgres, rabbitmq, redis) =
        tokio::try_join!(Postgres::start(), RabbitMq::start(), Redis::start()).unwrap();
    let servers = Servers::private(&postgres, &rabbitmq, &redis).await;
    let deployment = Deployment::start(servers, SHAPE).await;
    let run = midway(&deployment).await;
    for role in deployment.roles() {
        role.signal(libc::SIGKILL).unwrap();
    }
    tokio::try_join!(postgres.kill(), rabbitmq.kill(), redis.kill()).unwrap();
    // The roles come first, then the two stores, and RabbitMQ so late that by then all else has settled without it.
    for role in deployment.roles() {
        role.restart().await.unwrap();
    }
    tokio::try_join!(postgres.restart(), redis.restart_empty()).unwrap();
    tokio::time::sleep(2 * LEASE).await;
    rabbitmq.restart().await.unwrap();
    deployment.succeeds(&run, LATER).await;
    assert_eq!(deployment.ledger.attempts().len(), 200);
    assert_eq!(deployment.count_endings("success").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_workers_tasks_die_at_its_leases_end() {
    let deployment = Deployment::of(SHAPE).await;
    let run = midway(&deployment).await;
    let worker = &deployment.workers[0];
    worker.pause().unwrap();
    deployment.succeeds(&run, LATER).await;
    let lost = deployment.count_endings("lost").await;
    // It wakes, learns that it was judged lost, and takes work as another incarnation.
    worker.resume().unwrap();
    worker
        .wait_for_log("starting anew as another incarnation", SOON)
        .await
        .unwrap();
    let again = deployment.client.trigger("midway").await;
    deployment.succeeds(&again, LATER).await;
    assert_eq!(deployment.count_endings("lost").await, lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_ignores_sigterm_dies_with_its_worker() {
    let shape = Shape {
        slots: 2,
        ..Shape::default()
    };
    let deployment = Deployment::of(shape).await;
    let daemon = r#"[ $GRISTMILL_TRY_NUMBER -gt 1 ] && exit 0
setsid sh -c 'trap "" TERM HUP INT; echo $$ > "$TEST_DIR/daemon.tmp"; mv "$TEST_DIR/daemon.tmp" "$TEST_DIR/daemon"; while :; do sleep 1; done' &
sleep 300"#;
    let yaml = format!(
        "dag_id: daemons\ntasks:\n  t: {{shell: {}}}\n",
        step(daemon)
    );
    let run = deployment.client.start("daemons", &yaml).await;
    let file = deployment.dir().join("daemon");
    let written = async || std::fs::read_to_string(&file).ok();
    let daemon: u32 = wait::until("the daemon", SOON, written)
        .await
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    deployment.client.task_is(&run, "t", "running").await;
    let task = deployment.ledger.of_task("t")[0].pid;
    assert!(sys::is_alive(daemon) && sys::is_alive(task));
    deployment.workers[0].kill().await.unwrap();
    let dead = async || (!sys::is_alive(daemon) && !sys::is_alive(task)).then_some(());
    wait::until(
        "the daemon and its parent to die",
        Duration::from_secs(5),
        dead,
    )
    .await
    .unwrap();
    deployment.workers[0].restart().await.unwrap();
    deployment.succeeds(&run, LATER).await;
    assert_eq!(deployment.count_endings("lost").await, 1);
}

/// Redis is away for several leases under tasks that outlast it. The full form (50 tasks of 90 s, 60 s without Redis)
/// runs with `GRISTMILL_LONG_TESTS=1`.
async fn without_redis(away: impl AsyncFnOnce(&Redis, Duration)) {
    let (tasks, seconds, without) = if long_tests() {
        (50, 90, 60)
    } else {
        (20, 25, 15)
    };
    let redis = Redis::start().await.unwrap();
    let shape = Shape {
        slots: tasks,
        ..Shape::default()
    };
    let deployment = Deployment::start(Servers::with_redis(&redis).await, shape).await;
    let items = serde_json::to_string(&(0..tasks).collect::<Vec<_>>()).unwrap();
    let work = step(&format!("sleep {seconds}"));
    let yaml = format!(
        "dag_id: patient\nmax_active_tasks: {tasks}\ntasks:\n  t: {{expand: {{i: {items}}}, shell: {work}}}\n"
    );
    let run = deployment.client.start("patient", &yaml).await;
    let all = async || (deployment.ledger.of_task("t").len() == tasks as usize).then_some(());
    wait::until("all tasks to have started", SOON, all)
        .await
        .unwrap();
    away(&redis, Duration::from_secs(without)).await;
    deployment.succeeds(&run, LATER).await;
    assert_eq!(
        deployment.ledger.of_task("t").len(),
        tasks as usize,
        "tasks died while Redis was away"
    );
    assert_eq!(deployment.count_endings("success").await, tasks as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_outlive_a_stopped_redis() {
    without_redis(async |redis, time| {
        redis.stop().await.unwrap();
        tokio::time::sleep(time).await;
        redis.restart().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_outlive_a_frozen_redis() {
    without_redis(async |redis, time| {
        redis.pause().unwrap();
        tokio::time::sleep(time).await;
        redis.resume().unwrap();
    })
    .await;
}
