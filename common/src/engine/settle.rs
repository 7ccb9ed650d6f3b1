//! Tells downstreams of endings until nothing moves any more.

use super::{WorkingSet, concurrency::shared_limit, flow::skip_decided, working_set::Ended};
use crate::{
    fault,
    ids::{RunPk, TaskIdx, TiPk, UNMAPPED},
    row::TiRow,
    spec::TaskKind,
    state::{RunState, TaskState},
    transition,
    trigger_rule::{Verdict, decide},
};

/// Nodes that have to be loaded before the set can settle.
pub type Missing = Vec<(RunPk, TaskIdx)>;

/// Tells downstreams of endings and decides their trigger rules; a node that ends without running (`skipped`,
/// `upstream_failed`, `empty`) is an ending itself. Answers the nodes that are missing: load and call again. With nothing
/// missing there may be nodes to render ([`WorkingSet::to_render`]), nodes that look at the run before
/// ([`WorkingSet::to_look_back`]) and runs to stop ([`WorkingSet::to_stop`], these first): do
/// it and call again. With neither, nothing moves any more, and runs without unfinished instances have ended.
///
/// It goes in waves, as passes of Airflow's scheduler do: all endings that are known are counted before any rule is decided,
/// and what ends by that is the next wave. So with one upstream failed and another skipped in the same wave, the failure
/// decides, in whichever order they stand.
pub fn settle(ws: &mut WorkingSet) -> Missing {
    loop {
        if !ws.to_stop.is_empty() {
            // What a failure stops is stopped before anybody below hears of it.
            return Vec::new();
        }
        let missing = missing_nodes(ws);
        if !missing.is_empty() {
            return missing;
        }
        if !ws.restarted.is_empty() {
            restart(ws);
            // It may have told downstreams that nobody has asked for yet.
            continue;
        }
        widen(ws);
        if !ws.skips.is_empty() {
            // Skipped tasks end in this wave; whom they tell may have to be loaded first.
            skip_decided(ws);
            continue;
        }
        if ws.endings.is_empty() {
            break;
        }
        let mut told: Vec<TiPk> = Vec::new();
        for ended in std::mem::take(&mut ws.endings) {
            tell(ws, ended, &mut told);
        }
        told.sort_unstable();
        told.dedup();
        for node in told {
            evaluate(ws, node);
        }
        if !ws.to_render.is_empty() || !ws.to_look_back.is_empty() {
            return Vec::new();
        }
    }
    end_runs(ws);
    Vec::new()
}

/// Corrects the totals of the downstreams of tasks that were expanded. Where instances have gone, what was waited for may
/// be there: these are decided.
fn widen(ws: &mut WorkingSet) {
    let mut narrowed = Vec::new();
    while let Some((run, task_idx, by)) = ws.widened.pop_front() {
        for (node, edge) in listening(ws, run, task_idx) {
            if !is_undecided(ws, node) {
                continue;
            }
            let Some(row) = ws.ti_mut(node) else { continue };
            match edge {
                Edge::Upstream { is_setup, .. } => {
                    row.counters.total += by;
                    row.counters.setups += if is_setup { by } else { 0 };
                }
                Edge::NeededSetup => row.counters.setups += by,
            }
            if by < 0 {
                narrowed.push(node);
            }
        }
    }
    for node in narrowed {
        evaluate(ws, node);
    }
}

fn missing_nodes(ws: &WorkingSet) -> Missing {
    let ended = ws.endings.iter().map(|e| (e.run, e.task_idx));
    let widened = ws.widened.iter().map(|(run, idx, _)| (*run, *idx));
    let listeners = ended.chain(widened).flat_map(|(run, idx)| {
        let plan = ws.plan_of(run).into_iter();
        plan.flat_map(move |plan| plan.graph.listeners(idx))
            .map(move |d| (run, d))
    });
    let skipped = ws.skips.iter().map(|skip| (skip.run, skip.task_idx));
    let restarted = ws.restarted.iter().filter_map(|ti| ws.ti(*ti));
    let mut missing: Missing = listeners
        .chain(skipped)
        .chain(restarted.map(|row| (row.run, row.task_idx)))
        .filter(|(run, d)| ws.node(*run, *d).is_none())
        .collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// As what an ending is counted.
#[derive(Debug, Clone, Copy)]
enum Edge {
    /// An upstream that the rule looks at, or a task within a teardown's scope.
    Upstream { is_setup: bool, is_list: bool },
    /// A setup that the task needs without depending on it.
    NeededSetup,
}

/// The nodes that hear of a task's endings.
fn listening(ws: &WorkingSet, run: RunPk, task_idx: TaskIdx) -> Vec<(TiPk, Edge)> {
    let Some(plan) = ws.plan_of(run) else {
        return Vec::new();
    };
    let is_setup = plan.task(task_idx).is_some_and(|task| task.setup);
    let direct = plan.graph.downstream(task_idx).iter().map(|down| {
        let is_setup = is_setup && plan.counts_setups(*down);
        let is_list = plan.is_list_of(*down, task_idx);
        (*down, Edge::Upstream { is_setup, is_list })
    });
    let indirect = plan.graph.indirect_downstream(task_idx).iter().map(|down| {
        let is_teardown = plan.task(*down).is_some_and(|task| task.teardown.is_some());
        let edge = if is_teardown {
            Edge::Upstream {
                is_setup: false,
                is_list: false,
            }
        } else {
            Edge::NeededSetup
        };
        (*down, edge)
    });
    direct
        .chain(indirect)
        .filter_map(|(down, edge)| Some((ws.node(run, down)?, edge)))
        .collect()
}

/// A decided node's counters are of no use any more: it is not written again for them.
fn is_undecided(ws: &WorkingSet, node: TiPk) -> bool {
    ws.ti(node).is_some_and(TiRow::is_undecided)
}

/// Counts an ending into all that hear of it, and notes whom it may decide.
fn tell(ws: &mut WorkingSet, ended: Ended, told: &mut Vec<TiPk>) {
    for (node, edge) in listening(ws, ended.run, ended.task_idx) {
        ws.edges_counted += 1;
        if !is_undecided(ws, node) {
            continue;
        }
        let Some(row) = ws.ti_mut(node) else { continue };
        match edge {
            Edge::Upstream { is_setup, .. } => row.counters.count(ended.state, is_setup),
            Edge::NeededSetup => row.counters.count_needed_setup(ended.state),
        }
        let is_list = matches!(edge, Edge::Upstream { is_list: true, .. });
        if is_list && ended.map_index == UNMAPPED && ended.state != TaskState::Success {
            ws.no_list.insert(node, ended.state);
        }
        told.push(node);
    }
}

/// Decides a node's trigger rule and acts on the verdict.
pub(super) fn evaluate(ws: &mut WorkingSet, node: TiPk) -> Option<()> {
    let row = ws.ti(node)?;
    let is_asked = ws.to_render.contains(&node) || ws.to_look_back.contains(&node);
    if !row.is_undecided() || row.state != TaskState::None || is_asked {
        return None;
    }
    let was_expanded = !row.is_visible();
    if was_expanded && ws.stopped_by(row).is_some() {
        // Its waiting instances have ended with the run.
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
    let no_list = |state: TaskState| {
        (
            state,
            Some("the task that makes its list has none".to_owned()),
        )
    };
    let verdict = decide(task.trigger_rule, &row.counters);
    if verdict == Verdict::Run && !ws.no_list.contains_key(&node) && ws.has_to_look_back(node) {
        ws.to_look_back.push(node);
        return Some(());
    }
    let (state, reason) = match verdict {
        // As in Airflow, at once and whatever the rule says; a failure weighs more than a skip.
        Verdict::Wait | Verdict::Run | Verdict::Skip if ws.no_list.contains_key(&node) => {
            match ws.no_list.remove(&node) {
                Some(TaskState::Skipped) => no_list(TaskState::Skipped),
                _ => no_list(TaskState::UpstreamFailed),
            }
        }
        Verdict::Wait => return None,
        Verdict::Skip | Verdict::UpstreamFailed if fault::misbehaves("ignore-trigger-rule") => {
            ws.change(node, |row| transition::schedule(row, now))?;
            return ws.became_ready(node);
        }
        Verdict::UpstreamFailed if row.counters.setup_failed > 0 => (
            TaskState::UpstreamFailed,
            Some("a setup failed that it needs".to_owned()),
        ),
        Verdict::Skip if plan.needs_skipped_setup(row.task_idx, &row.counters) => (
            TaskState::Skipped,
            Some("a setup was skipped that it needs".to_owned()),
        ),
        Verdict::Skip => ends(TaskState::Skipped, "it can no longer hold"),
        Verdict::UpstreamFailed => ends(TaskState::UpstreamFailed, "an upstream failed"),
        Verdict::Run if task.mapping().is_some() || task.kind.decider().is_some() => {
            ws.to_render.push(node);
            return Some(());
        }
        Verdict::Run if matches!(task.kind, TaskKind::Empty(_)) => (TaskState::Success, None),
        Verdict::Run if task.kind.is_deferred() => return ws.defer(node),
        Verdict::Run => {
            ws.change(node, |row| transition::schedule(row, now))?;
            return ws.became_ready(node);
        }
    };
    if was_expanded {
        ws.to_close.push((node, state, reason));
        return Some(());
    }
    ws.change(node, |row| transition::resolve(row, state, reason, now))?;
    ws.instance_ended(node)
}

/// Instances whose halted dispatch is over. One that is mapped goes by its node, which has been decided meanwhile or will be.
fn restart(ws: &mut WorkingSet) -> Option<()> {
    for ti in std::mem::take(&mut ws.restarted) {
        let row = ws.ti(ti)?.clone();
        let now = ws.now;
        if row.state == TaskState::Removed {
            super::reexpand::removed(ws, &row);
            continue;
        }
        if let Some(reason) = ws.stopped_by(&row).map(str::to_owned) {
            ws.change(ti, |row| transition::cancel(row, reason, now))?;
            ws.instance_ended(ti);
            continue;
        }
        let node = ws.node(row.run, row.task_idx)?;
        if node == ti {
            evaluate(ws, ti);
        } else if !is_undecided(ws, node) {
            ws.may_run(ti)?;
        }
    }
    Some(())
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
        let stopped = run.stop_reason.is_some() || run.clean_up.is_some();
        run.state = if run.failed_leaves > 0 || stopped {
            RunState::Failed
        } else {
            RunState::Success
        };
        run.ended_at = Some(now);
        let (limit, shared) = (run.limit(), shared_limit(run));
        ws.spend(limit, -1);
        if let Some(key) = shared {
            ws.spend(key, -1);
        }
        ws.ended_runs.push(pk);
    }
}
