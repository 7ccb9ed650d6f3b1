//! Dynamic task mapping: from a node and its lists to its instances.

use super::{
    WorkingSet,
    start::{queue_of, run_template_context},
};
use crate::{
    ids::{TiPk, UNMAPPED},
    row::TiRow,
    spec::{ExpandSource, TaskKind},
    state::TaskState,
    template::{Renderer, XComSource},
    transition,
};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Instances of one mapped task at most.
pub const MAX_MAP_LENGTH: usize = 100_000;
/// Bytes of all instances' map values together at most, as JSON.
pub const MAX_MAP_BYTES: usize = 64 * 1024 * 1024;

/// The map variables of every instance of a node: the cross product of its lists, the last variable moving fastest.
/// `xcoms` answers what the lists' templates pull.
pub fn expansion_values(
    ws: &WorkingSet,
    node: TiPk,
    xcoms: Arc<dyn XComSource>,
) -> Result<Vec<Map<String, Value>>, String> {
    let row = ws.ti(node).ok_or("the node is not loaded")?;
    let (run, plan) = ws
        .run(row.run)
        .zip(ws.plan_of(row.run))
        .ok_or("the run is not loaded")?;
    let task = plan
        .task(row.task_idx)
        .ok_or("the task is not in this version")?;
    let mut context = run_template_context(plan, run, task, None);
    context.xcoms = xcoms;
    let renderer = Renderer::new(context);
    let mut product = vec![Map::new()];
    let mut bytes = 0usize;
    for (name, source) in task.expand.iter().flatten() {
        let list = match source {
            ExpandSource::Literal(list) => list
                .iter()
                .map(|item| renderer.render_value(item))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| format!("expand.{name}: {e}"))?,
            ExpandSource::Template(text) => as_list(
                name,
                renderer
                    .render_native(text)
                    .map_err(|e| format!("expand.{name}: {e}"))?,
            )?,
        };
        if product.len().saturating_mul(list.len()) > MAX_MAP_LENGTH {
            return Err(format!(
                "expand would make {} instances; at most {MAX_MAP_LENGTH} are allowed",
                product.len().saturating_mul(list.len())
            ));
        }
        // A cross product repeats every value: its size is known, and bounded, before it is made.
        let list_bytes: usize = list
            .iter()
            .map(|item| name.len() + item.to_string().len())
            .sum();
        bytes = bytes
            .saturating_mul(list.len())
            .saturating_add(product.len().saturating_mul(list_bytes));
        if bytes > MAX_MAP_BYTES {
            return Err(format!(
                "expand would make {bytes} bytes of map values; at most {MAX_MAP_BYTES} are allowed: map over keys or paths instead"
            ));
        }
        product = product
            .into_iter()
            .flat_map(|values| {
                list.iter().map(move |item| {
                    let mut values = values.clone();
                    values.insert(name.clone(), item.clone());
                    values
                })
            })
            .collect();
    }
    Ok(product)
}

/// A mapping gives its entries as `{key, value}`; anything else that is no list is an error that says what it is.
fn as_list(name: &str, value: Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(list) => Ok(list),
        Value::Object(map) => Ok(map
            .into_iter()
            .map(|(key, value)| serde_json::json!({"key": key, "value": value}))
            .collect()),
        Value::Null => Err(format!(
            "expand.{name}: expected a list, got nothing (null)"
        )),
        other => {
            let mut shown = other.to_string();
            if let Some((cut, _)) = shown.char_indices().nth(80) {
                shown.truncate(cut);
                shown.push('…');
            }
            Err(format!("expand.{name}: expected a list, got {shown}"))
        }
    }
}

/// Turns a node into its instances; an empty list skips it, an error fails it. Settle afterwards.
pub fn expand(
    ws: &mut WorkingSet,
    node: TiPk,
    values: Result<Vec<Map<String, Value>>, String>,
) -> Option<()> {
    ws.to_render.retain(|pk| *pk != node);
    let now = ws.now;
    let values = match values {
        Ok(values) if values.is_empty() => {
            Err((TaskState::Skipped, "its list is empty".to_owned()))
        }
        Ok(values) => Ok(values),
        Err(reason) => Err((TaskState::Failed, reason)),
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
    ws.ti_mut(node)?.expanded_len = Some(values.len() as i32);
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
