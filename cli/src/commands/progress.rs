//! The progress of a run: a bar per task state on a terminal, a line per change elsewhere.

use std::collections::BTreeMap;

use indicatif::{ProgressBar, ProgressStyle};

use super::console::Console;

/// Task instances by state.
pub(super) type Counts = BTreeMap<String, u64>;

/// States in the order in which they are shown: what is over first, then what is near its end. Others follow.
const ORDER: [&str; 8] = [
    "success",
    "failed",
    "upstream_failed",
    "skipped",
    "running",
    "queued",
    "scheduled",
    "up_for_retry",
];
const OVER: [&str; 5] = ["success", "failed", "upstream_failed", "skipped", "removed"];

#[derive(Debug)]
pub(super) struct Progress<'a> {
    console: &'a Console,
    shown: Counts,
    bars: BTreeMap<String, ProgressBar>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(console: &'a Console) -> Self {
        Self {
            console,
            shown: Counts::new(),
            bars: BTreeMap::new(),
        }
    }

    /// Shows these counts, if they are others than before.
    pub(super) fn update(&mut self, counts: &Counts) {
        if counts.is_empty() || *counts == self.shown {
            return;
        }
        self.shown = counts.clone();
        if self.console.fancy_err {
            self.draw();
        } else {
            self.console
                .note(&format!("{}: {}", done(counts), list(counts)));
        }
    }

    fn draw(&mut self) {
        let total = self.shown.values().sum();
        for (state, count) in sorted(&self.shown) {
            let bar = self.bars.entry(state.to_owned()).or_insert_with(|| {
                let bar = ProgressBar::new(total).with_prefix(state.to_owned());
                bar.set_style(style(state));
                self.console.bars().add(bar)
            });
            bar.set_length(total);
            bar.set_position(count);
        }
        for (state, bar) in &self.bars {
            if !self.shown.contains_key(state) {
                bar.set_position(0);
            }
        }
    }
}

/// The bars go with the one who shows them.
impl Drop for Progress<'_> {
    fn drop(&mut self) {
        for bar in self.bars.values() {
            bar.finish_and_clear();
        }
    }
}

fn style(state: &str) -> ProgressStyle {
    let colour = match state {
        "success" => "green",
        "failed" | "upstream_failed" => "red",
        "running" => "cyan",
        _ => "yellow",
    };
    let template = format!("{{prefix:>16}} {{bar:30.{colour}}} {{pos}}/{{len}}");
    // A wrong template would be a mistake of this function; a plain bar is no reason to fail.
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// `3/10 tasks done`.
fn done(counts: &Counts) -> String {
    let over: u64 = OVER.iter().filter_map(|state| counts.get(*state)).sum();
    let total: u64 = counts.values().sum();
    format!("{over}/{total} tasks done")
}

/// `2 success, 1 failed, 4 running`.
pub(super) fn list(counts: &Counts) -> String {
    let parts: Vec<String> = sorted(counts)
        .into_iter()
        .map(|(state, count)| match state {
            "none" => format!("{count} waiting"),
            _ => format!("{count} {state}"),
        })
        .collect();
    parts.join(", ")
}

fn sorted(counts: &Counts) -> Vec<(&str, u64)> {
    let rank = |state: &str| {
        ORDER
            .iter()
            .position(|other| *other == state)
            .unwrap_or(ORDER.len())
    };
    let mut sorted: Vec<(&str, u64)> = counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| (state.as_str(), *count))
        .collect();
    sorted.sort_by_key(|(state, _)| rank(state));
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_listed_in_order() {
        let counts = Counts::from([
            ("none".to_owned(), 3),
            ("running".to_owned(), 4),
            ("failed".to_owned(), 1),
            ("success".to_owned(), 2),
            ("skipped".to_owned(), 0),
        ]);
        assert_eq!(done(&counts), "3/10 tasks done");
        assert_eq!(list(&counts), "2 success, 1 failed, 4 running, 3 waiting");
    }
}
