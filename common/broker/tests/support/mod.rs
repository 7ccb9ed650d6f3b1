//! RabbitMQ for tests.
// Each test binary uses a part of this.
#![allow(dead_code)]

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;

use gristmill_broker::{Broker, RabbitMq, RabbitMqConfig};
use gristmill_testkit::{shared, sys};

/// An empty vhost of the shared server, gone when this is dropped.
pub(crate) struct Vhost(shared::Vhost);

impl Vhost {
    pub(crate) async fn new() -> Self {
        Self(shared::rabbitmq_vhost().await.unwrap())
    }

    pub(crate) fn url(&self) -> &str {
        self.0.url()
    }

    pub(crate) fn broker(&self) -> Arc<dyn Broker> {
        RabbitMq::start(RabbitMqConfig::new(self.url())).unwrap()
    }
}

/// A server of the test's own, to be killed, frozen and emptied.
pub(crate) async fn private_server() -> gristmill_testkit::RabbitMq {
    gristmill_testkit::RabbitMq::start().await.unwrap()
}

/// Raises or clears the memory alarm of a private server, upon which it blocks publishers.
pub(crate) async fn set_memory_alarm(server: &gristmill_testkit::RabbitMq, raised: bool) {
    let url = server.url();
    let environment = environment_of(port_of(&url));
    let watermark = if raised { "0.0000001" } else { "0.6" };
    let status = tokio::task::spawn_blocking(move || {
        Command::new("/usr/lib/rabbitmq/bin/rabbitmqctl")
            .envs(environment)
            .args(["set_vm_memory_high_watermark", watermark])
            .status()
    });
    assert!(status.await.unwrap().unwrap().success());
}

fn port_of(url: &str) -> &str {
    let after = url.rsplit(':').next().unwrap();
    after.split('/').next().unwrap()
}

/// The environment of the server on this port: it names the node, its cookie and its port mapper.
fn environment_of(port: &str) -> HashMap<String, String> {
    sys::descendants(std::process::id())
        .into_iter()
        .map(|pid| std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default())
        .map(|environ| {
            String::from_utf8_lossy(&environ)
                .split('\0')
                .filter_map(|entry| entry.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect::<HashMap<_, _>>()
        })
        .find(|environ| {
            environ
                .get("RABBITMQ_NODE_PORT")
                .is_some_and(|found| found == port)
        })
        .expect("the server is a descendant of this process")
}
