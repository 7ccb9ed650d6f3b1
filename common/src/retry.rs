//! When a failed attempt is tried again.

use crate::spec::TaskSpec;
use chrono::{DateTime, Duration, Utc};
use sha1::{Digest, Sha1};

/// Attempts lost to infrastructure in a row after which a task instance is given up.
pub const MAX_INFRA_LOSSES: i32 = 3;

/// No wait is longer than a year, whoever asks for it.
pub const LONGEST_WAIT: Duration = Duration::days(366);

/// No computed backoff is longer, as in Airflow's `core.max_task_retry_delay`.
const LONGEST_BACKOFF_SECS: f64 = 86_400.0;

/// What makes the jitter of a backoff the same whenever it is computed.
#[derive(Debug, Clone, Copy)]
pub struct RetryIdentity<'a> {
    pub dag_id: &'a str,
    pub task_id: &'a str,
    /// The run's logical date, or its `run_after` when it has none.
    pub date: DateTime<Utc>,
}

/// The delay after the `failures`-th user failure (1 for the first).
///
/// Constant without `retry_exponential_backoff`, or with 1. With another multiplier the base is
/// `ceil(retry_delay × multiplier^(failures-1))`, at least one second, and a jitter that depends only on the identity
/// spreads the delay over `[base, 2 × base)`; a day and then `max_retry_delay` bound it.
pub fn delay(task: &TaskSpec, failures: i32, identity: RetryIdentity<'_>) -> Duration {
    let constant = task.retry_delay.chrono();
    let multiplier = task.retry_exponential_backoff;
    let wait = if multiplier > 0.0 && multiplier != 1.0 {
        let exponent = (failures - 1).max(0);
        let base = (task.retry_delay.as_secs_f64() * multiplier.powi(exponent))
            .ceil()
            .clamp(1.0, LONGEST_BACKOFF_SECS) as u64;
        let spread = base + jitter(identity, failures, base);
        Duration::milliseconds((spread.min(LONGEST_BACKOFF_SECS as u64) * 1000) as i64)
    } else {
        constant
    };
    task.max_retry_delay
        .map_or(wait, |max| wait.min(max.chrono()))
}

/// Below `bound`: a hash modulo it, the very one that Airflow takes.
fn jitter(identity: RetryIdentity<'_>, failures: i32, bound: u64) -> u64 {
    let text = format!(
        "{}#{}#{}#{failures}",
        identity.dag_id,
        identity.task_id,
        identity
            .date
            .format("%Y-%m-%d %H:%M:%S%.6f%:z")
            .to_string()
            .replace(".000000", "")
    );
    let byte = |remainder: u64, byte: &u8| (remainder * 256 + u64::from(*byte)) % bound;
    Sha1::digest(text.as_bytes()).iter().fold(0, byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::Span;

    fn task(delay: u64, multiplier: f64, max: Option<u64>) -> TaskSpec {
        let mut task: TaskSpec = serde_json::from_str(r#"{"task_id": "t", "noop": {}}"#).unwrap();
        task.retry_delay = Span::from_secs(delay);
        task.retry_exponential_backoff = multiplier;
        task.max_retry_delay = max.map(Span::from_secs);
        task
    }

    fn secs(task: &TaskSpec, failures: i32) -> i64 {
        let identity = RetryIdentity {
            dag_id: "d",
            task_id: "t",
            date: DateTime::UNIX_EPOCH,
        };
        assert_eq!(
            delay(task, failures, identity),
            delay(task, failures, identity),
            "deterministic"
        );
        delay(task, failures, identity).num_seconds()
    }

    #[test]
    fn constant_without_backoff() {
        assert_eq!(
            (1..5)
                .map(|n| secs(&task(30, 0.0, None), n))
                .collect::<Vec<_>>(),
            [30; 4]
        );
        assert_eq!(secs(&task(30, 0.0, Some(10)), 1), 10);
    }

    #[test]
    fn grows_within_bounds() {
        for failures in 1..40 {
            let base = (10.0 * 2f64.powi(failures - 1)).min(86_400.0) as i64;
            let wait = secs(&task(10, 2.0, None), failures);
            assert!(
                (base..(2 * base).min(86_401)).contains(&wait),
                "failure {failures}: {wait}"
            );
            assert!(secs(&task(10, 2.0, Some(60)), failures) <= 60);
        }
        assert!(secs(&task(0, 2.0, None), 1) >= 1);
    }
}
