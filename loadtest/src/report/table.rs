//! The report for a terminal.

use super::{Figure, Report, Results, figure::Aim};
use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets::UTF8_FULL_CONDENSED};

pub(super) fn print(report: &Report) {
    let machine = &report.machine;
    println!(
        "{} · {} processors ({}), {} GiB, Linux {} · load average {:.1} before, {:.1} after · worker with {} slots, fan-outs of {}",
        report.measured_at.format("%Y-%m-%d %H:%M UTC"),
        machine.processors,
        machine.model,
        machine.memory_gib,
        machine.kernel,
        machine.load_before,
        report.load_after,
        report.concurrency,
        report.fanout_tasks,
    );
    println!("{}", figures(&report.results));
    for results in &report.results {
        if !results.cpu.is_empty() {
            println!(
                "CPU seconds per 1000 tasks by process, {}",
                results.kind.name()
            );
            println!("{}", cpu(results));
        }
        if !results.unseen.is_empty() {
            println!(
                "Not on this machine, so not in any CPU figure: {}",
                results.unseen.join(", ")
            );
        }
    }
    println!(
        "Medians unless the line names a percentile. The peers were measured on a quiet machine of two processors."
    );
}

fn figures(all: &[Results]) -> Table {
    let mut header = vec!["measured", "unit", "aim"];
    header.extend(all.iter().map(|results| results.kind.name()));
    header.extend(["Airflow 3.3 + Celery", "Celery 5.7 alone"]);
    let mut table = new_table(header);
    for figure in Figure::ALL {
        if all.iter().all(|results| results.value(figure).is_none()) {
            continue;
        }
        let facts = figure.facts();
        let mut row = vec![
            Cell::new(facts.label),
            Cell::new(facts.unit),
            right(facts.aim.map_or_else(String::new, describe)),
        ];
        for results in all {
            let value = results.value(figure);
            let cell = right(value.map_or_else(|| "–".to_owned(), number));
            row.push(match figure.met(results.kind, value) {
                Some(true) => cell.fg(Color::Green),
                Some(false) => cell.fg(Color::Red).add_attribute(Attribute::Bold),
                None => cell,
            });
        }
        row.extend([
            right(facts.airflow.to_owned()),
            right(facts.celery.to_owned()),
        ]);
        table.add_row(row);
    }
    table
}

/// Scenarios as rows, groups of processes as columns.
fn cpu(results: &Results) -> Table {
    let mut groups: Vec<&str> = results
        .cpu
        .values()
        .flat_map(|groups| groups.keys().copied())
        .collect();
    groups.sort_unstable();
    groups.dedup();
    let mut header = vec!["scenario"];
    header.extend(&groups);
    let mut table = new_table(header);
    for (scenario, used) in &results.cpu {
        let mut row = vec![Cell::new(scenario)];
        row.extend(groups.iter().map(|group| {
            let median = used.get(group).and_then(|samples| samples.median());
            right(median.map_or_else(|| "–".to_owned(), number))
        }));
        table.add_row(row);
    }
    table
}

fn new_table(header: Vec<&str>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(header);
    table
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn describe(aim: Aim) -> String {
    match aim {
        Aim::Below(aim) => format!("< {aim}"),
        Aim::AtLeast(aim) => format!("≥ {aim}"),
    }
}

/// Three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
