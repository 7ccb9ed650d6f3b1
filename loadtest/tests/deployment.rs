//! A private deployment with several of each role: what chaos does to it, one by one.

use gristmill_loadtest::deployment::{Duty, Layout, ServerChoice, start_distributed};
use gristmill_testkit::wait;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn every_part_can_be_reached_and_taken_away() {
    let layout = Layout {
        schedulers: 2,
        workers: 2,
        apis: 2,
        concurrency: 4,
        servers: ServerChoice::Private,
        proxied: true,
        movable_clocks: false,
        environment: Vec::new(),
    };
    let deployment = start_distributed(&layout).await.unwrap();
    assert_eq!(deployment.members().len(), 6);
    let clients = deployment.clients();
    let [first, second] = &clients[..] else {
        panic!("a client for each API server")
    };
    let yaml = "dag_id: one\ntasks:\n  only: {shell: \"true\"}\n";
    first.deploy("one", yaml.to_owned()).await.unwrap();
    let run = second.run_to_end("one", DEADLINE).await.unwrap();
    assert_eq!(run.state, "success");

    // A worker's machine dies; the other one works on, behind connections that were cut and came back.
    let workers: Vec<_> = deployment.members_with(Duty::Worker).collect();
    workers[0].role.kill_tree().await.unwrap();
    assert!(!workers[0].role.is_running());
    for proxy in workers[1].links.as_ref().unwrap().all() {
        proxy.cut();
    }
    let servers = deployment.servers().unwrap();
    servers.redis().unwrap().restart_empty().await.unwrap();
    servers.rabbitmq().unwrap().restart().await.unwrap();
    servers.postgres().unwrap().restart().await.unwrap();
    for proxy in workers[1].links.as_ref().unwrap().all() {
        proxy.restore();
    }
    let triggered = wait::until("the database to be back", DEADLINE, async || {
        first.trigger("one", &()).await.ok()
    })
    .await
    .unwrap();
    let run = first.wait("one", &triggered.run_id, DEADLINE).await;
    assert_eq!(run.unwrap().state, "success");

    workers[0].role.restart().await.unwrap();
    assert!(workers[0].role.is_running());
    let counted = servers.sql("SELECT count(*) FROM dag_runs").await.unwrap();
    assert_eq!(counted.trim(), "2");
}
