//! Tells downstreams of endings until nothing moves any more.

use super::{
    Plan, WorkingSet,
    flow::skip_decided,
    mates::{Mates, await_split, is_split},
    working_set::Ended,
};
use crate::{
    fault,
    ids::{RunPk, TaskIdx, TiPk, UNMAPPED},
    row::TiRow,
    spec::TaskKind,
    state::{RunState, TaskState},
    transition,
    trigger_rule::{Verdict, decide},
};

/// What has to be loaded before the set can settle. Afterwards: [`WorkingSet::loaded`].
#[derive(Debug, Default)]
pub struct Missing {
    /// Nodes, which all are there.
    pub nodes: Vec<(RunPk, TaskIdx)>,
    /// Instances of a mapped group's members: task and index. They may not be there.
    pub instances: Vec<(RunPk, TaskIdx, i32)>,
    /// Members of a mapped group, with all their instances. Those of [`WorkingSet::inserts`] have to be inserted first, and
    /// those that [`WorkingSet::is_whole`] says are whole need not be loaded.
    pub tasks: Vec<(RunPk, TaskIdx)>,
}

impl Missing {
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.instances.is_empty() && self.tasks.is_empty()
    }
}

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
    let mut told: Vec<TiPk> = Vec::new();
    loop {
        if !ws.to_stop.is_empty() {
            // What a failure stops is stopped before anybody below hears of it.
            ws.again.append(&mut told);
            return Missing::default();
        }
        let missing = missing(ws);
        if !missing.is_empty() {
            ws.again.append(&mut told);
            return missing;
        }
        told.append(&mut ws.again);
        if !ws.restarted.is_empty() {
            restart(ws);
            // It may have told downstreams that nobody has asked for yet.
            continue;
        }
        widen(ws, &mut told);
        if !ws.skips.is_empty() {
            // Skipped tasks end in this wave; whom they tell may have to be loaded first.
            skip_decided(ws);
            continue;
        }
        if ws.endings.is_empty() && told.is_empty() {
            break;
        }
        for ended in std::mem::take(&mut ws.endings) {
            tell(ws, ended, &mut told);
        }
        told.sort_unstable();
        told.dedup();
        for ti in told.drain(..) {
            evaluate(ws, ti);
        }
        if !ws.to_render.is_empty() || !ws.to_look_back.is_empty() {
            return Missing::default();
        }
    }
    end_runs(ws);
    Missing::default()
}

/// Corrects the totals of the downstreams of tasks that were expanded. Where instances have gone, what was waited for may
/// be there: these are decided. Members of the same mapped group are split likewise instead, as soon as they wait for nothing
/// else.
fn widen(ws: &mut WorkingSet, told: &mut Vec<TiPk>) {
    while let Some((run, task_idx, by)) = ws.widened.pop_front() {
        for (down, edge) in edges(ws, run, task_idx) {
            let Some(node) = ws.node(run, down) else {
                continue;
            };
            if !is_undecided(ws, node) {
                continue;
            }
            if shares_map(ws, run, task_idx, down) {
                told.push(node);
                continue;
            }
            if by == 0 {
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
                told.push(node);
            }
        }
    }
}

fn shares_map(ws: &WorkingSet, run: RunPk, one: TaskIdx, other: TaskIdx) -> bool {
    ws.plan_of(run)
        .is_some_and(|plan| plan.share_map(one, other))
}

fn missing(ws: &mut WorkingSet) -> Missing {
    let mut missing = Missing {
        tasks: std::mem::take(&mut ws.wanted),
        ..Missing::default()
    };
    let widened = ws
        .widened
        .iter()
        .map(|(run, idx, _)| (*run, *idx, UNMAPPED));
    let ended = ws.endings.iter().map(|e| (e.run, e.task_idx, e.map_index));
    for (run, idx, map_index) in ended.chain(widened) {
        let Some(plan) = ws.plan_of(run) else {
            continue;
        };
        for down in plan.graph.listeners(idx) {
            if map_index != UNMAPPED && plan.share_map(idx, down) {
                if !ws.knows_member(run, down, map_index) {
                    missing.instances.push((run, down, map_index));
                }
                // Its node says whether it is decided by itself yet.
                if ws.node(run, down).is_none() {
                    missing.nodes.push((run, down));
                }
                continue;
            }
            // With a member of a mapped group come those that it may be split like.
            let nodes = std::iter::once(&down).chain(plan.mates_above(down));
            let nodes = nodes.filter(|idx| ws.node(run, **idx).is_none());
            missing.nodes.extend(nodes.map(|idx| (run, *idx)));
        }
    }
    let skipped = ws.skips.iter().map(|skip| (skip.run, skip.task_idx));
    let restarted = ws.restarted.iter().filter_map(|ti| ws.ti(*ti));
    let skipped = skipped.chain(restarted.map(|row| (row.run, row.task_idx)));
    let skipped = skipped.filter(|(run, idx)| ws.node(*run, *idx).is_none());
    missing.nodes.extend(skipped);
    // Who is asked again may be split like its mates.
    for row in ws.again.iter().filter_map(|ti| ws.ti(*ti)) {
        let plan = ws.plan_of(row.run);
        let mates = plan.map_or(&[][..], |plan| plan.mates_above(row.task_idx));
        let absent = mates
            .iter()
            .filter(|mate| ws.node(row.run, **mate).is_none());
        missing.nodes.extend(absent.map(|mate| (row.run, *mate)));
    }
    missing.nodes.sort_unstable();
    missing.nodes.dedup();
    missing.instances.sort_unstable();
    missing.instances.dedup();
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

/// The tasks that hear of a task's endings.
fn edges(ws: &WorkingSet, run: RunPk, task_idx: TaskIdx) -> Vec<(TaskIdx, Edge)> {
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
    direct.chain(indirect).collect()
}

/// Who of a downstream task hears of an ending: its node or, in the same mapped group, its instance of the same index. That
/// is not there as long as the task is not split; then the ending is counted when it is.
fn listener(ws: &WorkingSet, ended: &Ended, down: TaskIdx) -> Option<TiPk> {
    if ended.map_index != UNMAPPED && shares_map(ws, ended.run, ended.task_idx, down) {
        return ws.member(ended.run, down, ended.map_index);
    }
    ws.node(ended.run, down)
}

/// What is decided has no use for its counters any more: it is not written again for them.
fn is_undecided(ws: &WorkingSet, ti: TiPk) -> bool {
    ws.ti(ti)
        .is_some_and(|row| row.is_undecided() || (!row.is_node() && row.is_waiting()))
}

/// Whether a rule is asked: a node's until it is decided, an instance's in a mapped group once its node is split.
fn is_open(ws: &WorkingSet, row: &TiRow) -> bool {
    match row.is_node() {
        true => row.is_undecided(),
        false => is_split(ws, row.run, row.task_idx),
    }
}

/// Counts an ending into all that hear of it, and notes whom it may decide.
fn tell(ws: &mut WorkingSet, ended: Ended, told: &mut Vec<TiPk>) {
    for (down, edge) in edges(ws, ended.run, ended.task_idx) {
        ws.edges_counted += 1;
        let Some(ti) = listener(ws, &ended, down).filter(|ti| is_undecided(ws, *ti)) else {
            continue;
        };
        let Some(row) = ws.ti_mut(ti) else { continue };
        match edge {
            Edge::Upstream { is_setup, .. } => row.counters.count(ended.state, is_setup),
            Edge::NeededSetup => row.counters.count_needed_setup(ended.state),
        }
        let is_list = matches!(edge, Edge::Upstream { is_list: true, .. });
        if is_list && ended.map_index == UNMAPPED && ended.state != TaskState::Success {
            ws.no_list.insert(ti, ended.state);
        }
        told.push(ti);
    }
}

/// Why an instance ends without running, as its trigger rule has decided.
pub(super) fn unrun(plan: &Plan, row: &TiRow, verdict: Verdict) -> (TaskState, String) {
    let rule = plan.task(row.task_idx).map(|task| task.trigger_rule);
    let rule = rule.unwrap_or_default();
    match verdict {
        Verdict::UpstreamFailed if row.counters.setup_failed > 0 => (
            TaskState::UpstreamFailed,
            "a setup failed that it needs".to_owned(),
        ),
        Verdict::UpstreamFailed => (
            TaskState::UpstreamFailed,
            format!("trigger rule {rule}: an upstream failed"),
        ),
        _ if plan.needs_skipped_setup(row.task_idx, &row.counters) => (
            TaskState::Skipped,
            "a setup was skipped that it needs".to_owned(),
        ),
        _ => (
            TaskState::Skipped,
            format!("trigger rule {rule}: it can no longer hold"),
        ),
    }
}

/// Decides the trigger rule of a node, or of an instance in a mapped group, and acts on the verdict.
pub(super) fn evaluate(ws: &mut WorkingSet, ti: TiPk) -> Option<()> {
    let row = ws.ti(ti)?;
    let is_asked = ws.to_render.contains(&ti) || ws.to_look_back.contains(&ti);
    if row.state != TaskState::None || !is_open(ws, row) || is_asked {
        return None;
    }
    let was_expanded = row.is_node() && !row.is_visible();
    if was_expanded && ws.stopped_by(row).is_some() {
        // Its waiting instances have ended with the run.
        return None;
    }
    let plan = ws.plan_of(row.run)?.clone();
    let task = plan.task(row.task_idx)?;
    let now = ws.now;
    let to_expand = row.is_node() && plan.mapping(row.task_idx).is_some();
    let mut verdict = decide(task.trigger_rule, &row.counters);
    // As in Airflow, at once and whatever the rule says; a failure weighs more than a skip.
    let no_list = match verdict {
        Verdict::UpstreamFailed => None,
        _ => ws.no_list.remove(&ti),
    };
    let row = ws.ti(ti)?;
    if no_list.is_none() && to_expand && matches!(verdict, Verdict::Wait | Verdict::Run) {
        let (row, run) = (row.clone(), row.run);
        let mut above = plan.mates_above(row.task_idx).iter();
        if above.any(|mate| ws.node(run, *mate).is_none()) {
            ws.again.push(ti);
            return None;
        }
        let mates = Mates::of(ws, &plan, &row);
        if mates.are_all_that_is_left(&row) {
            verdict = Verdict::Run;
        }
        if await_split(ws, &plan, &row) {
            return None;
        }
        if verdict == Verdict::Run && !mates.are_here(ws, run) {
            ws.again.push(ti);
            return None;
        }
    }
    let row = ws.ti(ti)?;
    let runs = verdict == Verdict::Run && no_list.is_none();
    if runs && row.is_node() && ws.has_to_look_back(ti) {
        ws.to_look_back.push(ti);
        return Some(());
    }
    let no_list = no_list.map(|state| match state {
        TaskState::Skipped => TaskState::Skipped,
        _ => TaskState::UpstreamFailed,
    });
    let (state, reason) = match verdict {
        _ if no_list.is_some() => {
            let state = no_list.unwrap_or(TaskState::UpstreamFailed);
            let reason = "the task that makes its list has none".to_owned();
            (state, Some(reason))
        }
        Verdict::Wait => return None,
        Verdict::Skip | Verdict::UpstreamFailed if fault::misbehaves("ignore-trigger-rule") => {
            ws.change(ti, |row| transition::schedule(row, now))?;
            return ws.became_ready(ti);
        }
        Verdict::Skip | Verdict::UpstreamFailed => {
            let (state, reason) = unrun(&plan, row, verdict);
            (state, Some(reason))
        }
        Verdict::Run if to_expand || task.kind.decider().is_some() => {
            ws.to_render.push(ti);
            return Some(());
        }
        Verdict::Run if matches!(task.kind, TaskKind::Empty(_)) => (TaskState::Success, None),
        Verdict::Run if task.kind.is_deferred() => return ws.defer(ti),
        Verdict::Run => {
            ws.change(ti, |row| transition::schedule(row, now))?;
            return ws.became_ready(ti);
        }
    };
    if was_expanded {
        ws.to_close.push((ti, state, reason));
        return Some(());
    }
    ws.change(ti, |row| transition::resolve(row, state, reason, now))?;
    ws.instance_ended(ti)
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
        let in_group = ws.plan_of(row.run)?.is_in_group(row.task_idx);
        if node == ti || in_group {
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
        let run = run.clone();
        ws.spend_run(&run, -1);
        ws.ended_runs.push(pk);
        ws.call_back_of_run(pk);
    }
}
