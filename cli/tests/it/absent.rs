//! Servers that are absent, at the start and later.

use crate::support::{Deployment, SOON, Servers, Shape, step};
use gristmill_testkit::{Proxy, shared};
use serde_json::Value;
use std::time::Duration;

/// The shared servers behind proxies, which can be cut.
struct Proxies {
    database: Proxy,
    amqp: Proxy,
    redis: Proxy,
}

impl Proxies {
    async fn new() -> Self {
        let to = async |url: &str| {
            let url = url::Url::parse(url).unwrap();
            Proxy::to(&format!(
                "{}:{}",
                url.host_str().unwrap(),
                url.port().unwrap()
            ))
            .await
            .unwrap()
        };
        Self {
            database: to(&shared::postgres().await.unwrap()).await,
            amqp: to(&shared::rabbitmq().await.unwrap()).await,
            redis: to(&shared::redis().await.unwrap()).await,
        }
    }

    async fn servers(&self) -> Servers {
        let mut servers = Servers::shared().await;
        servers.database_url = self.database.url(&servers.database_url);
        servers.amqp_url = self.amqp.url(&servers.amqp_url);
        servers.redis_url = self.redis.url(&servers.redis_url);
        servers
    }

    fn each(&self) -> [(&'static str, &Proxy); 3] {
        [
            ("database", &self.database),
            ("broker", &self.amqp),
            ("redis", &self.redis),
        ]
    }
}

const SHAPE: Shape = Shape {
    schedulers: 1,
    workers: 1,
    slots: 4,
};

fn yaml() -> String {
    format!(
        "dag_id: late\ntasks:\n  a: {{shell: {}}}\n  b: {{depends_on: [a], shell: {}}}\n",
        step("true"),
        step("true")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_wait_for_servers_that_are_absent_and_say_so() {
    let proxies = Proxies::new().await;
    for (_, proxy) in proxies.each() {
        proxy.cut();
    }
    let deployment = Deployment::launch(proxies.servers().await, SHAPE).await;
    let said = |server: &'static str| {
        let names: &[&str] = match server {
            "database" => &["database"],
            "broker" => &["RabbitMQ", "broker"],
            _ => &["Redis", "presence"],
        };
        names
    };
    let waits = async |role: &gristmill_testkit::roles::Role, servers: &[&'static str]| {
        for server in servers {
            let heard = async || {
                said(server)
                    .iter()
                    .any(|name| role.log_text().contains(name))
            };
            role.wait_until(&format!("a word about the {server}"), SOON, heard)
                .await
                .unwrap();
        }
    };
    waits(&deployment.schedulers[0], &["database"]).await;
    waits(&deployment.workers[0], &["broker", "redis"]).await;
    waits(&deployment.api, &["database"]).await;
    proxies.database.restore();
    waits(&deployment.schedulers[0], &["broker", "redis"]).await;
    for (_, proxy) in proxies.each() {
        proxy.restore();
    }
    deployment
        .api
        .wait_for_http(&format!("{}/health", deployment.client.address), 200, SOON)
        .await
        .unwrap();
    let run = deployment.client.start("late", &yaml()).await;
    deployment.succeeds(&run, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_names_the_server_that_is_away() {
    let proxies = Proxies::new().await;
    let deployment = Deployment::start(proxies.servers().await, SHAPE).await;
    deployment.client.deploy(&yaml()).await;
    let health = format!("{}/health", deployment.client.address);
    for (part, proxy) in proxies.each() {
        proxy.cut();
        deployment
            .api
            .wait_for_http(&health, 503, SOON)
            .await
            .unwrap();
        let answer: Value =
            serde_json::from_str(&reqwest::get(&health).await.unwrap().text().await.unwrap())
                .unwrap();
        let parts = answer["parts"].as_object().unwrap();
        for (name, state) in parts {
            let expected = if name == part { "unhealthy" } else { "healthy" };
            assert_eq!(state["status"], expected, "{part} is away: {answer}");
        }
        assert!(
            parts[part]["reason"]
                .as_str()
                .is_some_and(|reason| !reason.is_empty()),
            "{answer}"
        );
        proxy.restore();
        deployment
            .api
            .wait_for_http(&health, 200, SOON)
            .await
            .unwrap();
        let run = deployment.client.trigger("late").await;
        deployment.succeeds(&run, SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_hangs_costs_no_task_anything() {
    let proxies = Proxies::new().await;
    let deployment = Deployment::start(proxies.servers().await, SHAPE).await;
    let work = step("sleep 1");
    let yaml = format!(
        "dag_id: hanging\ntasks:\n  t: {{expand: {{i: [1, 2, 3, 4, 5, 6, 7, 8]}}, shell: {work}}}\n"
    );
    deployment.client.deploy(&yaml).await;
    for (_, proxy) in proxies.each() {
        let run = deployment.client.trigger("hanging").await;
        let running = async || {
            (deployment
                .ledger
                .attempts()
                .keys()
                .any(|(of, ..)| *of == run.run_id))
            .then_some(())
        };
        gristmill_testkit::wait::until("a task", SOON, running)
            .await
            .unwrap();
        proxy.stall();
        // Longer than a task; shorter than a lease.
        tokio::time::sleep(Duration::from_secs(4)).await;
        proxy.restore();
        deployment.succeeds(&run, SOON).await;
    }
    assert_eq!(deployment.ledger.of_task("t").len(), 24, "tasks ran anew");
}
