//! Every run and instance ends in a state that its DAG and its tasks' outcomes allow, by the reference evaluation.

use super::{
    Verdict,
    rows::{Attempt, Ending, Instance, Rows, Run},
};
use crate::workload::{Dag, Outcome, Workload};
use gristmill_common::{
    ids::TaskIdx,
    invariant::Invariant,
    reference::{self, Interrupted, Interruption, List, Observed, Script, Stop},
    spec::DagSpec,
    state::TaskState,
};

/// Judges every run that has ended.
pub(super) fn check(rows: &Rows, workload: &Workload, verdict: &mut Verdict) {
    let invariant = Invariant::EndingsRight;
    for (run, instances) in rows.instances_by_run() {
        if !run.state.is_finished() {
            continue;
        }
        let Some(spec) = rows.spec(run) else { continue };
        let script = RunScript {
            spec,
            dag: workload.dag(&run.dag_id),
            instances,
            rows,
        };
        let stop = if run.stopped {
            Stop::AtSomeMoment
        } else {
            Stop::Never
        };
        let mut observed: Vec<Vec<Observed>> = vec![Vec::new(); spec.tasks.len()];
        for instance in instances.iter().filter(|instance| instance.is_visible()) {
            let seen = usize::try_from(instance.task_idx)
                .ok()
                .and_then(|idx| observed.get_mut(idx));
            if let Some(seen) = seen {
                seen.push(Observed {
                    map_index: instance.map_index,
                    state: instance.state,
                    tries: instance.try_number,
                });
            }
        }
        let answer = reference::evaluate(spec, &script, stop);
        for contradiction in answer.judge(run.state, &observed) {
            verdict.breach(invariant, format!("{run}: {contradiction}"));
        }
        for instance in instances {
            attempts(rows, run, instance, &script, verdict);
        }
    }
}

/// The attempts that ended by themselves ended as their task does.
fn attempts(
    rows: &Rows,
    run: &Run,
    instance: &Instance,
    script: &RunScript<'_>,
    verdict: &mut Verdict,
) {
    let Some(dag) = script.dag else { return };
    let Some(task) = script.spec.task(instance.task_idx) else {
        return;
    };
    for attempt in rows.attempts_of(instance) {
        let outcome = dag.outcome(&task.task_id, instance.map_index, attempt.try_number);
        let right = match attempt.ending {
            Ending::Lost | Ending::Requeued => true,
            Ending::Success => outcome == Outcome::Success,
            Ending::Skipped => outcome == Outcome::Skip,
            Ending::UpForRetry => outcome == Outcome::Failure,
            Ending::Failed => outcome == Outcome::Failure || run.stopped,
        };
        if !right {
            let what = format!(
                "{} try {} (fence {}) ended as {}, its task's outcome is {outcome:?}",
                rows.name(instance),
                attempt.try_number,
                attempt.fence,
                attempt.ending.name()
            );
            verdict.breach(Invariant::EndingsRight, what);
        }
    }
}

/// What the tasks of one run do: known of a DAG of the workload, else taken from the records of what they did.
struct RunScript<'a> {
    spec: &'a DagSpec,
    dag: Option<&'a Dag>,
    /// Of the run, sorted by task and map index.
    instances: &'a [Instance],
    rows: &'a Rows,
}

impl RunScript<'_> {
    fn instance(&self, task: TaskIdx, map_index: i32) -> Option<&Instance> {
        self.instances
            .binary_search_by_key(&(task, map_index), |i| (i.task_idx, i.map_index))
            .ok()
            .map(|position| &self.instances[position])
    }

    fn attempts(&self, task: TaskIdx, map_index: i32) -> &[Attempt] {
        self.instance(task, map_index)
            .map_or(&[], |instance| self.rows.attempts_of(instance))
    }
}

impl Script for RunScript<'_> {
    fn outcome(&self, task: TaskIdx, map_index: i32, try_number: i32) -> reference::Outcome {
        if let Some((dag, task)) = self.dag.zip(self.spec.task(task)) {
            return match dag.outcome(&task.task_id, map_index, try_number) {
                Outcome::Success => reference::Outcome::Success,
                Outcome::Failure => reference::Outcome::Failed,
                Outcome::Skip => reference::Outcome::Skipped,
            };
        }
        let record = self
            .attempts(task, map_index)
            .iter()
            .find(|attempt| attempt.try_number == try_number);
        match record.map(|attempt| attempt.ending) {
            Some(Ending::Failed) => reference::Outcome::FailedForGood,
            Some(Ending::UpForRetry) => reference::Outcome::Failed,
            Some(Ending::Skipped) => reference::Outcome::Skipped,
            _ => reference::Outcome::Success,
        }
    }

    /// By what became of the task's node.
    fn lists(&self, task: TaskIdx, _: &str) -> Vec<List> {
        let Some(node) = self.instance(task, -1) else {
            return vec![List::None];
        };
        match node.expanded_len.and_then(|n| usize::try_from(n).ok()) {
            Some(n) => vec![List::Length(n)],
            None if node.state == TaskState::Skipped => vec![List::Length(0)],
            None if node.state == TaskState::UpstreamFailed => vec![List::Missing],
            None => vec![List::None],
        }
    }

    fn interrupted(&self, task: TaskIdx, map_index: i32) -> Interrupted {
        let tries = self.attempts(task, map_index).iter();
        let tries = tries.filter_map(|attempt| {
            let how = match attempt.ending {
                Ending::Lost => Interruption::Lost,
                Ending::Requeued => Interruption::Requeued,
                _ => return None,
            };
            Some((attempt.try_number, how))
        });
        Interrupted::Tries(tries.collect())
    }
}
