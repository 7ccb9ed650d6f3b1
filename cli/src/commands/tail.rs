//! Logs as they come: of one attempt, or of all attempts of a run, each line with its task's name before it.

use std::collections::{HashMap, VecDeque};
use std::io;

use futures::{StreamExt, TryStreamExt, stream};

use super::ci::Markup;
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

    /// As [`Tail::pull`]; an attempt that began and has no log will have none.
    async fn pull_or_end(
        &mut self,
        client: &Client,
        show: impl FnMut(&LogLine) -> io::Result<()>,
    ) -> Result<(), CommandError> {
        match self.pull(client, PAGES, show).await {
            Err(CommandError::Client(error)) if error.is_not_found() => {
                self.ended = true;
                Ok(())
            }
            other => other,
        }
    }
}

/// What a look at all logs brought.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pulled {
    /// Lines that were printed.
    pub(super) lines: usize,
    /// Logs that are not complete yet.
    pub(super) incomplete: usize,
}

/// By task, map index and try.
type Attempt = (String, i32, u32);

/// The logs of a run's attempts. Without groups their lines come as they come; with groups one log after the other, the
/// first that is not complete live.
#[derive(Debug)]
pub(super) struct Tails<'a> {
    client: &'a Client,
    console: &'a Console,
    run: RunName,
    /// Lines are results, or (beside JSON) told on standard error.
    to_stderr: bool,
    markup: Markup,
    attempts: HashMap<Attempt, Tail>,
    /// In the order in which they became known; those whose group is closed are gone.
    in_turn: VecDeque<Attempt>,
    /// The group of the first one is open.
    is_open: bool,
    /// Groups so far.
    groups: usize,
}

impl<'a> Tails<'a> {
    pub(super) fn new(
        client: &'a Client,
        console: &'a Console,
        run: RunName,
        to_stderr: bool,
        markup: Markup,
    ) -> Self {
        Self {
            client,
            console,
            run,
            to_stderr,
            markup,
            attempts: HashMap::new(),
            in_turn: VecDeque::new(),
            is_open: false,
            groups: 0,
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
                if self.attempts.contains_key(&key) {
                    continue;
                }
                let query =
                    LogQuery::of(&self.run, &instance.task_id, instance.map_index, try_number);
                if self.markup.has_groups() {
                    self.in_turn.push_back(key.clone());
                }
                self.attempts.insert(key, Tail::new(query));
            }
        }
    }

    /// Prints what is new.
    pub(super) async fn pull(&mut self) -> Result<Pulled, CommandError> {
        let lines = match self.markup.has_groups() {
            true => self.pull_in_turn().await?,
            false => self.pull_all().await?,
        };
        let open = self.attempts.values().filter(|tail| !tail.ended);
        Ok(Pulled {
            lines,
            incomplete: open.count(),
        })
    }

    async fn pull_all(&mut self) -> Result<usize, CommandError> {
        let (client, console, to_stderr) = (self.client, self.console, self.to_stderr);
        let open = self.attempts.iter_mut().filter(|(_, tail)| !tail.ended);
        let pulls = open.map(|((task_id, map_index, _), tail)| async move {
            let label = crate::client::label(task_id, *map_index);
            let mut lines = 0;
            let show = |line: &LogLine| {
                lines += 1;
                print(console, to_stderr, &format!("{label} | {}", line.event))
            };
            tail.pull_or_end(client, show).await?;
            Ok(lines)
        });
        stream::iter(pulls)
            .buffer_unordered(AT_ONCE)
            .try_fold(0, async |sum, lines| Ok(sum + lines))
            .await
    }

    async fn pull_in_turn(&mut self) -> Result<usize, CommandError> {
        let (client, console, to_stderr) = (self.client, self.console, self.to_stderr);
        let mut lines = 0;
        while let Some(attempt) = self.in_turn.front() {
            let Some(tail) = self.attempts.get_mut(attempt) else {
                break;
            };
            if !self.is_open {
                self.groups += 1;
                self.is_open = true;
                let (task_id, map_index, try_number) = attempt;
                let mut title = crate::client::label(task_id, *map_index);
                if *try_number > 1 {
                    title.push_str(&format!(", try {try_number}"));
                }
                print(console, to_stderr, &self.markup.open(self.groups, &title))?;
            }
            let show = |line: &LogLine| {
                lines += 1;
                print(console, to_stderr, &line.event)
            };
            tail.pull_or_end(client, show).await?;
            if !tail.ended {
                break;
            }
            self.close()?;
            self.in_turn.pop_front();
        }
        Ok(lines)
    }

    /// Closes the group that is open.
    fn close(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.is_open) {
            return Ok(());
        }
        let end = self.markup.close(self.groups);
        print(self.console, self.to_stderr, &end)
    }
}

/// Whoever leaves a run that goes on leaves no group open, which would hold everything that is printed after it.
impl Drop for Tails<'_> {
    fn drop(&mut self) {
        // Nobody to tell: the output is gone.
        let _ = self.close();
    }
}

fn print(console: &Console, to_stderr: bool, text: &str) -> io::Result<()> {
    if to_stderr {
        console.note(text);
        return Ok(());
    }
    console.line(text)
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
