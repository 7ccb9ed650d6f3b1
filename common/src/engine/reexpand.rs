//! Mapped tasks whose instances were cleared: their list is looked at again, and may have another length.

use super::{
    WorkingSet,
    expand::{NoList, name_of},
    start::queue_of,
};
use crate::{ids::TiPk, row::TiRow, spec::TaskKind, state::TaskState, transition};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Gives the waiting instances of a task their new map values, takes out those that the list has become too short for, and
/// adds what is missing. Instances that were not cleared stay as they are. All instances of the task are loaded.
pub(super) fn reexpand(
    ws: &mut WorkingSet,
    node: TiPk,
    values: Result<Vec<Map<String, Value>>, NoList>,
) -> Option<()> {
    let values = match values {
        Ok(values) => values,
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
    let ends_here = matches!(task.kind, TaskKind::Empty(_));
    let waits = task.kind.is_deferred();
    ws.waits_begun |= waits;
    let mut missing: BTreeMap<i32, Map<String, Value>> = (0..).zip(values).collect();
    for row in old.iter() {
        let value = missing.remove(&row.map_index);
        match (row.state, value) {
            (TaskState::None, Some(map)) | (TaskState::Removed, Some(map)) => {
                if row.state == TaskState::Removed {
                    let retries = ws.retries(row);
                    ws.change(row.pk, |row| transition::clear(row, retries))?;
                    ws.run_mut(run)?.unfinished_tasks += 1;
                }
                remake(ws, row.pk, map)?;
                if ends_here {
                    ws.change(row.pk, |row| {
                        transition::resolve(row, TaskState::Success, None, now)
                    })?;
                    ws.instance_ended(row.pk);
                } else {
                    ws.may_run(row.pk)?;
                }
            }
            (TaskState::None, None) => {
                ws.change(row.pk, |row| transition::remove(row, now))?;
                ws.run_mut(run)?.unfinished_tasks -= 1;
            }
            (TaskState::Restarting, Some(map)) if row.then.is_none() => remake(ws, row.pk, map)?,
            // It is out of the run once its dispatch is over.
            (TaskState::Restarting, None) if row.then.is_none() => {
                ws.ti_mut(row.pk)?.then = Some(TaskState::Removed);
            }
            _ => {}
        }
    }
    let mut count = counted(ws);
    for (map_index, map) in missing {
        let mut row = TiRow {
            map_index,
            queue: queue_of(&plan, ws.run(run)?, task, Some(&map)),
            map_name: name_of(&plan, ws.run(run)?, task, map_index, &map),
            map_values: Some(map),
            ..fresh(&before, ws.retries(&before))
        };
        ws.run_mut(run)?.unfinished_tasks += 1;
        count += 1;
        if ends_here {
            transition::resolve(&mut row, TaskState::Success, None, now).ok()?;
            ws.run_mut(run)?.unfinished_tasks -= 1;
            ws.endings.push_back(super::working_set::Ended {
                run,
                task_idx: row.task_idx,
                map_index: row.map_index,
                state: row.state,
            });
        } else if waits {
            transition::defer(&mut row, now).ok()?;
        } else {
            transition::schedule(&mut row, now).ok()?;
            ws.run_mut(run)?.ready_tasks += 1;
        }
        ws.inserts.push(row);
    }
    ws.ti_mut(node)?.scheduled_at = Some(now);
    if before.is_visible() {
        // The node stood for its instances, and is hidden from now on.
        ws.run_mut(run)?.unfinished_tasks -= 1;
    }
    resize(ws, node, count, count - count_before)
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
    if more != 0 {
        ws.widened.push_back((run, task_idx, more));
    }
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

fn remake(ws: &mut WorkingSet, ti: TiPk, map: Map<String, Value>) -> Option<()> {
    let row = ws.ti(ti)?;
    if row.map_values.as_ref() == Some(&map) {
        return Some(());
    }
    let plan = ws.plan_of(row.run)?.clone();
    let task = plan.task(row.task_idx)?;
    let queue = queue_of(&plan, ws.run(row.run)?, task, Some(&map));
    let name = name_of(&plan, ws.run(row.run)?, task, row.map_index, &map);
    let row = ws.ti_mut(ti)?;
    row.map_values = Some(map);
    row.map_name = name;
    row.queue = queue;
    ws.remade.insert(ti);
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
