//! One self-contained page: tables and plots, nothing loaded from elsewhere.

use super::{
    document::{Bound, Document, FigureValue, Measured},
    svg::{self, Line, escape},
    table::{describe, heading, keys, notes, number},
};
use std::{collections::BTreeSet, fmt::Write as _};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#222;background:#fff}\
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin:2rem 0 .5rem;border-bottom:1px solid #ddd}h3{font-size:1rem;margin:1.2rem 0 .2rem}\
table{border-collapse:collapse;font-size:.85rem}th,td{padding:.25rem .6rem;border-bottom:1px solid #eee;text-align:right;font-variant-numeric:tabular-nums}\
th{border-bottom:2px solid #ccc;vertical-align:bottom}td{white-space:nowrap}td:first-child,th:first-child{text-align:left;white-space:pre}td:nth-child(2),th:nth-child(2){text-align:left;color:#666}\
td.met{color:#006b45;font-weight:600}td.missed{color:#b3261e;font-weight:600}.where,.notes{color:#555;font-size:.85rem}\
svg{max-width:100%;height:auto;display:block}svg text{font:12px system-ui,sans-serif;fill:#444}.grid{stroke:#e6e6e6}.target{stroke:#222;stroke-dasharray:4 3}\
rect.met{fill:#009e73}rect.missed{fill:#d55e00}.legend{font-size:.8rem;margin:.2rem 0 1rem}.legend span{margin-right:1rem}\
.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.35em;border-radius:2px}";

/// The whole page, a part for each document.
pub(super) fn page(documents: &[Document]) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>\
         <meta name='viewport' content='width=device-width,initial-scale=1'>\
         <title>Gristmill under load</title><style>{STYLE}</style></head><body><h1>Gristmill under load</h1>\n"
    );
    for document in documents {
        part(&mut html, document);
    }
    html.push_str("</body></html>\n");
    html
}

fn part(html: &mut String, document: &Document) {
    let title = format!(
        "{}, {}",
        document.command,
        document.measured_at.format("%Y-%m-%d %H:%M UTC")
    );
    let _ = writeln!(
        html,
        "<h2>{}</h2><p class='where'>{}</p>",
        escape(&title),
        escape(&heading(document))
    );
    figures(html, document);
    for measured in &document.deployments {
        targets(html, measured);
    }
    for measured in &document.deployments {
        timeline(html, measured);
    }
    distributions(html, document);
    for measured in &document.deployments {
        cpu(html, measured);
    }
    html.push_str("<p class='notes'>");
    html.push_str(&escape(&notes(document).join(" ")));
    html.push_str("</p>\n");
}

fn figures(html: &mut String, document: &Document) {
    html.push_str("<table><thead><tr><th>measured</th><th>unit</th>");
    for measured in &document.deployments {
        let _ = write!(
            html,
            "<th>target</th><th>{}</th>",
            escape(measured.deployment.name())
        );
    }
    for peer in &document.peers {
        let _ = write!(html, "<th>{}</th>", escape(&peer.label));
    }
    html.push_str("</tr></thead><tbody>\n");
    for key in keys(document) {
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{}</td>",
            escape(&key.label),
            escape(&key.unit)
        );
        for measured in &document.deployments {
            let figure = measured.figure(&key.key);
            let aim = figure.and_then(|figure| figure.aim.as_ref()).map(describe);
            let _ = write!(html, "<td>{}</td>", escape(&aim.unwrap_or_default()));
            html.push_str(&figure.map_or_else(|| "<td>–</td>".to_owned(), value_cell));
        }
        for value in document.peer_value(&key.key) {
            let _ = write!(
                html,
                "<td>{}</td>",
                value.map_or_else(|| "–".to_owned(), number)
            );
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table>\n");
}

fn value_cell(figure: &FigureValue) -> String {
    let class = match figure.met {
        Some(true) => " class='met'",
        Some(false) => " class='missed'",
        None => "",
    };
    format!(
        "<td{class} title='{} to {}, {} samples'>{}</td>",
        number(figure.min),
        number(figure.max),
        figure.samples,
        number(figure.value)
    )
}

/// How far from its target each figure is.
fn targets(html: &mut String, measured: &Measured) {
    let rows: Vec<(String, f64)> = measured
        .figures
        .iter()
        .filter_map(|figure| {
            let aim = figure.aim.as_ref()?;
            let ratio = match aim.bound {
                Bound::AtMost => figure.value / aim.value,
                Bound::AtLeast => aim.value / figure.value,
            };
            ratio
                .is_finite()
                .then(|| (measured.full_label(figure), ratio))
        })
        .collect();
    if !rows.is_empty() {
        let _ = writeln!(
            html,
            "<h3>Against the targets, {}</h3>{}",
            escape(measured.deployment.name()),
            svg::against_targets(&rows)
        );
    }
}

fn timeline(html: &mut String, measured: &Measured) {
    if measured.timeline.is_empty() {
        return;
    }
    let line = |name: &str, of: fn(&super::Second) -> u64| -> Line {
        let points = measured.timeline.iter().enumerate();
        (
            name.to_owned(),
            points
                .map(|(second, at)| (second as f64, of(at) as f64))
                .collect(),
        )
    };
    let rates = [
        line("due", |second| second.intended),
        line("accepted", |second| second.accepted),
        line("ended", |second| second.ended),
    ];
    let open = [line("in flight", |second| second.in_flight)];
    let _ = writeln!(
        html,
        "<h3>Runs second by second, {}</h3>{}{}",
        escape(measured.deployment.name()),
        svg::lines("second", "runs per second", &rates),
        svg::lines("second", "runs in flight", &open)
    );
}

/// A plot for each figure that was sampled often, a line for each deployment.
fn distributions(html: &mut String, document: &Document) {
    let mut seen = BTreeSet::new();
    for key in keys(document) {
        let lines: Vec<Line> = document
            .deployments
            .iter()
            .filter_map(|measured| {
                let figure = measured.figure(&key.key)?;
                let points = figure.distribution.clone();
                (!points.is_empty()).then(|| (measured.deployment.name().to_owned(), points))
            })
            .collect();
        // Two percentiles of the same samples give one plot.
        let samples: Vec<_> = lines
            .iter()
            .map(|(_, points)| format!("{points:?}"))
            .collect();
        if lines.is_empty() || !seen.insert(samples) {
            continue;
        }
        let name = key.label.trim();
        let name = name.split([':', ',']).next().unwrap_or(name);
        let _ = writeln!(
            html,
            "<h3>Distribution: {}</h3>{}",
            escape(name),
            svg::lines("percentile", &key.unit, &lines)
        );
    }
}

fn cpu(html: &mut String, measured: &Measured) {
    let groups: BTreeSet<&str> = measured
        .cpu_s_per_1000_tasks
        .values()
        .flat_map(|groups| groups.keys().map(String::as_str))
        .collect();
    if groups.is_empty() {
        return;
    }
    let groups: Vec<&str> = groups.into_iter().collect();
    let rows: Vec<(String, Vec<f64>)> = measured
        .cpu_s_per_1000_tasks
        .iter()
        .map(|(scenario, used)| {
            let of = |group: &&str| used.get(*group).copied().unwrap_or(0.0);
            (scenario.clone(), groups.iter().map(of).collect())
        })
        .collect();
    let _ = writeln!(
        html,
        "<h3>CPU time by process, {}</h3>{}",
        escape(measured.deployment.name()),
        svg::stacked("CPU seconds per 1000 tasks", &groups, &rows)
    );
}
