//! `compare`: a gate on what can be counted. Wall-clock time says nothing on a busy machine, and CPU time little, so
//! neither is judged: statements, commits and messages per task are.

use crate::{
    bench,
    deployment::Kind,
    error::{LoadError, Result},
    report::{Document, new_table, number, right},
};
use clap::Args;
use comfy_table::{Cell, Color};
use std::path::PathBuf;

/// Judges figures against a baseline: exit code 1 if a task costs more statements, commits or messages than it did
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// File that `bench --save` wrote
    baseline: PathBuf,
    /// Another such file; without it the counted figures are measured now
    current: Option<PathBuf>,
    /// How much more is no regression yet, as a share: events arrive in smaller batches on a busy machine
    #[arg(long, default_value_t = 0.25, value_parser = share)]
    tolerance: f64,
}

/// Differences below this are rounding: a hundredth of a statement, commit or message per task.
const SLACK: f64 = 0.01;

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0..=10.0).contains(&value) => Ok(value),
        _ => Err("give a number from 0 to 10, such as 0.25".to_owned()),
    }
}

/// What became of one counted figure.
#[derive(Debug, Clone, PartialEq)]
struct Judged {
    deployment: Kind,
    key: String,
    label: String,
    unit: String,
    before: f64,
    /// `None` when it was not measured now.
    now: Option<f64>,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Better,
    Same,
    Worse,
    /// In the baseline and not in the current figures: a gate that measures nothing must not pass.
    Missing,
}

/// Compares, prints a table, and gives whether nothing got worse.
pub async fn run(args: CompareArgs) -> Result<bool> {
    let baseline = Document::read(&args.baseline)?;
    let current = match &args.current {
        Some(path) => Document::read(path)?,
        None => bench::counted(&baseline).await?,
    };
    let judged = judge(&baseline, &current, args.tolerance);
    if judged.is_empty() {
        return Err(LoadError::NothingToCompare(args.baseline));
    }
    print(&judged, args.tolerance);
    Ok(judged
        .iter()
        .all(|one| matches!(one.verdict, Verdict::Better | Verdict::Same)))
}

fn judge(baseline: &Document, current: &Document, tolerance: f64) -> Vec<Judged> {
    let mut judged = Vec::new();
    for before in &baseline.deployments {
        let now = current
            .deployments
            .iter()
            .find(|measured| measured.deployment == before.deployment);
        for figure in before.figures.iter().filter(|figure| figure.gate) {
            let value = now
                .and_then(|now| now.figure(&figure.key))
                .map(|now| now.value);
            judged.push(Judged {
                deployment: before.deployment,
                key: figure.key.clone(),
                label: before.full_label(figure),
                unit: figure.unit.clone(),
                before: figure.value,
                now: value,
                verdict: verdict(figure.value, value, tolerance),
            });
        }
    }
    judged
}

fn verdict(before: f64, now: Option<f64>, tolerance: f64) -> Verdict {
    let Some(now) = now else {
        return Verdict::Missing;
    };
    if now > before * (1.0 + tolerance) + SLACK {
        Verdict::Worse
    } else if now < before * (1.0 - tolerance) - SLACK {
        Verdict::Better
    } else {
        Verdict::Same
    }
}

fn print(judged: &[Judged], tolerance: f64) {
    let header = [
        "deployment",
        "counted",
        "unit",
        "baseline",
        "now",
        "change",
        "",
    ];
    let mut table = new_table(header.map(str::to_owned).to_vec());
    for one in judged {
        let now = one.now.map_or_else(|| "–".to_owned(), number);
        let change = one.now.filter(|_| one.before > 0.0).map_or_else(
            || "–".to_owned(),
            |now| format!("{:+.0} %", (now / one.before - 1.0) * 100.0),
        );
        let (word, colour) = match one.verdict {
            Verdict::Better => ("better: renew the baseline", Some(Color::Green)),
            Verdict::Same => ("", None),
            Verdict::Worse => ("REGRESSION", Some(Color::Red)),
            Verdict::Missing => ("NOT MEASURED", Some(Color::Red)),
        };
        let word = Cell::new(word);
        table.add_row(vec![
            Cell::new(one.deployment.name()),
            Cell::new(&one.label),
            Cell::new(&one.unit),
            right(number(one.before)),
            right(now),
            right(change),
            match colour {
                Some(colour) => word.fg(colour),
                None => word,
            },
        ]);
    }
    println!("{table}");
    println!(
        "Tolerance {:.0} %. Times are not judged: machines are noisy.",
        tolerance * 100.0
    );
}

#[cfg(test)]
mod tests {
    use super::{Verdict, judge};
    use crate::report::testing::{document, figure};

    #[test]
    fn a_regression_of_what_is_counted_fails_and_of_time_does_not() {
        let baseline = document(vec![
            figure("fanout_shell_statements", 0.40, true),
            figure("fanout_shell_commits", 0.05, true),
            figure("chain_wall", 30.0, false),
        ]);
        let worse = document(vec![
            figure("fanout_shell_statements", 0.60, true),
            figure("fanout_shell_commits", 0.055, true),
            figure("chain_wall", 300.0, false),
        ]);
        let verdicts = |current| -> Vec<Verdict> {
            judge(&baseline, current, 0.25)
                .iter()
                .map(|one| one.verdict)
                .collect()
        };
        assert_eq!(verdicts(&worse), [Verdict::Worse, Verdict::Same]);
        assert_eq!(verdicts(&baseline), [Verdict::Same, Verdict::Same]);
        let better = document(vec![figure("fanout_shell_statements", 0.20, true)]);
        assert_eq!(verdicts(&better), [Verdict::Better, Verdict::Missing]);
    }
}
