//! Waiting for a condition, with a deadline.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use crate::error::{Result, TestkitError};

const PAUSE: Duration = Duration::from_millis(20);

/// Asks `probe` until it gives `Some`, at most for `deadline`.
///
/// `what` completes the sentence "waited 5 s in vain for …".
pub async fn until<T, F>(what: &str, deadline: Duration, mut probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return Ok(found);
        }
        if start.elapsed() >= deadline {
            return Err(TestkitError::TimedOut {
                what: what.to_owned(),
                waited_s: deadline.as_secs_f32(),
                context: String::new(),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Last `lines` lines of a text file; empty when there is none.
pub fn tail(path: &std::path::Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
