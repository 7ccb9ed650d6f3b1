//! Replays what Airflow's own timetables and retries answered: `scripts/conformance/timetables.py` stored it.

use super::*;
use crate::{
    retry::{self, RetryIdentity},
    span::Span,
    spec::TaskSpec,
};
use serde::Deserialize;

/// Runs that each timetable was asked for.
const RUNS: usize = 20;

#[derive(Deserialize)]
struct Stored<T> {
    cases: Vec<T>,
}

#[derive(Deserialize)]
struct TimetableCase {
    timetable: String,
    schedule: Value,
    timezone: String,
    start_date: String,
    end_date: Option<String>,
    runs: Vec<String>,
    /// Absent: the runs have no intervals.
    starts: Option<Vec<String>>,
}

impl TimetableCase {
    fn timetable(&self) -> Timetable {
        let schedule = match &self.schedule {
            Value::Array(crons) => json!({ "crons": crons }),
            Value::String(text) => match text.strip_prefix("every ") {
                Some(span) => json!({ "every": span }),
                None => json!({ "cron": text }),
            },
            other => panic!("{other} is no schedule"),
        };
        let interval = match self.starts {
            Some(_) => "preceding",
            None => "none",
        };
        table(json!({
            "schedule": schedule, "timezone": self.timezone, "start_date": self.start_date, "end_date": self.end_date,
            "catchup": true, "data_interval": interval,
        }))
    }

    /// Whether an interval of Airflow's does not begin where the one before ends.
    fn leaves_a_gap(&self) -> bool {
        let starts = self.starts.iter().flatten().skip(1);
        starts.zip(&self.runs).any(|(start, end)| start != end)
    }

    /// The first `n` runs, or all before the end date.
    fn found(&self, n: usize) -> Vec<(DateTime<Utc>, DateTime<Utc>)> {
        let timetable = self.timetable();
        let now = at("2100-01-01T00:00:00Z");
        let first = timetable.next_after(None, now);
        let next = |run: &NextRun| timetable.next_after(Some(run.run_after), now);
        std::iter::successors(first, next)
            .take(n)
            .inspect(|run| {
                assert_eq!(
                    (run.logical_date, run.run_after),
                    (run.interval_start, run.interval_end)
                );
            })
            .map(|run| (run.interval_start, run.run_after))
            .collect()
    }

    fn wanted(&self) -> Vec<(DateTime<Utc>, DateTime<Utc>)> {
        let starts = self.starts.as_ref().unwrap_or(&self.runs);
        let pairs = starts.iter().zip(&self.runs);
        pairs.map(|(start, end)| (at(start), at(end))).collect()
    }
}

#[test]
fn runs_are_those_of_airflow() {
    let text = include_str!("../../../tests/conformance/timetables.json");
    let stored: Stored<TimetableCase> = serde_json::from_str(text).unwrap();
    let (mut different, mut gaps) = (Vec::new(), 0);
    for case in &stored.cases {
        let (found, wanted) = (case.found(RUNS), case.wanted());
        if case.leaves_a_gap() {
            // docs/differences.md: our intervals leave nothing out, and have all of Airflow's among them.
            gaps += 1;
            let found = case.found(RUNS + 5);
            assert!(
                found.windows(2).all(|two| two[0].1 == two[1].0),
                "{}",
                case.schedule
            );
            assert!(
                wanted.iter().all(|run| found.contains(run)),
                "{}",
                case.schedule
            );
        } else if found != wanted {
            let first = found
                .iter()
                .zip(&wanted)
                .find(|(found, wanted)| found != wanted);
            different.push(format!(
                "{} {} {} from {}: {} runs, {} wanted; first (found, wanted): {first:?}",
                case.timetable,
                case.schedule,
                case.timezone,
                case.start_date,
                found.len(),
                wanted.len(),
            ));
        }
    }
    println!(
        "{} timetables of Airflow replayed: {} equal, {gaps} with a gap that ours do not have",
        stored.cases.len(),
        stored.cases.len() - different.len() - gaps
    );
    assert!(stored.cases.len() >= 200 && gaps < 10);
    assert_eq!(different.len(), 0, "{}", different.join("\n"));
}

#[derive(Deserialize)]
struct RetryCase {
    retry_delay: u64,
    retry_exponential_backoff: f64,
    max_retry_delay: Option<u64>,
    dag_id: String,
    task_id: String,
    logical_date: String,
    waits: Vec<f64>,
}

#[test]
fn retries_wait_as_long_as_those_of_airflow() {
    let text = include_str!("../../../tests/conformance/retries.json");
    let stored: Stored<RetryCase> = serde_json::from_str(text).unwrap();
    let mut different = Vec::new();
    for case in &stored.cases {
        let mut task: TaskSpec = serde_json::from_str(r#"{"task_id": "t", "noop": {}}"#).unwrap();
        task.retry_delay = Span::from_secs(case.retry_delay);
        task.retry_exponential_backoff = case.retry_exponential_backoff;
        task.max_retry_delay = case.max_retry_delay.map(Span::from_secs);
        let identity = RetryIdentity {
            dag_id: &case.dag_id,
            task_id: &case.task_id,
            date: at(&case.logical_date),
        };
        let found: Vec<f64> = (1..)
            .take(case.waits.len())
            .map(|failures| retry::delay(&task, failures, identity).num_milliseconds() as f64 / 1e3)
            .collect();
        // docs/differences.md: the longest wait bounds a constant delay too.
        let constant = matches!(case.retry_exponential_backoff, 0.0 | 1.0);
        let longest = case.max_retry_delay.filter(|_| constant);
        let bounded = |wait: &f64| longest.map_or(*wait, |longest| wait.min(longest as f64));
        let wanted: Vec<f64> = case.waits.iter().map(bounded).collect();
        if found != wanted {
            different.push(format!(
                "{} s × {}, at most {:?}, {}: {found:?}, not {:?}",
                case.retry_delay,
                case.retry_exponential_backoff,
                case.max_retry_delay,
                case.logical_date,
                case.waits
            ));
        }
    }
    println!("{} delays of Airflow replayed", stored.cases.len());
    assert_eq!(different.len(), 0, "{}", different.join("\n"));
}
