//! When the deadlines of a run are.

use crate::{
    ids::TaskIdx,
    row::RunRow,
    spec::{DagSpec, Deadline, Reference},
};
use chrono::{DateTime, TimeDelta, Utc};

/// What is known of a run that its deadlines count from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    pub queued_at: Option<DateTime<Utc>>,
    pub logical_date: Option<DateTime<Utc>>,
    pub started_at: Option<DateTime<Utc>>,
    /// How long the DAG's last successful runs took.
    pub average: Option<TimeDelta>,
}

impl Known {
    pub fn of(run: &RunRow, average: Option<TimeDelta>) -> Self {
        Self {
            queued_at: Some(run.queued_at),
            logical_date: run.logical_date,
            started_at: run.started_at,
            average,
        }
    }

    /// When a deadline is; none if its reference is not there (yet).
    pub fn due(&self, deadline: &Deadline) -> Option<DateTime<Utc>> {
        let from = match deadline.reference {
            None => return deadline.at,
            Some(Reference::Queued) => self.queued_at,
            Some(Reference::LogicalDate) => self.logical_date,
            Some(Reference::Start) => self.started_at,
            Some(Reference::AverageRuntime) => self
                .started_at
                .zip(self.average)
                .and_then(|(start, average)| start.checked_add_signed(average)),
        };
        from?.checked_add_signed(deadline.after.chrono())
    }
}

/// A deadline of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Due<'a> {
    /// Absent: of the run itself.
    pub task: Option<TaskIdx>,
    /// Which of the DAG's, or of the task's.
    pub position: i32,
    pub at: DateTime<Utc>,
    pub deadline: &'a Deadline,
}

/// Every deadline of a run that there is, in the order of the specification.
pub fn all<'a>(spec: &'a DagSpec, known: &Known) -> Vec<Due<'a>> {
    of_spec(spec)
        .filter_map(|(task, position, deadline)| {
            Some(Due {
                task,
                position,
                at: known.due(deadline)?,
                deadline,
            })
        })
        .collect()
}

/// The earliest of them.
pub fn first(spec: &DagSpec, known: &Known) -> Option<DateTime<Utc>> {
    all(spec, known).iter().map(|due| due.at).min()
}

/// The first deadline of a run that is accepted at `now`.
pub fn of_new(
    spec: &DagSpec,
    logical_date: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let known = Known {
        queued_at: Some(now),
        logical_date,
        ..Known::default()
    };
    first(spec, &known)
}

/// Whether some are known only once the run has started, and whether some need the average of earlier ones.
pub fn needs(spec: &DagSpec) -> (bool, bool) {
    let references = || of_spec(spec).filter_map(|(_, _, deadline)| deadline.reference);
    let average = references().any(|reference| reference == Reference::AverageRuntime);
    (
        average || references().any(|reference| reference == Reference::Start),
        average,
    )
}

fn of_spec(spec: &DagSpec) -> impl Iterator<Item = (Option<TaskIdx>, i32, &Deadline)> {
    let of_run = (0..).zip(&spec.deadlines).map(|(n, d)| (None, n, d));
    let of_tasks = (0..).zip(&spec.tasks).flat_map(|(idx, task)| {
        (0..)
            .zip(&task.deadlines)
            .map(move |(n, deadline)| (Some(idx), n, deadline))
    });
    of_run.chain(of_tasks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    #[test]
    fn deadlines_count_from_what_is_known() {
        let call = json!([{"webhook": "http://h/"}]);
        let deadline =
            |reference: &str| json!({"reference": reference, "after": "10s", "call": call});
        let spec: DagSpec = serde_json::from_value(json!({
            "dag_id": "d",
            "deadlines": [deadline("queued"), deadline("logical_date"), {"at": at(7), "call": call}],
            "tasks": [{"task_id": "t", "noop": {}, "deadlines": [deadline("start"), deadline("average_runtime")]}],
        }))
        .unwrap();
        assert_eq!(needs(&spec), (true, true));
        let seen = |known: &Known| -> Vec<(Option<TaskIdx>, i32, i64)> {
            let due = |due: &Due<'_>| (due.task, due.position, due.at.timestamp());
            all(&spec, known).iter().map(due).collect()
        };
        let accepted = Known {
            queued_at: Some(at(100)),
            ..Known::default()
        };
        assert_eq!(seen(&accepted), [(None, 0, 110), (None, 2, 7)]);
        assert_eq!(first(&spec, &accepted), Some(at(7)));
        let started = Known {
            started_at: Some(at(200)),
            average: Some(TimeDelta::seconds(60)),
            ..accepted
        };
        let all = [
            (None, 0, 110),
            (None, 2, 7),
            (Some(0), 0, 210),
            (Some(0), 1, 270),
        ];
        assert_eq!(seen(&started), all);
    }
}
