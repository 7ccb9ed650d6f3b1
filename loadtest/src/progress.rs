//! What the tool is doing, on standard error: a bar on a terminal, a line now and then elsewhere.

use crate::deployment::Kind;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

/// Between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(5);

/// Says what begins now.
pub fn step(kind: Kind, what: &str) {
    eprintln!("{}: {what}", kind.name());
}

/// A count on its way to a total.
#[derive(Debug)]
pub struct Progress {
    what: String,
    total: u64,
    bar: Option<ProgressBar>,
    said: Instant,
}

impl Progress {
    /// Begins at nothing. `what` names what is counted, for example `runs ended`.
    pub fn new(what: &str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(
                "{prefix} {wide_bar} {pos}/{len} · {msg} · {elapsed} of about {duration}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total)
                .with_prefix(what.to_owned())
                .with_style(style)
        });
        Self {
            what: what.to_owned(),
            total,
            bar,
            said: Instant::now(),
        }
    }

    /// Shows how far it is, with words beside.
    pub fn set(&mut self, done: u64, words: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(words.to_owned());
                bar.set_position(done);
            }
            None if self.said.elapsed() >= PAUSE => {
                self.said = Instant::now();
                let Self { what, total, .. } = self;
                let comma = if words.is_empty() { "" } else { ", " };
                eprintln!("{what}: {done} of {total}{comma}{words}");
            }
            None => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
