//! What is said about a run that has ended.

use super::console::Console;
use super::exit::{CommandError, Outcome};
use super::output::length;
use super::progress::list;
use super::tail::last_lines;
use crate::client::{Client, Instance, LogQuery, Run};

/// Failed tasks that are described.
const MOST_FAILURES: usize = 5;
/// Lines of each one's log.
const LAST_LINES: usize = 20;

/// Says how the run ended; of a failed one also which tasks failed, why, and (unless they were shown already) their last
/// lines.
pub(super) async fn report(
    client: &Client,
    console: &Console,
    run: &Run,
    outcome: Outcome,
    logs_shown: bool,
) -> Result<(), CommandError> {
    let ending = match outcome {
        Outcome::Done => "succeeded",
        Outcome::Cancelled => "was cancelled",
        _ => "failed",
    };
    let mut text = format!("{} {ending} after {}", run.name(), length(run.seconds()));
    if !run.task_states.is_empty() {
        text.push_str(&format!(": {}", list(&run.task_states)));
    }
    if let Some(reason) = run.reason.as_deref().filter(|_| outcome != Outcome::Done) {
        text.push_str(&format!(" ({reason})"));
    }
    console.note(&text);
    if outcome == Outcome::RunFailed {
        failures(client, console, run, logs_shown).await?;
    }
    Ok(())
}

async fn failures(
    client: &Client,
    console: &Console,
    run: &Run,
    logs_shown: bool,
) -> Result<(), CommandError> {
    let query = [("state", "failed".to_owned())];
    let name = run.name();
    let listing = client.instances(&name, &query, MOST_FAILURES).await?;
    let more = listing.total - listing.rows.len();
    for instance in Instance::all_of(listing.rows)? {
        let reason = instance.reason.as_deref().unwrap_or("no reason is known");
        console.note(&format!("\n{} failed: {reason}", instance.label()));
        if !logs_shown && instance.try_number > 0 {
            let (task_id, try_number) = (&instance.task_id, instance.try_number);
            let query = LogQuery::of(&name, task_id, instance.map_index, try_number);
            for line in last_lines(client, query, LAST_LINES).await? {
                console.note(&format!("    {}", line.event));
            }
        }
        let map_index = match instance.map_index {
            ..0 => String::new(),
            index => format!(" --map-index {index}"),
        };
        console.note(&format!(
            "whole log: gristmill tasks logs {name} {}{map_index}",
            instance.task_id
        ));
    }
    if more > 0 {
        console.note(&format!(
            "\n{more} more failed: gristmill tasks list {name} --state failed"
        ));
    }
    Ok(())
}
