//! The report for a terminal.

use super::document::{AimValue, Bound, Document, FigureValue, Measured};
use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets::UTF8_FULL_CONDENSED};
use std::collections::BTreeSet;

/// The whole report.
pub(super) fn text(document: &Document) -> String {
    let mut lines = vec![heading(document), figures(document).to_string()];
    for measured in &document.deployments {
        let name = measured.deployment.name();
        if !measured.cpu_s_per_1000_tasks.is_empty() {
            lines.push(format!("CPU seconds per 1000 tasks by process, {name}"));
            lines.push(cpu(measured).to_string());
        }
        if !measured.servers_not_counted.is_empty() {
            lines.push(format!(
                "Not on this machine, so not in any CPU figure: {}",
                measured.servers_not_counted.join(", ")
            ));
        }
    }
    lines.extend(notes(document));
    lines.join("\n")
}

/// When, where and under which load.
pub(super) fn heading(document: &Document) -> String {
    let machine = &document.machine;
    format!(
        "{} {} · {} processors ({}), {} GiB, Linux {} · load average {:.1} before, {:.1} after · {}",
        document.command,
        document.measured_at.format("%Y-%m-%d %H:%M UTC"),
        machine.processors,
        machine.model,
        machine.memory_gib,
        machine.kernel,
        machine.load_before,
        machine.load_after,
        settings(document),
    )
}

/// What was asked for.
fn settings(document: &Document) -> String {
    let words: Vec<String> = document
        .settings
        .iter()
        .map(|(name, value)| match value.as_str() {
            Some(text) => format!("{name} {text}"),
            None => format!("{name} {value}"),
        })
        .collect();
    words.join(", ")
}

/// What a reader must know beside the figures.
pub(super) fn notes(document: &Document) -> Vec<String> {
    let mut notes = Vec::new();
    let bases: BTreeSet<String> = document
        .deployments
        .iter()
        .flat_map(|measured| &measured.figures)
        .filter_map(|figure| {
            Some(format!(
                "{}: {}",
                figure.label.trim(),
                figure.aim.as_ref()?.basis.as_ref()?
            ))
        })
        .collect();
    notes.extend(bases.into_iter().map(|basis| format!("Target of {basis}.")));
    if document.command == "bench" {
        notes.push(
            "Medians unless the line names a percentile. The peers' reference figures are of a quiet machine of two \
             processors, Celery's with its defaults / with late acknowledgement, confirms and a prefetch of 1."
                .to_owned(),
        );
    }
    notes
}

/// Keys of all figures in the order of the reports, each once.
pub(super) fn keys(document: &Document) -> Vec<&FigureValue> {
    let mut seen = BTreeSet::new();
    let mut all: Vec<&FigureValue> = document
        .deployments
        .iter()
        .flat_map(|measured| &measured.figures)
        .filter(|figure| seen.insert(&figure.key))
        .collect();
    let place = |figure: &FigureValue| {
        super::Figure::ALL
            .iter()
            .position(|known| known.facts().key == figure.key)
    };
    // Stable: figures of `run`, which are not in the list, keep their order.
    all.sort_by_key(|figure| place(figure));
    all
}

fn figures(document: &Document) -> Table {
    let keys = keys(document);
    let references: Vec<&str> = ["airflow", "celery"]
        .into_iter()
        .filter(|name| keys.iter().any(|key| key.reference.contains_key(*name)))
        .collect();
    let aims: Vec<bool> = document
        .deployments
        .iter()
        .map(|measured| measured.figures.iter().any(|figure| figure.aim.is_some()))
        .collect();
    let mut header = vec!["measured".to_owned(), "unit".to_owned()];
    for (measured, &aims) in document.deployments.iter().zip(&aims) {
        if aims {
            header.push("target".to_owned());
        }
        header.push(measured.deployment.name().to_owned());
    }
    header.extend(document.peers.iter().map(|peer| peer.label.clone()));
    header.extend(references.iter().map(|name| format!("{name} (reference)")));
    let mut table = new_table(header);
    for key in keys {
        let mut row = vec![Cell::new(&key.label), Cell::new(&key.unit)];
        for (measured, &aims) in document.deployments.iter().zip(&aims) {
            let figure = measured.figure(&key.key);
            if aims {
                let aim = figure.and_then(|figure| figure.aim.as_ref());
                row.push(right(aim.map_or_else(String::new, describe)));
            }
            let cell = right(figure.map_or_else(|| "–".to_owned(), |figure| number(figure.value)));
            row.push(match figure.and_then(|figure| figure.met) {
                Some(true) => cell.fg(Color::Green),
                Some(false) => cell.fg(Color::Red).add_attribute(Attribute::Bold),
                None => cell,
            });
        }
        row.extend(
            document
                .peer_value(&key.key)
                .map(|value| right(value.map_or_else(|| "–".to_owned(), number))),
        );
        row.extend(
            references
                .iter()
                .map(|&name| right(key.reference.get(name).cloned().unwrap_or_default())),
        );
        table.add_row(row);
    }
    table
}

/// Scenarios as rows, groups of processes as columns.
fn cpu(measured: &Measured) -> Table {
    let groups: BTreeSet<&String> = measured
        .cpu_s_per_1000_tasks
        .values()
        .flat_map(|groups| groups.keys())
        .collect();
    let mut header = vec!["scenario".to_owned()];
    header.extend(groups.iter().map(|&group| group.clone()));
    let mut table = new_table(header);
    for (scenario, used) in &measured.cpu_s_per_1000_tasks {
        let mut row = vec![Cell::new(scenario)];
        row.extend(groups.iter().map(|&group| {
            right(
                used.get(group)
                    .map_or_else(|| "–".to_owned(), |&used| number(used)),
            )
        }));
        table.add_row(row);
    }
    table
}

pub(crate) fn new_table(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(header);
    table
}

pub(crate) fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

pub(super) fn describe(aim: &AimValue) -> String {
    let sign = match aim.bound {
        Bound::AtMost => "≤",
        Bound::AtLeast => "≥",
    };
    format!("{sign} {}", number(aim.value))
}

/// Three significant digits.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 || v.fract() == 0.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.2}"),
        v if v >= 0.001 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}
