//! What is said about a run that has ended.

use super::exit::{CommandError, Outcome};
use super::output::length;
use super::progress::list;
use super::tail::last_lines;
use crate::client::{Client, Instance, LogQuery, Run};

/// Failed tasks that are described.
const MOST_FAILURES: usize = 5;
/// Lines of each one's log.
const LAST_LINES: usize = 20;

/// How a run ended, and of a failed one which tasks failed, and why.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) run: Run,
    outcome: Outcome,
    /// The first few.
    pub(super) failures: Vec<Failure>,
    /// Failed tasks beside those.
    more: usize,
}

/// A task instance that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) instance: Instance,
    /// The last lines of its last attempt, if they were asked for.
    pub(super) lines: Vec<String>,
}

impl Failure {
    pub(super) fn reason(&self) -> &str {
        self.instance
            .reason
            .as_deref()
            .unwrap_or("no reason is known")
    }

    /// It is this instance that failed.
    pub(super) fn is_of(&self, instance: &Instance) -> bool {
        let key = |of: &Instance| (of.task_id.clone(), of.map_index);
        key(&self.instance) == key(instance)
    }
}

impl Report {
    /// Asks for what there is to say.
    pub(super) async fn gather(
        client: &Client,
        run: Run,
        outcome: Outcome,
        with_lines: bool,
    ) -> Result<Self, CommandError> {
        let mut report = Self {
            run,
            outcome,
            failures: Vec::new(),
            more: 0,
        };
        if outcome != Outcome::RunFailed {
            return Ok(report);
        }
        let name = report.run.name();
        let query = [("state", "failed".to_owned())];
        let listing = client.instances(&name, &query, MOST_FAILURES).await?;
        report.more = listing.total - listing.rows.len();
        for instance in Instance::all_of(listing.rows)? {
            let mut lines = Vec::new();
            if with_lines && instance.try_number > 0 {
                let (task_id, try_number) = (&instance.task_id, instance.try_number);
                let query = LogQuery::of(&name, task_id, instance.map_index, try_number);
                let last = last_lines(client, query, LAST_LINES).await?;
                lines.extend(last.into_iter().map(|line| line.event));
            }
            report.failures.push(Failure { instance, lines });
        }
        Ok(report)
    }

    /// `success`, `failed`, `cancelled`, or where it stood when it was left.
    pub(super) fn state(&self) -> &str {
        match self.outcome {
            Outcome::Cancelled => "cancelled",
            _ => &self.run.state,
        }
    }

    /// `failed after`, to be followed by a length.
    pub(super) fn ending(&self) -> &'static str {
        match self.outcome {
            Outcome::Done => "succeeded after",
            Outcome::Cancelled => "was cancelled after",
            Outcome::RunFailed => "failed after",
            Outcome::WaitTimedOut | Outcome::Detached => "has not ended after",
        }
    }

    /// The last word of the run. With `logs_shown` no lines are shown again.
    pub(super) fn text(&self, logs_shown: bool) -> String {
        let (run, name) = (&self.run, self.run.name());
        let mut text = format!("{name} {} {}", self.ending(), length(run.seconds()));
        if !run.task_states.is_empty() {
            text.push_str(&format!(": {}", list(&run.task_states)));
        }
        let reason = run.reason.as_deref();
        if let Some(reason) = reason.filter(|_| self.outcome != Outcome::Done) {
            text.push_str(&format!(" ({reason})"));
        }
        for failure in &self.failures {
            let instance = &failure.instance;
            let (label, reason) = (instance.label(), failure.reason());
            text.push_str(&format!("\n\n{label} failed: {reason}"));
            for line in failure.lines.iter().filter(|_| !logs_shown) {
                text.push_str(&format!("\n    {line}"));
            }
            let map_index = match instance.map_index {
                ..0 => String::new(),
                index => format!(" --map-index {index}"),
            };
            let task_id = &instance.task_id;
            text.push_str(&format!(
                "\nwhole log: gristmill tasks logs {name} {task_id}{map_index}"
            ));
        }
        if self.more > 0 {
            text.push_str(&format!(
                "\n\n{} more failed: gristmill tasks list {name} --state failed",
                self.more
            ));
        }
        text
    }
}
