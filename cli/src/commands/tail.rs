//! Logs as they come: of one attempt, or of all attempts of a run, each line with its task's name before it.

use std::collections::{HashMap, VecDeque};
use std::io;

use futures::{StreamExt, TryStreamExt, stream};

use super::console::Console;
use super::exit::CommandError;
use crate::client::{Client, ClientError, Instance, LogLine, LogQuery, RunName};

/// Logs that are asked for at a time.
const AT_ONCE: usize = 8;
/// Pages read of one log before the others get their turn: a task may print faster than it is read.
const PAGES: usize = 16;

/// One attempt's log, read up to some place.
#[derive(Debug)]
pub(super) struct Tail {
    query: LogQuery,
    /// Nothing will follow.
    pub(super) ended: bool,
}

impl Tail {
    pub(super) fn new(query: LogQuery) -> Self {
        Self {
            query,
            ended: false,
        }
    }

    /// A part of it has been read.
    pub(super) fn begun(&self) -> bool {
        self.ended || self.query.token.is_some()
    }

    /// Reads what is there now, at most so many pages of it, and gives each line to `show`.
    ///
    /// May be dropped in the middle: what was shown is not shown again.
    pub(super) async fn pull(
        &mut self,
        client: &Client,
        pages: usize,
        mut show: impl FnMut(&LogLine) -> io::Result<()>,
    ) -> Result<(), CommandError> {
        for _ in 0..pages {
            if self.ended {
                break;
            }
            let page = client.log(&self.query).await?;
            for line in &page.content {
                show(line)?;
            }
            self.ended = page.continuation_token.is_none();
            self.query.token = page.continuation_token;
            if page.content.is_empty() {
                break;
            }
        }
        Ok(())
    }
}

/// The logs of a run's attempts.
#[derive(Debug)]
pub(super) struct Tails<'a> {
    client: &'a Client,
    console: &'a Console,
    run: RunName,
    /// Lines are results, or (beside JSON) told on standard error.
    to_stderr: bool,
    /// By task, map index and try.
    attempts: HashMap<(String, i32, u32), Tail>,
}

impl<'a> Tails<'a> {
    pub(super) fn new(
        client: &'a Client,
        console: &'a Console,
        run: RunName,
        to_stderr: bool,
    ) -> Self {
        Self {
            client,
            console,
            run,
            to_stderr,
            attempts: HashMap::new(),
        }
    }

    /// Takes in the attempts that there are by now.
    pub(super) fn know(&mut self, instances: &[Instance]) {
        for instance in instances {
            let begun = matches!(
                instance.state(),
                "running" | "success" | "failed" | "skipped" | "up_for_retry" | "restarting"
            );
            let tries = match begun && instance.start_date.is_some() {
                true => instance.try_number,
                false => instance.try_number.saturating_sub(1),
            };
            for try_number in 1..=tries {
                let key = (instance.task_id.clone(), instance.map_index, try_number);
                self.attempts.entry(key).or_insert_with(|| {
                    let (task_id, map_index) = (&instance.task_id, instance.map_index);
                    Tail::new(LogQuery::of(&self.run, task_id, map_index, try_number))
                });
            }
        }
    }

    /// Prints what is new; returns how many logs are not complete yet.
    pub(super) async fn pull(&mut self) -> Result<usize, CommandError> {
        let (client, console, to_stderr) = (self.client, self.console, self.to_stderr);
        let open = self.attempts.iter_mut().filter(|(_, tail)| !tail.ended);
        let pulls = open.map(|((task_id, map_index, _), tail)| async move {
            let label = crate::client::label(task_id, *map_index);
            let show = |line: &LogLine| {
                let text = format!("{label} | {}", line.event);
                if to_stderr {
                    console.note(&text);
                    return Ok(());
                }
                console.line(&text)
            };
            match tail.pull(client, PAGES, show).await {
                // It began, and has no log: there will be none.
                Err(CommandError::Client(error)) if error.is_not_found() => {
                    tail.ended = true;
                    Ok(())
                }
                other => other,
            }
        });
        stream::iter(pulls)
            .buffer_unordered(AT_ONCE)
            .try_for_each(async |_| Ok(()))
            .await?;
        Ok(self.attempts.values().filter(|tail| !tail.ended).count())
    }
}

/// The last lines of an attempt's log.
pub(super) async fn last_lines(
    client: &Client,
    mut query: LogQuery,
    count: usize,
) -> Result<Vec<LogLine>, CommandError> {
    let mut last = VecDeque::with_capacity(count.min(1000));
    query.tail = Some(count);
    let show = |line: &LogLine| {
        last.push_back(line.clone());
        if last.len() > count {
            last.pop_front();
        }
        Ok(())
    };
    Tail::new(query).pull(client, PAGES, show).await?;
    Ok(last.into())
}

/// Whether a failure to read a log may pass by itself.
pub(super) fn is_transient(error: &CommandError) -> bool {
    matches!(error, CommandError::Client(error) if ClientError::is_transient(error))
}
