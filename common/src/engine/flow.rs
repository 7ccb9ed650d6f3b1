//! Tasks that decide what runs after them: `branch`, `short_circuit`, `latest_only`. They are decided here, in the
//! transaction in which their rule holds, as mapped tasks are expanded; no worker takes part (ADR 0016).
//!
//! A decision skips tasks at once, whatever their own rules say, as in Airflow: those that no rule has decided yet, and those
//! that wait between two tries or for room. What runs, or has ended, stays as it is. It is kept as an XCom of the decider
//! (Airflow's `skipmixin_key`), so that a task that is cleared later is still skipped.

use super::{Plan, WorkingSet, settle::evaluate, start::run_template_context, working_set::Skip};
use crate::{
    ids::{RunPk, TaskIdx, TiPk},
    row::{RETURN_VALUE, RunRow, RunType, XcomRow, XcomValue},
    spec::{BranchTask, Decider, ShortCircuitTask, TaskSpec},
    state::TaskState,
    template::{Renderer, XComSource},
    timetable::Timetable,
    transition,
};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

/// The XCom key under which a decision is kept: `{"followed": [ids]}` of a branch (of its direct downstreams all others are
/// skipped), `{"skipped": [ids]}` of a short circuit.
pub const DECISION_KEY: &str = "skipmixin_key";

/// Characters of a value that a message shows.
const SHOWN: usize = 80;

/// What a task decided.
#[derive(Debug)]
struct Decision {
    /// Its return value.
    value: Value,
    /// The tasks that it skips.
    skips: Vec<TaskIdx>,
    /// What is kept under [`DECISION_KEY`].
    record: Option<Value>,
    /// For people.
    reason: String,
}

/// Ends a node whose task decides what follows. Settle afterwards.
pub(super) fn decide_flow(
    ws: &mut WorkingSet,
    node: TiPk,
    xcoms: Arc<dyn XComSource>,
) -> Option<()> {
    ws.to_render.retain(|pk| *pk != node);
    let (run_pk, idx) = ws.ti(node).map(|row| (row.run, row.task_idx))?;
    let plan = ws.plan_of(run_pk)?.clone();
    let run = ws.run(run_pk)?;
    let now = ws.now;
    match decision(ws, &plan, run, idx, xcoms) {
        Err(reason) => ws.change(node, |row| {
            transition::resolve(row, TaskState::Failed, Some(reason), now)
        })?,
        Ok(decision) => {
            let by = plan.task(idx)?.task_id.clone();
            keep(ws, node, &decision);
            for target in decision.skips {
                ws.skips.push_back(Skip {
                    run: run_pk,
                    task_idx: target,
                    reason: format!("skipped by {by}"),
                });
            }
            let reason = Some(decision.reason);
            ws.change(node, |row| {
                transition::resolve(row, TaskState::Success, reason, now)
            })?;
        }
    }
    ws.instance_ended(node)
}

/// The XComs of a decision; its node has no attempt, so their fence is the node's.
fn keep(ws: &mut WorkingSet, node: TiPk, decision: &Decision) -> Option<()> {
    let row = ws.ti(node)?.clone();
    let xcom = |key: &str, value: &Value| XcomRow {
        run: row.run,
        ti: row.pk,
        task_idx: row.task_idx,
        map_index: row.map_index,
        key: key.to_owned(),
        fence: row.fence,
        value: XcomValue::Inline(value.clone()),
    };
    ws.xcoms.push(xcom(RETURN_VALUE, &decision.value));
    ws.xcoms.extend(
        decision
            .record
            .iter()
            .map(|record| xcom(DECISION_KEY, record)),
    );
    Some(())
}

fn decision(
    ws: &WorkingSet,
    plan: &Plan,
    run: &RunRow,
    idx: TaskIdx,
    xcoms: Arc<dyn XComSource>,
) -> Result<Decision, String> {
    let task = plan.task(idx).ok_or("the task is not in this version")?;
    let render = |what: &str, text: &str| {
        let mut context = run_template_context(plan, run, task, None);
        context.asset_events = ws.events_of(run.pk);
        context.xcoms = xcoms.clone();
        let rendered = Renderer::new(context).render_native(text);
        rendered.map_err(|error| format!("{what}: {error}"))
    };
    match task.kind.decider() {
        Some(Decider::Branch(branch)) => choose(plan, idx, task, branch, render),
        Some(Decider::ShortCircuit(circuit)) => short_circuit(plan, idx, circuit, render),
        Some(Decider::LatestOnly) => Ok(latest_only(plan, run, idx, ws.now)),
        None => Err(format!("{} decides nothing", task.kind.name())),
    }
}

fn choose(
    plan: &Plan,
    idx: TaskIdx,
    task: &TaskSpec,
    branch: &BranchTask,
    render: impl Fn(&str, &str) -> Result<Value, String>,
) -> Result<Decision, String> {
    let value = render("branch.choose", &branch.choose)?;
    let names = names_of(&value)?;
    let mut chosen = BTreeSet::new();
    for name in &names {
        let found = plan.downstreams_named(idx, &task.task_id, name);
        if found.is_empty() {
            let ids: Vec<&str> = ids(plan, plan.graph.downstream(idx)).collect();
            let ids = if ids.is_empty() {
                "nothing: no task depends on it".to_owned()
            } else {
                ids.join(", ")
            };
            return Err(format!(
                "branch.choose gave {name:?}, which does not depend on this task; it can choose among: {ids}"
            ));
        }
        chosen.extend(found);
    }
    Ok(follow(plan, idx, value, chosen))
}

/// Of the direct downstreams those are followed that were chosen, and those that come after a chosen one: a task that joins
/// the branches may depend on the branch itself as well.
fn follow(plan: &Plan, idx: TaskIdx, value: Value, chosen: BTreeSet<TaskIdx>) -> Decision {
    let mut followed = chosen.clone();
    for task in chosen {
        followed.extend(plan.graph.all_downstream(task));
    }
    let (followed, skips): (Vec<TaskIdx>, Vec<TaskIdx>) = plan
        .graph
        .downstream(idx)
        .iter()
        .partition(|down| followed.contains(down));
    let followed: Vec<&str> = ids(plan, &followed).collect();
    Decision {
        value,
        skips,
        record: Some(json!({ "followed": followed })),
        reason: match followed.as_slice() {
            [] => "follows nothing".to_owned(),
            followed => format!("follows {}", followed.join(", ")),
        },
    }
}

/// The names in what a branch's template gives.
fn names_of(value: &Value) -> Result<Vec<String>, String> {
    let no_id = || {
        let mut shown = value.to_string();
        if let Some((cut, _)) = shown.char_indices().nth(SHOWN) {
            shown.truncate(cut);
            shown.push('…');
        }
        format!("branch.choose has to give an id or a list of ids, got {shown}")
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) if text.trim().is_empty() => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.trim().to_owned()]),
        Value::Array(items) => items
            .iter()
            .map(|item| {
                item.as_str()
                    .map(|text| text.trim().to_owned())
                    .ok_or_else(no_id)
            })
            .collect(),
        _ => Err(no_id()),
    }
}

fn short_circuit(
    plan: &Plan,
    idx: TaskIdx,
    circuit: &ShortCircuitTask,
    render: impl Fn(&str, &str) -> Result<Value, String>,
) -> Result<Decision, String> {
    let value = render("short_circuit.condition", &circuit.condition)?;
    if holds(&value) {
        return Ok(Decision {
            value,
            skips: Vec::new(),
            record: None,
            reason: "the condition holds".to_owned(),
        });
    }
    let below = if circuit.ignore_downstream_trigger_rules {
        plan.graph.all_downstream(idx)
    } else {
        plan.graph.downstream(idx).to_vec()
    };
    let is_teardown = |idx: &TaskIdx| plan.task(*idx).is_some_and(|task| task.teardown.is_some());
    let skips: Vec<TaskIdx> = below.into_iter().filter(|idx| !is_teardown(idx)).collect();
    let skipped: Vec<&str> = ids(plan, &skips).collect();
    Ok(Decision {
        value,
        record: Some(json!({ "skipped": skipped })),
        reason: format!(
            "the condition does not hold: {} tasks are skipped",
            skips.len()
        ),
        skips,
    })
}

/// What Python takes as true; and of texts, which is what templates with more than one `{{ … }}` give, not those that say
/// false.
fn holds(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(holds) => *holds,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => {
            let text = text.trim().to_ascii_lowercase();
            !matches!(text.as_str(), "" | "false" | "none" | "null" | "0")
        }
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A run is the latest until the interval after its own is over. Runs that somebody triggered always are.
fn latest_only(plan: &Plan, run: &RunRow, idx: TaskIdx, now: DateTime<Utc>) -> Decision {
    let end = run
        .data_interval_end
        .or(run.logical_date)
        .unwrap_or(run.run_after);
    let timetable = Timetable::of(&plan.spec, run.queued_at).ok().flatten();
    let next = timetable.and_then(|timetable| timetable.following(end));
    let is_latest =
        run.run_type == RunType::Manual || next.is_none_or(|next| now <= next.run_after);
    let chosen = if is_latest {
        plan.graph.downstream(idx)
    } else {
        &[]
    };
    let mut decision = follow(
        plan,
        idx,
        Value::Bool(is_latest),
        chosen.iter().copied().collect(),
    );
    decision.reason = match next.filter(|_| !is_latest) {
        Some(next) => format!("not the latest run: one of {} followed", next.run_after),
        None => "the latest run".to_owned(),
    };
    decision
}

fn ids<'p>(plan: &'p Plan, tasks: &[TaskIdx]) -> impl Iterator<Item = &'p str> {
    let tasks: Vec<&'p TaskSpec> = tasks.iter().filter_map(|idx| plan.task(*idx)).collect();
    tasks.into_iter().map(|task| task.task_id.as_str())
}

/// Whether a decision that was kept skips a direct downstream of the decider: for instances that are decided anew, after a
/// clear.
pub fn decision_skips(record: &Value, task_id: &str) -> bool {
    let names = |key: &str| record.get(key).and_then(Value::as_array);
    let has = |names: &Vec<Value>| names.iter().any(|name| name == task_id);
    names("followed").is_some_and(|followed| !has(followed)) || names("skipped").is_some_and(has)
}

/// Skips what deciders decided to skip. All nodes are loaded.
pub(super) fn skip_decided(ws: &mut WorkingSet) {
    let now = ws.now;
    while let Some(Skip {
        run,
        task_idx,
        reason,
    }) = ws.skips.pop_front()
    {
        let Some(node) = ws.node(run, task_idx) else {
            continue;
        };
        skip(ws, run, node, reason, now);
    }
}

fn skip(
    ws: &mut WorkingSet,
    run: RunPk,
    node: TiPk,
    reason: String,
    now: DateTime<Utc>,
) -> Option<()> {
    let row = ws.ti(node)?;
    match row.state {
        TaskState::None if !row.is_visible() => {
            // Of a mapped task that was cleared: its waiting instances are skipped.
            if row.is_undecided() {
                ws.to_render.retain(|pk| *pk != node);
                ws.to_close.push((node, TaskState::Skipped, Some(reason)));
            }
            return Some(());
        }
        TaskState::None => {
            ws.to_render.retain(|pk| *pk != node);
            ws.change(node, |row| {
                transition::resolve(row, TaskState::Skipped, Some(reason), now)
            })?;
        }
        // Once its last dispatch is over.
        TaskState::Restarting if row.then.is_none() => {
            let row = ws.ti_mut(node)?;
            row.then = Some(TaskState::Skipped);
            row.reason = Some(reason);
            return Some(());
        }
        TaskState::Scheduled
        | TaskState::UpForRetry
        | TaskState::UpForReschedule
        | TaskState::Deferred
        | TaskState::AwaitingInput => {
            let was_ready = row.state == TaskState::Scheduled;
            ws.change(node, |row| transition::cancel(row, reason, now))?;
            if was_ready {
                ws.run_mut(run)?.ready_tasks -= 1;
            }
        }
        _ => return None,
    }
    ws.instance_ended(node)
}

/// Takes the nodes to render out of the set: mapped tasks before deciders, which may stop what was expanded.
pub fn take_to_render(ws: &mut WorkingSet) -> Vec<TiPk> {
    let mut nodes = std::mem::take(&mut ws.to_render);
    let is_mapped = |node: TiPk| {
        let row = ws.ti(node);
        let mapping = row.and_then(|row| ws.plan_of(row.run)?.mapping(row.task_idx));
        mapping.is_some()
    };
    nodes.sort_by_key(|node| !is_mapped(*node));
    nodes
}

/// Renders what a scheduler itself has to render of a node: the lists that it is mapped over, or what it decides by. Settle
/// afterwards. While a run waits to be stopped its nodes are put back.
pub fn render(ws: &mut WorkingSet, node: TiPk, xcoms: Arc<dyn XComSource>) -> Option<()> {
    let row = ws.ti(node)?;
    if ws.to_stop.contains_key(&row.run) {
        ws.to_render.push(node);
        return Some(());
    }
    let plan = ws.plan_of(row.run)?;
    if plan.mapping(row.task_idx).is_some() {
        let values = super::expansion_values(ws, node, xcoms);
        return super::expand(ws, node, values);
    }
    decide_flow(ws, node, xcoms)
}

/// Decides nodes anew that were put back to `none`: a remembered skip first, then their rule.
pub fn decide_again(ws: &mut WorkingSet, node: TiPk, decisions: &[Value]) -> Option<()> {
    let row = ws.ti(node)?;
    let (run, task_id) = (row.run, row.task_id.clone());
    if decisions
        .iter()
        .any(|record| decision_skips(record, &task_id))
    {
        let now = ws.now;
        let reason = "skipped by what an upstream decided earlier".to_owned();
        return skip(ws, run, node, reason, now);
    }
    evaluate(ws, node)
}
