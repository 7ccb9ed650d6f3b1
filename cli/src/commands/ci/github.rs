//! What a step of GitHub Actions gets: annotations, a summary, outputs.

use std::fmt::Write;

use super::super::output::length;
use super::super::progress::list;
use super::super::report::{Failure, Report};
use crate::client::{Instance, Run};

/// Rows of the summary's table; GitHub takes 1 MiB a step.
const MOST_ROWS: usize = 200;

/// `name=value` lines for `$GITHUB_OUTPUT`. The values have no line breaks: ids, states and numbers.
pub(super) fn outputs(values: &[(&str, &str)]) -> String {
    values
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect()
}

/// An error annotation with a failed task's last lines.
pub(super) fn annotation(run: &Run, failure: &Failure) -> String {
    let title = format!("{}: {} failed", run.dag_id, failure.instance.label());
    let mut message = failure.reason().to_owned();
    for line in &failure.lines {
        message.push('\n');
        message.push_str(line);
    }
    format!("::error title={}::{}", property(&title), data(&message))
}

/// Escapes a message as the runner's own toolkit does.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// Escapes a property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// Markdown for `$GITHUB_STEP_SUMMARY`.
pub(super) fn summary(report: &Report, instances: &[Instance]) -> String {
    let run = &report.run;
    let mut text = format!(
        "### {} {} {}\n\n",
        cell(&run.dag_id),
        report.ending(),
        length(run.seconds())
    );
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "Run `{}`: {}\n",
        run.dag_run_id,
        list(&run.task_states)
    );
    text.push_str("| Task | State | Tries | Took |\n| --- | --- | ---: | ---: |\n");
    let mut rows: Vec<&Instance> = instances.iter().collect();
    rows.sort_by_key(|instance| instance.state() != "failed");
    for instance in rows.iter().take(MOST_ROWS) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            cell(&instance.label()),
            instance.state(),
            instance.try_number,
            length(instance.duration)
        );
    }
    if rows.len() > MOST_ROWS {
        let _ = writeln!(text, "\n{} more", rows.len() - MOST_ROWS);
    }
    for failure in &report.failures {
        let lines = failure.lines.join("\n");
        let fence = "`".repeat(longest_run_of_backticks(&lines).max(2) + 1);
        let _ = writeln!(
            text,
            "\n<details><summary>{} failed: {}</summary>\n\n{fence}text\n{lines}\n{fence}\n\n</details>",
            html(&failure.instance.label()),
            html(failure.reason())
        );
    }
    text.push('\n');
    text
}

/// Text in a cell of a Markdown table.
fn cell(text: &str) -> String {
    html(text).replace('|', "\\|").replace(['\n', '\r'], " ")
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn longest_run_of_backticks(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_escaped() {
        assert_eq!(data("50 %\nof\r\n::x"), "50 %25%0Aof%0D%0A::x");
        assert_eq!(property("a:b,c"), "a%3Ab%2Cc");
    }

    #[test]
    fn a_fence_is_longer_than_what_it_holds() {
        assert_eq!(longest_run_of_backticks("a `b` ````c"), 4);
        assert_eq!(longest_run_of_backticks(""), 0);
    }
}
