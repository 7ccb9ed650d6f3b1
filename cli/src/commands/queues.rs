//! `gristmill queues`: what an on-call engineer looks at first.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Context;
use super::exit::{CommandError, Outcome};
use super::output::{Output, Tabular, length, or_dash, yes_no};
use crate::client::{Client, Rows};

/// More queues than anybody has.
const MOST_QUEUES: usize = 10_000;
/// Between two looks with --watch.
const WATCH: Duration = Duration::from_secs(2);
/// Cursor to the top left, and clear what is below.
const HOME: &str = "\x1b[H\x1b[J";

/// Queues: how deep they are, who works on them
///
/// SCHEDULED tasks wait for a limit or for room in the queue, BROKER counts messages that wait for a worker, OLDEST is how
/// long the oldest of both has waited, DEAD counts what was given up. What is not known at the moment is shown as `-`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  gristmill queues
  gristmill queues --watch
  gristmill queues -o json | jq '.[] | select(.oldest_age_s > 300)'
  gristmill queues pause default
  gristmill queues rate-limit shop_api 10/s"
)]
pub(crate) struct Queues {
    #[command(subcommand)]
    action: Option<Action>,
    /// Show them again and again
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show one queue
    Show {
        /// The queue
        queue: String,
        #[command(flatten)]
        output: Output,
    },
    /// Let no more of its tasks start; what runs goes on
    Pause {
        /// The queue
        queue: String,
    },
    /// Let its tasks start again
    Resume {
        /// The queue
        queue: String,
    },
    /// Let its tasks start at most so often: so many at once, and in the long run so many in every second, minute, hour or day
    RateLimit {
        /// The queue
        queue: String,
        /// 10/s, 600/m, 1000/h, 5000/d, or none
        rate: String,
    },
}

/// A queue; with `-o json` exactly these keys, in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Queue {
    queue: String,
    /// Ready tasks that wait for a limit or for room in the queue.
    scheduled: u64,
    /// Messages that wait for a worker; absent while the broker is away.
    broker: Option<u64>,
    running: u64,
    /// Seconds that the oldest task has waited which has not started; absent: none waits.
    oldest_age_s: Option<f64>,
    /// Workers; like the slots absent while Redis is away.
    consumers: Option<u64>,
    slots: Option<u64>,
    free_slots: Option<u64>,
    paused: bool,
    /// `10/s`; absent: as fast as workers take them.
    rate_limit: Option<String>,
    dead: u64,
}

impl Tabular for Queue {
    const HEADER: &'static [&'static str] = &[
        "QUEUE",
        "SCHEDULED",
        "BROKER",
        "RUNNING",
        "OLDEST",
        "WORKERS",
        "FREE/SLOTS",
        "PAUSED",
        "RATE",
        "DEAD",
    ];

    fn cells(&self, _now: DateTime<Utc>) -> Vec<String> {
        vec![
            self.queue.clone(),
            self.scheduled.to_string(),
            or_dash(self.broker),
            self.running.to_string(),
            length(self.oldest_age_s),
            or_dash(self.consumers),
            format!("{}/{}", or_dash(self.free_slots), or_dash(self.slots)),
            yes_no(self.paused),
            or_dash(self.rate_limit.as_deref()),
            self.dead.to_string(),
        ]
    }
}

impl Queues {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        let client = context.client().await?;
        match self.action {
            None if self.watch => watch(&client, context, self.output).await?,
            None => {
                let rows = all(&client).await?;
                self.output.rows::<Queue>(context.console, rows)?;
            }
            Some(Action::Show { queue, output }) => {
                let answer: Queue = client.get(&["queues", &queue]).fetch().await?;
                if output.is_json() {
                    context.console.json(&to_json(&answer))?;
                } else {
                    let rows = Rows {
                        rows: vec![to_json(&answer)],
                        total: 1,
                    };
                    output.rows::<Queue>(context.console, rows)?;
                }
            }
            Some(Action::Pause { queue }) => set(&client, context, &queue, "pause").await?,
            Some(Action::Resume { queue }) => set(&client, context, &queue, "resume").await?,
            Some(Action::RateLimit { queue, rate }) => {
                let wanted = (rate != "none").then_some(&rate);
                client
                    .request(Method::PUT, &["queues", &queue, "rateLimit"])
                    .json(&serde_json::json!({ "rate_limit": wanted }))
                    .send()
                    .await?;
                context
                    .console
                    .note(&format!("queue {queue}: rate limit {rate}"));
            }
        }
        Ok(Outcome::Done)
    }
}

/// All queues, each with the keys of [`Queue`] and no others.
async fn all(client: &Client) -> Result<Rows, CommandError> {
    let mut rows = client.list(&["queues"], &[], "queues", MOST_QUEUES).await?;
    for row in &mut rows.rows {
        let queue =
            Queue::deserialize(&*row).map_err(|error| crate::client::ClientError::Shape {
                what: "a queue",
                reason: error.to_string(),
            })?;
        *row = to_json(&queue);
    }
    Ok(rows)
}

fn to_json(queue: &Queue) -> Value {
    serde_json::json!(queue)
}

/// Until Ctrl-C. On a terminal in place; elsewhere one listing after the other, with `-o json` one array per line.
async fn watch(client: &Client, context: &Context<'_>, output: Output) -> Result<(), CommandError> {
    loop {
        let rows = all(client).await?;
        if output.is_json() {
            context.console.line(&Value::Array(rows.rows).to_string())?;
        } else {
            if context.console.fancy_out {
                let now = Utc::now().format("%H:%M:%S");
                context.console.line(&format!(
                    "{HOME}{now} UTC, every {WATCH:?}; Ctrl-C ends this\n"
                ))?;
            }
            output.rows::<Queue>(context.console, rows)?;
        }
        tokio::time::sleep(WATCH).await;
    }
}

async fn set(
    client: &Client,
    context: &Context<'_>,
    queue: &str,
    action: &str,
) -> Result<(), CommandError> {
    let path = ["queues", queue, action];
    client.request(Method::POST, &path).send().await?;
    context.console.note(&format!("queue {queue}: {action}d"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_has_exactly_the_documented_keys() {
        let queue: Queue = serde_json::from_value(json!({
            "queue": "default", "scheduled": 3, "broker": null, "running": 2, "oldest_age_s": 1.5, "consumers": 1,
            "slots": 4, "free_slots": 2, "paused": false, "rate_limit": "10/s", "dead": 0, "something_new": 1
        }))
        .unwrap();
        assert_eq!(
            to_json(&queue).to_string(),
            r#"{"queue":"default","scheduled":3,"broker":null,"running":2,"oldest_age_s":1.5,"consumers":1,"slots":4,"free_slots":2,"paused":false,"rate_limit":"10/s","dead":0}"#
        );
    }
}
