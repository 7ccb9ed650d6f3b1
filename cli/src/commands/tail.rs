//! Logs as they come: of one attempt, or of all attempts of a run, each line with its task's name before it.

use std::collections::HashMap;
use std::io;

use futures::{StreamExt, TryStreamExt, stream};

use super::console::Console;
use super::exit::CommandError;
use crate::client::{Client, ClientError, Instance, LogLine, LogQuery, RunName};

/// Logs that are asked for at a time.
const AT_ONCE: usize = 8;

/// One attempt's log, read up to some place.
#[derive(Debug)]
pub(super) struct Tail {
    query: LogQuery,
    /// Nothing will follow.
    pub(super) ended: bool,
}

/// What a page had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pulled {
    Lines,
    Nothing,
    /// The API knows no such log (yet).
    Missing,
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

    /// Reads what is there now and gives each line to `show`; returns whether there was such a log.
    ///
    /// May be dropped in the middle: what was shown is not shown again.
    pub(super) async fn pull(
        &mut self,
        client: &Client,
        mut show: impl FnMut(&LogLine) -> io::Result<()>,
    ) -> Result<bool, CommandError> {
        let mut known = true;
        while !self.ended {
            match self.page(client, &mut show).await? {
                Pulled::Lines => {}
                Pulled::Nothing => break,
                Pulled::Missing => {
                    known = false;
                    break;
                }
            }
        }
        Ok(known)
    }

    async fn page(
        &mut self,
        client: &Client,
        show: &mut impl FnMut(&LogLine) -> io::Result<()>,
    ) -> Result<Pulled, CommandError> {
        let page = match client.log(&self.query).await {
            Ok(page) => page,
            Err(error) if error.is_not_found() => return Ok(Pulled::Missing),
            Err(error) => return Err(error.into()),
        };
        for line in &page.content {
            show(line)?;
        }
        self.ended = page.continuation_token.is_none();
        self.query.token = page.continuation_token;
        Ok(if page.content.is_empty() {
            Pulled::Nothing
        } else {
            Pulled::Lines
        })
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
                    Tail::new(LogQuery {
                        run: self.run.clone(),
                        task_id: instance.task_id.clone(),
                        map_index: instance.map_index,
                        try_number,
                        token: None,
                    })
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
            tail.pull(client, show).await
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
    query: LogQuery,
    count: usize,
) -> Result<Vec<LogLine>, CommandError> {
    let mut last = std::collections::VecDeque::with_capacity(count);
    let mut tail = Tail::new(query);
    let show = |line: &LogLine| {
        if last.len() == count {
            last.pop_front();
        }
        last.push_back(line.clone());
        Ok(())
    };
    let known = tail.pull(client, show).await?;
    if !known && last.is_empty() {
        return Ok(Vec::new());
    }
    Ok(last.into())
}

/// Whether a failure to read a log may pass by itself.
pub(super) fn is_transient(error: &CommandError) -> bool {
    matches!(error, CommandError::Client(error) if ClientError::is_transient(error))
}
