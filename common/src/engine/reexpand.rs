//! Mapped tasks whose instances were cleared: their list is looked at again, and may have another length.

use super::{
    WorkingSet,
    expand::{Births, Items, NoList, name_of},
    settle::evaluate,
    start::queue_of,
};
use crate::{
    ids::{RunPk, TaskIdx, TiPk},
    row::TiRow,
    spec::{TaskKind, TaskSpec},
    state::TaskState,
    transition,
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Gives the waiting instances of a task their new map values, takes out those that the list has become too short for, and
/// adds what is missing. Instances that were not cleared stay as they are; in a mapped group those that wait count anew what
/// they wait for. All instances of the task are loaded.
pub(super) fn reexpand(
    ws: &mut WorkingSet,
    node: TiPk,
    items: Result<Items, NoList>,
) -> Option<()> {
    let items = match items {
        Ok(items) => items,
        Err(NoList { state, reason }) if ws.ti(node)?.is_visible() => {
            let now = ws.now;
            ws.change(node, |row| {
                transition::resolve(row, state, Some(reason), now)
            })?;
            return ws.instance_ended(node);
        }
        Err(NoList { state, reason }) => return close(ws, node, state, Some(reason)),
    };
    let before = ws.ti(node)?.clone();
    let (run, now) = (before.run, ws.now);
    let old: Vec<TiRow> = ws.mapped(run, before.task_idx);
    let counted = |ws: &WorkingSet| {
        old.iter()
            .filter_map(|row| ws.ti(row.pk))
            .filter(|row| row.state != TaskState::Removed)
            .count() as i32
    };
    let count_before = counted(ws) + i32::from(before.is_visible());
    let plan = ws.plan_of(run)?.clone();
    let task = plan.task(before.task_idx)?;
    let births = Births::of(ws, &plan, task, fresh(&before, ws.retries(&before)))?;
    if task.mapped_group.is_some() {
        ws.made_whole(run, before.task_idx);
    }
    // Its instances may be decided from here on.
    ws.ti_mut(node)?.scheduled_at = Some(now);
    if before.is_visible() {
        // The node stood for its instances, and is hidden from now on.
        ws.run_mut(run)?.unfinished_tasks -= 1;
        ws.ti_mut(node)?.expanded_len = Some(items.len() as i32);
    }
    let mut missing: BTreeMap<i32, Map<String, Value>> = items.into_iter().collect();
    for row in old.iter() {
        let value = missing.remove(&row.map_index);
        match (row.state, value) {
            (TaskState::None, Some(map)) | (TaskState::Removed, Some(map)) => {
                if row.state == TaskState::Removed {
                    let retries = ws.retries(row);
                    ws.change(row.pk, |row| transition::clear(row, retries))?;
                    ws.run_mut(run)?.unfinished_tasks += 1;
                }
                remake(ws, row.pk, map, &births)?;
                go_on(ws, row.pk, task)?;
            }
            (TaskState::None, None) => {
                ws.change(row.pk, |row| transition::remove(row, now))?;
                ws.run_mut(run)?.unfinished_tasks -= 1;
            }
            (TaskState::Restarting, Some(map)) if row.then.is_none() => {
                remake(ws, row.pk, map, &births)?;
            }
            // It is out of the run once its dispatch is over.
            (TaskState::Restarting, None) if row.then.is_none() => {
                ws.ti_mut(row.pk)?.then = Some(TaskState::Removed);
            }
            _ => {}
        }
    }
    let count = counted(ws) + missing.len() as i32;
    for (map_index, map) in missing {
        births.make(ws, map_index, map)?;
    }
    resize(ws, node, count, count - count_before)
}

/// An instance whose task's rule holds; in a mapped group it has one of its own to ask.
fn go_on(ws: &mut WorkingSet, ti: TiPk, task: &TaskSpec) -> Option<()> {
    let now = ws.now;
    if task.mapped_group.is_some() {
        evaluate(ws, ti);
        return Some(());
    }
    if matches!(task.kind, TaskKind::Empty(_)) {
        ws.change(ti, |row| {
            transition::resolve(row, TaskState::Success, None, now)
        })?;
        return ws.instance_ended(ti);
    }
    ws.may_run(ti)
}

/// An instance left its run after its halted dispatch was over.
pub(super) fn removed(ws: &mut WorkingSet, row: &TiRow) -> Option<()> {
    let node = ws.node(row.run, row.task_idx)?;
    let count = ws.ti(node)?.expanded_len? - 1;
    resize(ws, node, count, -1)
}

/// Tells how many instances a task has now, which are `more` than its downstreams know of. Without any its node stands for
/// itself, and has an empty list.
fn resize(ws: &mut WorkingSet, node: TiPk, count: i32, more: i32) -> Option<()> {
    let now = ws.now;
    let row = ws.ti_mut(node)?;
    row.expanded_len = Some(count);
    let (run, task_idx) = (row.run, row.task_idx);
    let more = more + i32::from(count == 0);
    widened(ws, run, task_idx, more);
    if count == 0 {
        let reason = Some("its list is empty".to_owned());
        ws.run_mut(run)?.unfinished_tasks += 1;
        ws.change(node, |row| {
            transition::resolve(row, TaskState::Skipped, reason, now)
        })?;
        ws.instance_ended(node)?;
    }
    Some(())
}

/// Tells the downstreams of a task how many instances more it has. Members of a mapped group that wait for this one hear of it
/// even if there are none.
fn widened(ws: &mut WorkingSet, run: RunPk, task_idx: TaskIdx, more: i32) {
    let plan = ws.plan_of(run);
    if more != 0 || plan.is_some_and(|plan| plan.is_in_group(task_idx)) {
        ws.widened.push_back((run, task_idx, more));
    }
}

/// Ends the waiting instances of a task that cannot run any more. All its instances are loaded.
pub fn close(
    ws: &mut WorkingSet,
    node: TiPk,
    state: TaskState,
    reason: Option<String>,
) -> Option<()> {
    let (run, task_idx) = ws.ti(node).map(|row| (row.run, row.task_idx))?;
    let now = ws.now;
    ws.ti_mut(node)?.scheduled_at = Some(now);
    widened(ws, run, task_idx, 0);
    for row in ws.mapped(run, task_idx) {
        match row.state {
            TaskState::None => {
                let reason = reason.clone();
                ws.change(row.pk, |row| transition::resolve(row, state, reason, now))?;
                ws.instance_ended(row.pk);
            }
            TaskState::Restarting if row.then.is_none() => {
                let halted = ws.ti_mut(row.pk)?;
                halted.then = Some(state);
                halted.reason = reason.clone();
            }
            _ => {}
        }
    }
    Some(())
}

/// Gives an instance that waits its map values, and in a mapped group what it has counted so far.
fn remake(
    ws: &mut WorkingSet,
    ti: TiPk,
    map: Map<String, Value>,
    births: &Births<'_>,
) -> Option<()> {
    let row = ws.ti(ti)?;
    if row.map_values.as_ref() != Some(&map) {
        let plan = ws.plan_of(row.run)?.clone();
        let task = plan.task(row.task_idx)?;
        let queue = queue_of(&plan, ws.run(row.run)?, task, Some(&map));
        let name = name_of(&plan, ws.run(row.run)?, task, row.map_index, &map);
        let row = ws.ti_mut(ti)?;
        row.map_values = Some(map);
        row.map_name = name;
        row.queue = queue;
        let is_out = row.occupies;
        ws.remade.insert(ti);
        // What is given back is what was taken: the key of one that is out changes once its dispatch is over.
        if !is_out {
            ws.rekey(ti);
        }
    }
    let row = ws.ti(ti)?;
    let counters = births.counters(ws, row.map_index);
    if births.are_in_a_group() && row.counters != counters {
        ws.ti_mut(ti)?.counters = counters;
    }
    Some(())
}

/// A row for an instance that has not been there before.
fn fresh(node: &TiRow, retries: i32) -> TiRow {
    TiRow {
        state: TaskState::None,
        scheduled_at: None,
        expanded_len: None,
        max_tries: retries,
        ..node.clone()
    }
}
