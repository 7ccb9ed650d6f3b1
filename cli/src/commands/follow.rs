//! Following a run to its end: across restarts of the API, a limit of time, and Ctrl-C.

use std::time::Duration;

use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::ci::Markup;
use super::console::Console;
use super::exit::{CommandError, Outcome};
use super::output::length;
use super::progress::Progress;
use super::tail::{Pulled, Tails, is_transient};
use crate::client::{Client, Instance, Run, RunName};

/// Task instances whose logs are followed.
pub(super) const MOST_INSTANCES: usize = 10_000;
/// How often at most logs are asked for new lines in vain after the run has ended; the last ones may be on their way.
const DRAINS: usize = 20;

/// How to follow.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) logs: bool,
    /// Log lines go to standard error, since standard output is for JSON.
    pub(super) logs_to_stderr: bool,
    /// What stands around log lines.
    pub(super) markup: Markup,
    /// Give up after this.
    pub(super) timeout: Option<Duration>,
    /// Ctrl-C cancels the run instead of only ending the watching of it.
    pub(super) cancel_on_interrupt: bool,
    /// The API has been heard of already: its absence now is taken for a restart.
    pub(super) known: bool,
    /// Seconds that one question for the run's end may take at the API.
    pub(super) poll_s: u64,
    /// Between two attempts to reach an API that is away, and between two looks at a log.
    pub(super) pause: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            logs: false,
            logs_to_stderr: false,
            markup: Markup::Plain,
            timeout: None,
            cancel_on_interrupt: false,
            known: false,
            poll_s: 1,
            pause: Duration::from_millis(200),
        }
    }
}

/// How the following ended.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) outcome: Outcome,
    /// The run when it was last seen, as the API gave it.
    pub(super) run: Value,
}

/// Ctrl-C and SIGTERM from now on, as events instead of deaths.
pub(super) fn interrupts() -> Result<mpsc::Receiver<()>, CommandError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if sender.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Follows the run until it ends, the time is over, or the user goes.
pub(super) async fn follow(
    client: &Client,
    console: &Console,
    name: &RunName,
    options: &Options,
    mut interrupts: mpsc::Receiver<()>,
) -> Result<Followed, CommandError> {
    let started = Instant::now();
    let deadline = options.timeout.map(|timeout| started + timeout);
    let mut follower = Follower::new(client, console, name, options);
    loop {
        let ended = tokio::select! {
            biased;
            Some(()) = interrupts.recv() => {
                if options.cancel_on_interrupt && !follower.cancelling {
                    follower.cancelling = true;
                    console.note("cancelling the run; Ctrl-C again leaves without waiting for its end");
                    continue;
                }
                return Ok(follower.leave(Outcome::Detached));
            }
            () = until(deadline) => {
                let waited = length(Some(started.elapsed().as_secs_f64()));
                console.note(&format!("the run has not ended within {waited}"));
                return Ok(follower.leave(Outcome::WaitTimedOut));
            }
            ended = follower.step() => ended?,
        };
        if let Some(outcome) = ended {
            return Ok(Followed {
                outcome,
                run: follower.last,
            });
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What is known of the run so far. Its steps may be dropped at any await: an interrupt does that.
#[derive(Debug)]
struct Follower<'a> {
    client: &'a Client,
    console: &'a Console,
    name: &'a RunName,
    options: &'a Options,
    progress: Progress<'a>,
    tails: Option<Tails<'a>>,
    last: Value,
    known: bool,
    /// The API was away when last asked.
    lost: bool,
    cancelling: bool,
    cancel_accepted: bool,
}

impl<'a> Follower<'a> {
    fn new(
        client: &'a Client,
        console: &'a Console,
        name: &'a RunName,
        options: &'a Options,
    ) -> Self {
        let tails = || {
            let markup = options.markup.clone();
            Tails::new(
                client,
                console,
                name.clone(),
                options.logs_to_stderr,
                markup,
            )
        };
        Self {
            client,
            console,
            name,
            options,
            progress: Progress::new(console),
            tails: options.logs.then(tails),
            last: Value::Null,
            known: options.known,
            lost: false,
            cancelling: false,
            cancel_accepted: false,
        }
    }

    /// Asks once; `Some` at the run's end.
    async fn step(&mut self) -> Result<Option<Outcome>, CommandError> {
        match self.look().await {
            Ok(ended) => {
                if std::mem::take(&mut self.lost) {
                    self.console.note("the API is back");
                }
                self.known = true;
                Ok(ended)
            }
            Err(error) if self.known && is_transient(&error) => {
                if !std::mem::replace(&mut self.lost, true) {
                    let limit = match self.options.timeout {
                        Some(_) => "until the timeout",
                        None => "until it is back (Ctrl-C stops this)",
                    };
                    self.console
                        .note(&format!("{error}; the run goes on, trying again {limit}"));
                }
                tokio::time::sleep(self.options.pause).await;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn look(&mut self) -> Result<Option<Outcome>, CommandError> {
        if self.cancelling && !self.cancel_accepted {
            match self.client.cancel(self.name).await {
                Ok(_) => self.cancel_accepted = true,
                // It has ended by itself in the meantime.
                Err(error) if error.is_conflict() => self.cancel_accepted = true,
                Err(error) => return Err(error.into()),
            }
        }
        let asked = Instant::now();
        // The first look shows where the run stands; later ones wait for its end.
        let answer = match self.last {
            Value::Null => self.client.run(self.name).await?,
            _ => self.client.wait(self.name, self.options.poll_s).await?,
        };
        let first = self.last.is_null();
        let run = Run::of(&answer)?;
        self.last = answer;
        self.progress.update(&run.task_states);
        let pulled = self.pull_logs().await?;
        if !run.is_finished() {
            // An API that does not hold the question must not be asked without pause.
            if !first && asked.elapsed() < self.options.pause {
                tokio::time::sleep(self.options.pause - asked.elapsed()).await;
            }
            return Ok(None);
        }
        self.drain(pulled).await?;
        Ok(Some(match (run.state.as_str(), run.cancelled) {
            ("success", _) => Outcome::Done,
            (_, true) => Outcome::Cancelled,
            (_, false) => Outcome::RunFailed,
        }))
    }

    /// Prints new lines of the logs.
    async fn pull_logs(&mut self) -> Result<Pulled, CommandError> {
        let Some(tails) = &mut self.tails else {
            return Ok(Pulled::default());
        };
        let listing = self
            .client
            .instances(self.name, &[], MOST_INSTANCES)
            .await?;
        let instances: Vec<Instance> = Instance::all_of(listing.rows)?;
        tails.know(&instances);
        tails.pull().await
    }

    /// Reads the ends of the logs of a run that has ended.
    async fn drain(&mut self, mut pulled: Pulled) -> Result<(), CommandError> {
        let Some(tails) = &mut self.tails else {
            return Ok(());
        };
        let mut in_vain = 0;
        while pulled.incomplete > 0 && in_vain < DRAINS {
            if pulled.lines == 0 {
                in_vain += 1;
                tokio::time::sleep(self.options.pause).await;
            }
            pulled = tails.pull().await?;
        }
        Ok(())
    }

    /// Leaves a run that goes on, and says how to come back.
    fn leave(self, outcome: Outcome) -> Followed {
        self.console.note(&format!(
            "the run goes on; watch it with: gristmill runs wait {0}\ncancel it with:    gristmill runs cancel {0}",
            self.name
        ));
        Followed {
            outcome,
            run: self.last,
        }
    }
}
