//! Tells downstreams of endings until nothing moves any more.

use super::WorkingSet;
use crate::{
    fault,
    ids::{RunPk, TaskIdx, TiPk},
    limit::LimitKey,
    spec::TaskKind,
    state::{RunState, TaskState},
    transition,
    trigger_rule::{Verdict, decide},
};

/// Nodes that have to be loaded before the set can settle.
pub type Missing = Vec<(RunPk, TaskIdx)>;

/// Counts every ending into its direct downstreams and decides their trigger rules; a node that ends without running
/// (`skipped`, `upstream_failed`, `empty`) is an ending itself. Answers the nodes that are missing: load and call again. With
/// nothing missing, runs without unfinished instances have ended.
pub fn settle(ws: &mut WorkingSet) -> Missing {
    let missing = missing_nodes(ws);
    if !missing.is_empty() {
        return missing;
    }
    while let Some((run, task_idx, by)) = ws.widened.pop_front() {
        for node in downstream_nodes(ws, run, task_idx) {
            if !is_undecided(ws, node) {
                continue;
            }
            if let Some(row) = ws.ti_mut(node) {
                row.counters.total += by;
            }
        }
    }
    while let Some(ended) = ws.endings.front().copied() {
        // A node that ended in here brings downstreams that may not be loaded. All that are missing by now are asked for
        // at once, and only then: looking through every waiting ending for each one would cost their square.
        if !is_loaded(ws, ended.run, ended.task_idx) {
            return missing_nodes(ws);
        }
        ws.endings.pop_front();
        for node in downstream_nodes(ws, ended.run, ended.task_idx) {
            count(ws, node, ended.state);
        }
    }
    end_runs(ws);
    Vec::new()
}

fn is_loaded(ws: &WorkingSet, run: RunPk, task_idx: TaskIdx) -> bool {
    ws.plan_of(run).is_none_or(|plan| {
        plan.graph
            .downstream(task_idx)
            .iter()
            .all(|d| ws.has_node(run, *d))
    })
}

fn missing_nodes(ws: &WorkingSet) -> Missing {
    let ended = ws.endings.iter().map(|e| (e.run, e.task_idx));
    let widened = ws.widened.iter().map(|(run, idx, _)| (*run, *idx));
    let mut missing: Missing = ended
        .chain(widened)
        .flat_map(|(run, idx)| {
            ws.plan_of(run)
                .map(|plan| plan.graph.downstream(idx))
                .unwrap_or_default()
                .iter()
                .map(move |d| (run, *d))
        })
        .filter(|(run, d)| ws.node(*run, *d).is_none())
        .collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

fn downstream_nodes(ws: &WorkingSet, run: RunPk, task_idx: TaskIdx) -> Vec<TiPk> {
    ws.plan_of(run)
        .map(|plan| plan.graph.downstream(task_idx))
        .unwrap_or_default()
        .iter()
        .filter_map(|d| ws.node(run, *d))
        .collect()
}

/// A decided node's counters are of no use any more: it is not written again for them.
fn is_undecided(ws: &WorkingSet, node: TiPk) -> bool {
    ws.ti(node)
        .is_some_and(|row| row.state == TaskState::None && row.expanded_len.is_none())
}

fn count(ws: &mut WorkingSet, node: TiPk, ending: TaskState) {
    ws.edges_counted += 1;
    if !is_undecided(ws, node) {
        return;
    }
    if let Some(row) = ws.ti_mut(node) {
        row.counters.count(ending, false);
    }
    evaluate(ws, node);
}

/// Decides a node's trigger rule and acts on the verdict.
pub(super) fn evaluate(ws: &mut WorkingSet, node: TiPk) -> Option<()> {
    let row = ws.ti(node)?;
    if row.state != TaskState::None || row.expanded_len.is_some() || ws.to_expand.contains(&node) {
        return None;
    }
    let plan = ws.plan_of(row.run)?.clone();
    let task = plan.task(row.task_idx)?;
    let now = ws.now;
    let ends = |state, why: &str| {
        (
            state,
            Some(format!("trigger rule {}: {why}", task.trigger_rule)),
        )
    };
    let (state, reason) = match decide(task.trigger_rule, &row.counters) {
        Verdict::Wait => return None,
        Verdict::Skip | Verdict::UpstreamFailed if fault::misbehaves("ignore-trigger-rule") => {
            ws.change(node, |row| transition::schedule(row, now))?;
            return ws.became_ready(node);
        }
        Verdict::Skip => ends(TaskState::Skipped, "it can no longer hold"),
        Verdict::UpstreamFailed => ends(TaskState::UpstreamFailed, "an upstream failed"),
        Verdict::Run if task.expand.is_some() => {
            ws.to_expand.push(node);
            return Some(());
        }
        Verdict::Run if matches!(task.kind, TaskKind::Empty(_)) => (TaskState::Success, None),
        Verdict::Run => {
            ws.change(node, |row| transition::schedule(row, now))?;
            return ws.became_ready(node);
        }
    };
    ws.change(node, |row| transition::resolve(row, state, reason, now))?;
    ws.instance_ended(node)
}

fn end_runs(ws: &mut WorkingSet) {
    let now = ws.now;
    for pk in ws.run_keys() {
        let done = ws
            .run(pk)
            .is_some_and(|run| run.state == RunState::Running && run.unfinished_tasks == 0);
        if !done {
            continue;
        }
        let Some(run) = ws.run_mut(pk) else { continue };
        run.state = if run.failed_leaves > 0 || run.stop_reason.is_some() {
            RunState::Failed
        } else {
            RunState::Success
        };
        run.ended_at = Some(now);
        let dag_id = run.dag_id.clone();
        ws.spend(LimitKey::DagRuns { dag_id }, -1);
        ws.ended_runs.push(pk);
    }
}
