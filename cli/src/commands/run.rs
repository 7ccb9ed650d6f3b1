//! `gristmill run`: starts a run, and may wait for it.

use std::time::Duration;

use clap::Args;
use gristmill_common::params::type_param;
use gristmill_common::span::Span;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Context;
use super::ci::{Ci, CiArgs};
use super::console::Console;
use super::exit::{CommandError, Outcome};
use super::follow::{self, Options, follow};
use super::output::Output;
use super::report::Report;
use crate::client::{self, Client, ClientError, NewRun};

/// How often a trigger whose answer got lost is repeated; its idempotency key makes that safe.
const TRIGGER_TRIES: usize = 5;

/// Start a run, and wait for it
///
/// Without --wait the command ends as soon as the run is accepted, which no crash can undo. With --wait the exit code says
/// how the run ended: 0 success, 1 failed, 3 cancelled, 4 not within --timeout. Else it is 2 for wrong usage, 5 for no
/// permission, 6 if the API cannot be reached, 7 if it refuses (unknown or paused DAG, bad parameters), 130 after Ctrl-C.
/// A restart of the API in the meantime is waited for.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gristmill run hello
  gristmill run daily_sales -p country=kr --wait --logs --timeout 30m
  gristmill run nightly --conf '{\"full\": true}' --run-id nightly-$BUILD --wait --cancel-on-interrupt
  gristmill run nightly --wait --logs --timeout 2h --idempotency-key $BUILD --junit nightly.xml
  gristmill run hello -o json | jq -r .dag_run_id")]
pub(crate) struct Run {
    /// The DAG
    dag_id: String,

    #[command(flatten)]
    input: Input,

    /// Name of the run; if there is one of this name, the command is rejected
    #[arg(long, value_name = "ID")]
    run_id: Option<String>,

    /// The same key again gives the same run again instead of another one
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,

    /// Wait for the run's end
    #[arg(long)]
    wait: bool,

    /// Show the tasks' logs as they come; waits
    #[arg(long)]
    logs: bool,

    /// Wait no longer than this (30s, 5m, 1h30m); waits
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    timeout: Option<Duration>,

    /// Ctrl-C (or SIGTERM) cancels the run; waits
    #[arg(long)]
    cancel_on_interrupt: bool,

    #[command(flatten)]
    ci: CiArgs,

    #[command(flatten)]
    output: Output,
}

/// What a run is given.
#[derive(Debug, Args)]
pub(super) struct Input {
    /// A parameter; its text is typed by the DAG's schema of it
    #[arg(short, long = "param", value_name = "KEY=VALUE", value_parser = parse_param)]
    params: Vec<(String, String)>,

    /// Parameters and configuration as a JSON object; -p adds to it
    #[arg(long, value_name = "JSON", value_parser = parse_conf)]
    conf: Option<Object>,
}

impl Input {
    /// The run's conf, for a DAG of these details.
    pub(super) fn conf(&self, details: &Value) -> Map<String, Value> {
        let mut conf = self.conf.clone().map_or_else(Map::new, |conf| conf.0);
        for (name, text) in &self.params {
            conf.insert(name.clone(), typed(&details["params"][name], text));
        }
        conf
    }
}

/// A JSON object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object(Map<String, Value>);

impl Run {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        let client = context.client().await?;
        let waits = self.wait
            || self.logs
            || self.timeout.is_some()
            || self.cancel_on_interrupt
            || self.ci.reports();
        let mut ci = self.ci.open(context.environment)?;
        // Before the run is started: an interrupt from then on must not leave it unattended.
        let interrupts = waits.then(follow::interrupts).transpose()?;
        let options = Options {
            logs: self.logs,
            logs_to_stderr: self.output.is_json(),
            timeout: self.timeout,
            cancel_on_interrupt: self.cancel_on_interrupt,
            known: true,
            markup: ci.markup.clone(),
            ..Options::default()
        };
        let new = self.new_run(&client).await?;
        let key = self.idempotency_key.clone();
        let key = key.unwrap_or_else(|| Uuid::new_v4().to_string());
        let run = trigger(&client, &self.dag_id, &new, &key, options.pause).await?;
        let started = client::Run::of(&run)?;
        ci.started(context.console, &started);
        let Some(interrupts) = interrupts else {
            if self.output.is_json() {
                context.console.json(&run)?;
            } else {
                context.console.line(&started.name().to_string())?;
                context.console.note(&format!(
                    "watch it with: gristmill runs wait {} --logs",
                    started.name()
                ));
            }
            return Ok(Outcome::Done);
        };
        context.console.note(&format!("started {}", started.name()));
        let name = started.name();
        let followed = follow(&client, context.console, &name, &options, interrupts).await?;
        conclude(
            &client,
            context.console,
            followed,
            self.output,
            self.logs,
            &mut ci,
        )
        .await
    }

    /// What to start: refuses a paused DAG, whose run would wait for nobody knows how long.
    async fn new_run(&self, client: &Client) -> Result<NewRun, CommandError> {
        let details = client
            .get(&["dags", &self.dag_id, "details"])
            .send()
            .await?;
        if details["is_paused"] == true {
            return Err(CommandError::Rejected(format!(
                "DAG {0:?} is paused: a run would wait until it is unpaused; do that with: gristmill dags unpause {0}",
                self.dag_id
            )));
        }
        Ok(NewRun {
            dag_run_id: self.run_id.clone(),
            conf: self.input.conf(&details),
        })
    }
}

/// A parameter's text as its schema wants it: `{"schema": …, "value": …}`, as the API describes parameters.
fn typed(param: &Value, text: &str) -> Value {
    type_param(&param["schema"], text)
}

/// Starts the run; asks again when the answer got lost, since the run may have been started.
async fn trigger(
    client: &Client,
    dag_id: &str,
    run: &NewRun,
    key: &str,
    pause: Duration,
) -> Result<Value, ClientError> {
    let mut tries = 1;
    loop {
        match client.trigger(dag_id, run, key).await {
            Err(
                ClientError::Unreachable {
                    maybe_sent: true, ..
                }
                | ClientError::Server { .. },
            ) if tries < TRIGGER_TRIES => {
                tries += 1;
                tokio::time::sleep(pause).await;
            }
            Err(ClientError::Unreachable { .. }) if (2..TRIGGER_TRIES).contains(&tries) => {
                tries += 1;
                tokio::time::sleep(pause).await;
            }
            other => return other,
        }
    }
}

/// Reports the end of a followed run, to whoever reads and to the CI system; with `-o json` prints the run.
pub(super) async fn conclude(
    client: &Client,
    console: &Console,
    followed: follow::Followed,
    output: Output,
    logs_shown: bool,
    ci: &mut Ci,
) -> Result<Outcome, CommandError> {
    let outcome = followed.outcome;
    if output.is_json() {
        console.json(&followed.run)?;
    }
    // It was left before it was ever seen.
    if followed.run.is_null() {
        return Ok(outcome);
    }
    let run = client::Run::of(&followed.run)?;
    let tell = async {
        let with_lines = !logs_shown || ci.shows_failures();
        let report = Report::gather(client, run, outcome, with_lines).await?;
        // A run that was left has been spoken of.
        if !matches!(outcome, Outcome::WaitTimedOut | Outcome::Detached) {
            console.note(&ci.markup.quote(&report.text(logs_shown)));
        }
        ci.ended(client, console, &report).await
    };
    if let Err(error) = tell.await {
        // How the run ended is known; the exit code says that.
        console.note(&format!("no more is known about it: {error}"));
    }
    Ok(outcome)
}

fn parse_param(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

fn parse_conf(text: &str) -> Result<Object, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(conf)) => Ok(Object(conf)),
        Ok(other) => Err(format!(
            "has to be a JSON object, such as {{\"key\": 1}}; this is {other}"
        )),
        Err(error) => Err(format!("is not JSON: {error}")),
    }
}

pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let span: Span = text.parse().map_err(|error| format!("{error}"))?;
    Ok(span.duration())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("a=1", Some(("a", "1")))]
    #[case("a=b=c", Some(("a", "b=c")))]
    #[case("a=", Some(("a", "")))]
    #[case("=1", None)]
    #[case("a", None)]
    fn params_are_split(#[case] text: &str, #[case] expected: Option<(&str, &str)>) {
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse_param(text).ok(), expected);
    }

    #[rstest]
    #[case(json!({"schema": {"type": "integer"}, "value": 1}), "5", json!(5))]
    #[case(json!({"schema": {"type": "string"}}), "5", json!("5"))]
    #[case(Value::Null, "[1]", json!([1]))]
    fn params_are_typed(#[case] param: Value, #[case] text: &str, #[case] expected: Value) {
        assert_eq!(typed(&param, text), expected);
    }

    #[rstest]
    #[case("30m", Some(1800))]
    #[case("1h30m", Some(5400))]
    #[case("90", Some(90))]
    #[case("soon", None)]
    fn times_are_read(#[case] text: &str, #[case] seconds: Option<u64>) {
        assert_eq!(parse_time(text).ok(), seconds.map(Duration::from_secs));
    }

    #[test]
    fn conf_is_an_object() {
        assert!(parse_conf("{\"a\": 1}").is_ok());
        assert!(parse_conf("[1]").unwrap_err().contains("[1]"));
        assert!(parse_conf("{").unwrap_err().contains("not JSON"));
    }
}
