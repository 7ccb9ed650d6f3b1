//! Where commands print: results to standard output, everything about the work to standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressDrawTarget};
use serde_json::Value;

/// The two streams, and what stands on the terminal.
pub(super) struct Console {
    out: Mutex<Box<dyn Write + Send>>,
    err: Mutex<Box<dyn Write + Send>>,
    /// Bars at the bottom of the terminal; hidden where there is none.
    bars: MultiProgress,
    /// Standard output is a terminal: tables fit its width, states have colours.
    pub(super) fancy_out: bool,
    /// Standard error is a terminal: bars move on it.
    pub(super) fancy_err: bool,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console")
            .field("fancy_out", &self.fancy_out)
            .field("fancy_err", &self.fancy_err)
            .finish_non_exhaustive()
    }
}

impl Console {
    /// The process's own streams.
    pub(super) fn of_process() -> Self {
        // https://no-color.org, and terminals that can do nothing.
        let plain = |name: &str, dull: &str| {
            std::env::var(name).is_ok_and(|value| {
                if dull.is_empty() {
                    !value.is_empty()
                } else {
                    value == dull
                }
            })
        };
        let colour = !plain("NO_COLOR", "") && !plain("TERM", "dumb");
        let fancy_err = io::stderr().is_terminal() && !plain("TERM", "dumb");
        let target = if fancy_err {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            out: Mutex::new(Box::new(io::stdout())),
            err: Mutex::new(Box::new(io::stderr())),
            bars: MultiProgress::with_draw_target(target),
            fancy_out: io::stdout().is_terminal() && colour,
            fancy_err,
        }
    }

    /// Any two streams, without a terminal.
    #[cfg(test)]
    pub(super) fn of(out: impl Write + Send + 'static, err: impl Write + Send + 'static) -> Self {
        Self {
            out: Mutex::new(Box::new(out)),
            err: Mutex::new(Box::new(err)),
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
            fancy_out: false,
            fancy_err: false,
        }
    }

    pub(super) fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Prints a part of the result, with a newline.
    pub(super) fn line(&self, text: &str) -> io::Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        self.bars.suspend(|| {
            writeln!(out, "{text}")?;
            out.flush()
        })
    }

    /// Prints a JSON value over several lines.
    pub(super) fn json(&self, value: &Value) -> io::Result<()> {
        self.line(&format!("{value:#}"))
    }

    /// Tells about the work. That nobody listens is no reason to stop.
    pub(super) fn note(&self, text: &str) {
        let mut err = self.err.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.bars.suspend(|| writeln!(err, "{text}"));
    }
}
