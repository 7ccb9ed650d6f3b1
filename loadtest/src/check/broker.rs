//! Messages that are left at the broker.
//!
//! Asked twice: over AMQP (a passive declaration tells how many messages are ready, now), and, if its address is known, by the
//! management API, which also knows those that a consumer holds without having acknowledged them, a few seconds late.

use super::{CheckError, Evidence};
use lapin::{Connection, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable};
use serde::Deserialize;
use std::{collections::BTreeMap, time::Duration};
use url::Url;

/// The management API's figures are this late at most (RabbitMQ's `collect_statistics_interval`, and a little).
pub(super) const STATISTICS: Duration = Duration::from_millis(5_500);
/// More shards of events than any deployment has.
const MOST_SHARDS: u32 = 64;

/// Asks RabbitMQ.
pub(super) struct Broker {
    connection: Connection,
    management: Option<Management>,
}

struct Management {
    http: reqwest::Client,
    queues: Url,
}

#[derive(Debug, Deserialize)]
struct Queue {
    name: String,
    #[serde(default)]
    messages: u64,
    #[serde(default)]
    messages_unacknowledged: u64,
}

impl Broker {
    pub(super) async fn open(evidence: &Evidence) -> Result<Self, CheckError> {
        let options =
            ConnectionProperties::default().with_connection_name("gristmill-check".into());
        Ok(Self {
            connection: Connection::connect(&evidence.amqp_url, options).await?,
            management: match &evidence.management_url {
                Some(url) => Some(Management {
                    http: reqwest::Client::builder().no_proxy().build()?,
                    queues: queues_url(url, &evidence.amqp_url)?,
                }),
                None => None,
            },
        })
    }

    /// Messages by queue, as text, of the queues that have some; and how many queues were asked. `work_queues` are those
    /// that the database knows.
    pub(super) async fn left(
        &self,
        work_queues: &[String],
    ) -> Result<(BTreeMap<String, String>, usize), CheckError> {
        let mut left = BTreeMap::new();
        let mut names: Vec<String> = work_queues
            .iter()
            .map(|queue| format!("gm.work.{queue}"))
            .collect();
        names.push("gm.dead".to_owned());
        if let Some(management) = &self.management {
            for queue in management.queues().await? {
                // Queues of control messages are their workers' own, and come and go with them.
                let ours = ["gm.work.", "gm.events.", "gm.dead"];
                if !ours.iter().any(|prefix| queue.name.starts_with(prefix)) {
                    continue;
                }
                if queue.messages > 0 {
                    let what = format!(
                        "{} messages, {} of them delivered and not acknowledged",
                        queue.messages, queue.messages_unacknowledged
                    );
                    left.insert(queue.name.clone(), what);
                }
                names.push(queue.name);
            }
        }
        names.sort_unstable();
        names.dedup();
        let mut asked = 0;
        for name in &names {
            if let Some(ready) = self.ready(name).await? {
                asked += 1;
                if ready > 0 {
                    left.entry(name.clone())
                        .or_insert_with(|| format!("{ready} messages"));
                }
            }
        }
        for shard in 0..MOST_SHARDS {
            let name = format!("gm.events.{shard}");
            if names.contains(&name) {
                continue;
            }
            let Some(ready) = self.ready(&name).await? else {
                break;
            };
            asked += 1;
            if ready > 0 {
                left.insert(name, format!("{ready} messages"));
            }
        }
        Ok((left, asked))
    }

    /// Messages that are ready; `None` if the queue does not exist.
    async fn ready(&self, queue: &str) -> Result<Option<u32>, CheckError> {
        // A queue that does not exist costs the channel.
        let channel = self.connection.create_channel().await?;
        let declared = channel
            .queue_declare(
                queue.into(),
                QueueDeclareOptions {
                    passive: true,
                    ..QueueDeclareOptions::default()
                },
                FieldTable::default(),
            )
            .await;
        match declared {
            Ok(queue) => {
                let ready = queue.message_count();
                channel.close(200, "".into()).await?;
                Ok(Some(ready))
            }
            Err(error) => match error.kind() {
                lapin::ErrorKind::ProtocolError(reply) if reply.get_id() == 404 => Ok(None),
                _ => Err(error.into()),
            },
        }
    }
}

impl Management {
    async fn queues(&self) -> Result<Vec<Queue>, CheckError> {
        let answer = self.http.get(self.queues.clone()).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }
}

/// Where the queues of the vhost are listed.
fn queues_url(management: &str, amqp: &str) -> Result<Url, CheckError> {
    let bad = |url: &str, error: url::ParseError| CheckError::Address {
        url: url.to_owned(),
        error,
    };
    let amqp = Url::parse(amqp).map_err(|error| bad("of the broker", error))?;
    // `amqp://host` and `amqp://host/%2f` are the vhost `/`.
    let vhost = match amqp.path().trim_start_matches('/') {
        "" => "%2F",
        vhost => vhost,
    };
    let base = management.trim_end_matches('/');
    let url = format!("{base}/api/queues/{vhost}?columns=name,messages,messages_unacknowledged");
    Url::parse(&url).map_err(|error| bad("of the management API", error))
}

#[cfg(test)]
mod tests {
    use super::queues_url;

    #[test]
    fn the_vhost_is_that_of_the_broker() {
        let url = |amqp| queues_url("http://u:p@h:1/", amqp).unwrap().to_string();
        let path = |vhost| {
            format!(
                "http://u:p@h:1/api/queues/{vhost}?columns=name,messages,messages_unacknowledged"
            )
        };
        assert_eq!(url("amqp://u:p@h:2/gm-1"), path("gm-1"));
        assert_eq!(url("amqp://u:p@h:2"), path("%2F"));
        assert_eq!(url("amqp://u:p@h:2/%2f"), path("%2f"));
    }
}
