//! Dynamic task mapping: from a node and its lists to its instances.

use super::{
    Plan, WorkingSet,
    map_values::{MapValues, map_values},
    start::{queue_of, run_template_context},
};
use crate::{
    ids::{TiPk, UNMAPPED},
    row::{RunRow, TiRow},
    spec::{TaskKind, TaskSpec},
    state::TaskState,
    template::{Renderer, XComSource},
    transition,
};
use std::sync::Arc;

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

/// The map variables of every instance of a node. `xcoms` answers what the lists' templates pull.
pub fn expansion_values(
    ws: &WorkingSet,
    node: TiPk,
    xcoms: Arc<dyn XComSource>,
) -> Result<Vec<MapValues>, NoList> {
    let row = ws.ti(node).ok_or("the node is not loaded")?;
    let (run, plan) = ws
        .run(row.run)
        .zip(ws.plan_of(row.run))
        .ok_or("the run is not loaded")?;
    let task = plan
        .task(row.task_idx)
        .ok_or("the task is not in this version")?;
    let mapping = task.mapping().ok_or("the task is not mapped")?;
    let mut context = run_template_context(plan, run, task, None);
    context.xcoms = xcoms;
    let renderer = Renderer::new(context);
    map_values(&task.task_id, mapping, &renderer).map_err(|reason| {
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

/// Turns a node into its instances; an empty list skips it, one that is none ends it. Settle afterwards.
pub fn expand(
    ws: &mut WorkingSet,
    node: TiPk,
    values: Result<Vec<MapValues>, NoList>,
) -> Option<()> {
    ws.to_render.retain(|pk| *pk != node);
    let now = ws.now;
    if ws.ti(node)?.expanded_len.is_some() {
        return super::reexpand::reexpand(ws, node, values);
    }
    let values = match values {
        Ok(values) if values.is_empty() => {
            Err((TaskState::Skipped, "its list is empty".to_owned()))
        }
        Ok(values) => Ok(values),
        Err(no_list) => Err((no_list.state, no_list.reason)),
    };
    let values = match values {
        Ok(values) => values,
        Err((state, reason)) => {
            ws.change(node, |row| {
                transition::resolve(row, state, Some(reason), now)
            })?;
            return ws.instance_ended(node);
        }
    };
    let template = ws.ti(node)?.clone();
    let plan = ws.plan_of(template.run)?.clone();
    let run = ws.run(template.run)?.clone();
    let task = plan.task(template.task_idx)?;
    let more = values.len() as i32 - 1;
    let row = ws.ti_mut(node)?;
    row.expanded_len = Some(values.len() as i32);
    row.scheduled_at = Some(now);
    let ends_here = matches!(task.kind, TaskKind::Empty(_));
    let run_row = ws.run_mut(template.run)?;
    run_row.unfinished_tasks += more;
    let waits = task.kind.is_deferred();
    if !ends_here && !waits {
        run_row.ready_tasks += values.len() as i32;
    }
    if more > 0 {
        ws.widened
            .push_back((template.run, template.task_idx, more));
    }
    ws.waits_begun |= waits;
    for (map_index, map) in (0..).zip(values) {
        let mut row = TiRow {
            map_index,
            queue: queue_of(&plan, &run, task, Some(&map)),
            map_name: name_of(&plan, &run, task, map_index, &map),
            map_values: Some(map),
            ..template.clone()
        };
        debug_assert_eq!(template.map_index, UNMAPPED);
        if ends_here {
            transition::resolve(&mut row, TaskState::Success, None, now).ok()?;
            ws.run_mut(template.run)?.unfinished_tasks -= 1;
            ws.endings.push_back(super::working_set::Ended {
                run: row.run,
                task_idx: row.task_idx,
                map_index: row.map_index,
                state: row.state,
            });
        } else if waits {
            transition::defer(&mut row, now).ok()?;
        } else {
            transition::schedule(&mut row, now).ok()?;
        }
        ws.inserts.push(row);
    }
    Some(())
}
