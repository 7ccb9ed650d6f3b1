//! Dynamic task mapping: from a node and its lists to its instances.

use super::{
    Plan, WorkingSet,
    concurrency::task_key,
    map_values::{MapValues, map_values},
    mates::Mates,
    settle::unrun,
    start::{queue_of, run_template_context},
    working_set::Ended,
};
use crate::{
    ids::{TaskIdx, TiPk, UNMAPPED},
    row::{RunRow, TiRow},
    spec::{TaskKind, TaskSpec},
    state::TaskState,
    template::{Renderer, XComSource},
    transition,
    trigger_rule::{Counters, Verdict, decide},
};
use std::{collections::HashSet, sync::Arc};

/// Characters of an instance's name at most, as in Airflow.
const MAX_NAME: usize = 250;

/// Why a node has no lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoList {
    /// How the node ends: `upstream_failed` if nobody left a value where a list should be, else `failed`.
    pub state: TaskState,
    pub reason: String,
}

impl From<String> for NoList {
    fn from(reason: String) -> Self {
        let state = TaskState::Failed;
        Self { state, reason }
    }
}

impl From<&str> for NoList {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

/// Map indexes and their map variables.
pub(super) type Items = Vec<(i32, MapValues)>;

/// The index and map variables of every instance of a node: those of the mapped group that it is in, if another member has been
/// split by them already. `xcoms` answers what the lists' templates pull.
pub fn expansion_values(
    ws: &WorkingSet,
    node: TiPk,
    xcoms: Arc<dyn XComSource>,
) -> Result<Items, NoList> {
    let row = ws.ti(node).ok_or("the node is not loaded")?;
    let (run, plan) = ws
        .run(row.run)
        .zip(ws.plan_of(row.run))
        .ok_or("the run is not loaded")?;
    let task = plan
        .task(row.task_idx)
        .ok_or("the task is not in this version")?;
    if let Some(items) = Mates::of(ws, plan, row).items(ws, row.run) {
        return Ok(items);
    }
    let mapping = plan.mapping(row.task_idx).ok_or("the task is not mapped")?;
    let mut context = run_template_context(plan, run, task, None);
    context.asset_events = ws.events_of(run.pk);
    context.xcoms = xcoms;
    let renderer = Renderer::new(context);
    let values = map_values(&task.task_id, mapping, &renderer);
    values
        .map(|values| (0..).zip(values).collect())
        .map_err(|reason| {
            let is_null = |text: &str| {
                renderer
                    .render_native(text)
                    .is_ok_and(|value| value.is_null())
            };
            let state = match mapping.templates().any(is_null) {
                true => TaskState::UpstreamFailed,
                false => TaskState::Failed,
            };
            NoList { state, reason }
        })
}

/// What `map_index_template` calls an instance. One that cannot be rendered stands as it is written.
pub(super) fn name_of(
    plan: &Plan,
    run: &RunRow,
    task: &TaskSpec,
    map_index: i32,
    map: &MapValues,
) -> Option<String> {
    let template = task.map_index_template.as_ref()?;
    let mut context = run_template_context(plan, run, task, Some(map));
    context.map_index = map_index;
    let name = Renderer::new(context)
        .render(template)
        .map_or_else(|_| template.clone(), |name| name.trim().to_owned());
    Some(name.chars().take(MAX_NAME).collect())
}

/// Whether a node that may run gets its instances from its group's, so that no list has to be rendered for it.
pub fn follows_its_group(ws: &WorkingSet, node: TiPk) -> bool {
    let row = ws.ti(node).filter(|row| row.is_node());
    row.and_then(|row| Some(Mates::of(ws, ws.plan_of(row.run)?, row)))
        .is_some_and(|mates| !mates.is_empty())
}

/// Turns a node into its instances; an empty list skips it, one that is none ends it. Settle afterwards.
pub fn expand(ws: &mut WorkingSet, node: TiPk, items: Result<Items, NoList>) -> Option<()> {
    ws.to_render.retain(|pk| *pk != node);
    let now = ws.now;
    if ws.ti(node)?.expanded_len.is_some() {
        return super::reexpand::reexpand(ws, node, items);
    }
    let items = match items {
        Ok(items) if items.is_empty() => Err((TaskState::Skipped, "its list is empty".to_owned())),
        Ok(items) => Ok(items),
        Err(no_list) => Err((no_list.state, no_list.reason)),
    };
    let items = match items {
        Ok(items) => items,
        Err((state, reason)) => {
            ws.change(node, |row| {
                transition::resolve(row, state, Some(reason), now)
            })?;
            return ws.instance_ended(node);
        }
    };
    let template = ws.ti(node)?.clone();
    debug_assert_eq!(template.map_index, UNMAPPED);
    let (run, idx) = (template.run, template.task_idx);
    let plan = ws.plan_of(run)?.clone();
    let task = plan.task(idx)?;
    let births = Births::of(ws, &plan, task, template)?;
    let more = items.len() as i32 - 1;
    let row = ws.ti_mut(node)?;
    row.expanded_len = Some(items.len() as i32);
    row.scheduled_at = Some(now);
    // Members of a mapped group that wait for this one hear of it even if nothing is added.
    if more > 0 || task.mapped_group.is_some() {
        ws.widened.push_back((run, idx, more));
    }
    if task.mapped_group.is_some() {
        ws.made_whole(run, idx);
    }
    // The node is hidden from now on: its instances count instead.
    ws.run_mut(run)?.unfinished_tasks -= 1;
    for (map_index, map) in items {
        births.make(ws, map_index, map)?;
    }
    Some(())
}

/// What the instances of one task are made from.
pub(super) struct Births<'p> {
    plan: &'p Plan,
    task: &'p TaskSpec,
    run: RunRow,
    node: TiRow,
    mates: Mates,
    untold: HashSet<(TaskIdx, i32)>,
}

impl<'p> Births<'p> {
    /// `node` as the instances are to begin.
    pub(super) fn of(
        ws: &WorkingSet,
        plan: &'p Plan,
        task: &'p TaskSpec,
        node: TiRow,
    ) -> Option<Self> {
        let mates = Mates::of(ws, plan, &node);
        Some(Self {
            run: ws.run(node.run)?.clone(),
            untold: mates.untold(ws, node.run),
            plan,
            task,
            node,
            mates,
        })
    }

    /// Whether each instance has counters of its own.
    pub(super) fn are_in_a_group(&self) -> bool {
        self.task.mapped_group.is_some()
    }

    /// The counters of an instance.
    pub(super) fn counters(&self, ws: &WorkingSet, map_index: i32) -> Counters {
        self.mates.counters(ws, &self.untold, &self.node, map_index)
    }

    /// Makes one more instance of the run. In a mapped group it may have to wait, or may not run at all.
    pub(super) fn make(&self, ws: &mut WorkingSet, map_index: i32, map: MapValues) -> Option<()> {
        let (run, idx, now) = (self.node.run, self.node.task_idx, ws.now);
        let mut row = TiRow {
            map_index,
            queue: queue_of(self.plan, &self.run, self.task, Some(&map)),
            map_name: name_of(self.plan, &self.run, self.task, map_index, &map),
            shared: task_key(self.plan, &self.run, self.task, Some((map_index, &map))),
            map_values: Some(map),
            counters: self.counters(ws, map_index),
            ..self.node.clone()
        };
        // Only with mates is there anything left to decide.
        let verdict = match self.mates.is_empty() {
            true => Verdict::Run,
            false => decide(self.task.trigger_rule, &row.counters),
        };
        let (mut ready, mut failed_leaf) = (false, false);
        match verdict {
            Verdict::Wait => {}
            Verdict::Run if matches!(self.task.kind, TaskKind::Empty(_)) => {
                transition::resolve(&mut row, TaskState::Success, None, now).ok()?;
            }
            Verdict::Run if self.task.kind.is_deferred() => {
                transition::defer(&mut row, now).ok()?;
                ws.waits_begun = true;
            }
            Verdict::Run => {
                transition::schedule(&mut row, now).ok()?;
                ready = true;
            }
            Verdict::Skip | Verdict::UpstreamFailed => {
                let (state, reason) = unrun(self.plan, &row, verdict);
                transition::resolve(&mut row, state, Some(reason), now).ok()?;
                failed_leaf = state == TaskState::UpstreamFailed && self.plan.is_leaf(idx);
            }
        }
        let ended = row.state.is_finished();
        if ended {
            ws.endings.push_back(Ended {
                run,
                task_idx: idx,
                map_index,
                state: row.state,
            });
        }
        ws.inserts.push(row);
        let run = ws.run_mut(run)?;
        run.unfinished_tasks += i32::from(!ended);
        run.ready_tasks += i32::from(ready);
        run.failed_leaves += i32::from(failed_leaf);
        Some(())
    }
}
