//! `gristmill dags test`: runs a DAG here, on a standalone of its own.

use super::{Deploy, Report};
use crate::{
    client::{self, Client, ClientError, NewRun, Sources},
    commands::{
        Context,
        ci::CiArgs,
        exit::{CommandError, Outcome},
        follow::{self, Options, follow},
        output::Output,
        run::{Input, conclude, parse_time},
    },
    roles,
};
use clap::Args;
use serde::Deserialize;
use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use uuid::Uuid;

/// How long the standalone may take to be there, and to leave.
const PATIENCE: Duration = Duration::from_secs(30);

/// Run a DAG here, without a server
///
/// Starts a standalone of its own in a temporary folder, deploys PATH to it, triggers one run, shows the tasks' logs, and ends
/// as the run ended: 0 success, 1 failed, 2 the file is not right, 3 cancelled, 4 not within --timeout. Schedules make no
/// runs, and no GRISTMILL_… variable of this shell reaches it. What the tasks do to the world outside is real.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gristmill dags test daily_sales.yaml
  gristmill dags test dags/ daily_sales -p country=kr --timeout 5m
  gristmill dags test daily_sales.yaml --keep -o json")]
pub(crate) struct Test {
    /// A DAG file; or a folder, whose other files tasks find in their working directory
    path: PathBuf,
    /// Which DAG of the folder; needed if it holds several
    dag_id: Option<String>,
    #[command(flatten)]
    input: Input,
    /// Give up after this (30s, 5m, 1h30m)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    timeout: Option<Duration>,
    /// Keep the folder with the database, the logs and the values
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    ci: CiArgs,
    #[command(flatten)]
    output: Output,
}

impl Test {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        let interrupts = follow::interrupts()?;
        let home = tempfile::Builder::new()
            .prefix("gristmill-test-")
            .tempdir()?;
        let mut server = Server::start(&home).await?;
        let outcome = self.on(&server.client, context, interrupts).await;
        server.stop().await;
        if self.keep {
            let kept = home.keep();
            context.console.note(&format!("kept: {}", kept.display()));
        }
        outcome
    }

    async fn on(
        &self,
        client: &Client,
        context: &Context<'_>,
        interrupts: tokio::sync::mpsc::Receiver<()>,
    ) -> Result<Outcome, CommandError> {
        let dag_id = self.deploy(client, context).await?;
        let details = client.get(&["dags", &dag_id, "details"]).send().await?;
        let new = NewRun {
            dag_run_id: None,
            conf: self.input.conf(&details),
        };
        let mut ci = self.ci.open(context.environment)?;
        let key = Uuid::new_v4().to_string();
        let run = client.trigger(&dag_id, &new, &key).await?;
        let started = client::Run::of(&run)?;
        ci.started(context.console, &started);
        let name = started.name();
        let options = Options {
            logs: true,
            logs_to_stderr: self.output.is_json(),
            timeout: self.timeout,
            cancel_on_interrupt: true,
            known: true,
            markup: ci.markup.clone(),
            ..Options::default()
        };
        let followed = follow(client, context.console, &name, &options, interrupts).await?;
        conclude(
            client,
            context.console,
            followed,
            self.output,
            true,
            &mut ci,
        )
        .await
    }

    /// Deploys the path; answers the DAG to run.
    async fn deploy(&self, client: &Client, context: &Context<'_>) -> Result<String, CommandError> {
        let deploy = Deploy {
            path: self.path.clone(),
            folder: None,
            dry_run: false,
            output: self.output,
        };
        let (content_type, body) = super::pack(&self.path).await?;
        let answer = deploy.send(client, content_type, body).await?;
        let report = Report::deserialize(&answer).map_err(|error| ClientError::Shape {
            what: "a deployment's report",
            reason: error.to_string(),
        })?;
        let warnings = report.deployed.iter().flat_map(|dag| &dag.warnings);
        for problem in warnings.chain(&report.errors) {
            context.console.note(&problem.to_string());
        }
        let ids: Vec<&str> = report.deployed.iter().map(|dag| &*dag.dag_id).collect();
        match (&self.dag_id, ids.as_slice()) {
            (Some(wanted), ids) if ids.contains(&wanted.as_str()) => Ok(wanted.clone()),
            (Some(wanted), _) if report.errors.is_empty() => Err(CommandError::Usage(format!(
                "{} has no DAG {wanted:?}; it has: {}",
                self.path.display(),
                ids.join(", ")
            ))),
            (None, [only]) if report.errors.is_empty() => Ok((*only).to_owned()),
            (None, []) if report.errors.is_empty() => Err(CommandError::Usage(format!(
                "there is no DAG in {}",
                self.path.display()
            ))),
            (None, several) if report.errors.is_empty() => Err(CommandError::Usage(format!(
                "{} has several DAGs; name one of them: {}",
                self.path.display(),
                several.join(", ")
            ))),
            _ => Err(CommandError::BadInput),
        }
    }
}

/// A standalone that lives as long as the test.
#[derive(Debug)]
struct Server {
    process: Child,
    client: Client,
}

impl Server {
    async fn start(home: &TempDir) -> Result<Self, CommandError> {
        let failed = |why: String| CommandError::Rejected(format!("cannot start: {why}"));
        let log = home.path().join("standalone.log");
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in std::env::vars_os() {
            // Meant for another deployment, maybe that of production.
            if name.as_encoded_bytes().starts_with(b"GRISTMILL_") {
                command.env_remove(name);
            }
        }
        let mut process = command
            .args(["standalone", "--no-schedules", "--listen", "127.0.0.1:0"])
            .arg("--home")
            .arg(home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            // Ctrl-C is for this command: it cancels the run first.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let address = tokio::time::timeout(PATIENCE, address(&mut process)).await;
        let Ok(Ok(address)) = address else {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(failed(said.trim().to_owned()));
        };
        let sources = Sources {
            token_file: Some(home.path().join("client-token")),
            ..Sources::default()
        };
        let client = Client::connect(&address, &sources).await?;
        wait_until_ready(&client, home.path()).await?;
        Ok(Self { process, client })
    }

    async fn stop(&mut self) {
        if let Some(pid) = self.process.id().and_then(|pid| i32::try_from(pid).ok())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            // Gone already: nothing to stop.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            if tokio::time::timeout(PATIENCE, self.process.wait())
                .await
                .is_ok()
            {
                return;
            }
        }
        let _ = self.process.kill().await;
    }
}

/// The address that it prints first. What it prints after is read by nobody, and is short.
async fn address(process: &mut Child) -> io::Result<String> {
    let out = process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut lines = BufReader::new(out).lines();
    while let Some(line) = lines.next_line().await? {
        let rest = line.strip_prefix(roles::AT);
        if let Some(address) = rest.and_then(|rest| rest.split_whitespace().next()) {
            let address = address.to_owned();
            // Kept open: a process that prints into a closed pipe fails.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(address);
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// It prints its address just before it serves.
async fn wait_until_ready(client: &Client, home: &Path) -> Result<(), CommandError> {
    let started = tokio::time::Instant::now();
    loop {
        match client.get(&["dags"]).query("limit", 1).send().await {
            Err(ClientError::Unreachable { .. }) if started.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => {
                let log = home.join("standalone.log");
                let said = std::fs::read_to_string(log).unwrap_or_default();
                return Err(CommandError::Rejected(format!("{error}: {}", said.trim())));
            }
            Ok(_) => return Ok(()),
        }
    }
}
