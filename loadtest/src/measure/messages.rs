//! Messages published, counted by RabbitMQ.

use serde_json::Value;
use std::time::Duration;
use url::Url;

/// RabbitMQ's statistics are collected every five seconds.
const SETTLE: Duration = Duration::from_secs(6);

/// Where published messages are counted.
#[derive(Debug, Clone)]
pub struct Messages {
    /// The vhost in the management API, with credentials; `None` where it is not to be had.
    vhost: Option<Url>,
}

impl Messages {
    /// Counts what is published to the vhost of `amqp_url`, by the management API at `admin_url`.
    pub fn of_vhost(admin_url: &str, amqp_url: &str) -> Self {
        let vhost = Url::parse(amqp_url).ok().and_then(|amqp| {
            let name = match amqp.path().trim_start_matches('/') {
                "" => "%2f",
                name => name,
            };
            Url::parse(admin_url)
                .ok()?
                .join(&format!("/api/vhosts/{name}"))
                .ok()
        });
        Self { vhost }
    }

    /// Nothing is published to a broker, or it is not ours to ask.
    pub fn nowhere() -> Self {
        Self { vhost: None }
    }

    /// Messages published so far by all connections, a moment ago at the latest; `None` when that cannot be had.
    pub async fn count(&self) -> Option<f64> {
        let mut url = self.vhost.clone()?;
        tokio::time::sleep(SETTLE).await;
        let (user, password) = (url.username().to_owned(), url.password().map(str::to_owned));
        // Credentials go into the header only.
        url.set_username("").ok()?;
        url.set_password(None).ok()?;
        let http = reqwest::Client::builder().no_proxy().build().ok()?;
        let answer = http.get(url).basic_auth(user, password).send().await.ok()?;
        let vhost: Value = answer.error_for_status().ok()?.json().await.ok()?;
        // Without a message there are no statistics yet.
        Some(vhost["message_stats"]["publish"].as_f64().unwrap_or(0.0))
    }
}
