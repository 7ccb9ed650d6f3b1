//! The common end of every transaction that changes task instances: settle, expand, dispatch, write.

use super::{
    assets, endings, past,
    room::{count_active, count_waiting, first_cap, take_tokens},
    writes,
};
use crate::{
    LimitKey, StoreError, StoreResult, Tx,
    plans::PlanCache,
    records::{NewAssetEvent, NewTi, OutDispatch, Writes},
    store::{Applied, DispatchContext, EndedRun},
};
use gristmill_common::{
    engine::{self, Command, ComposeError, Missing, WorkingSet, XcomPull},
    fault,
    ids::{Dispatch, RunPk, TaskIdx, TiPk},
    message::{Ending, Finished, MAX_XCOM_REFS, Sealed},
    row::{OutboxRow, RETURN_VALUE, RunType, TiRow, XcomValue},
    spec::{CACHE_XCOM, TaskKind, TaskSpec},
    state::TaskState,
    template::XComSource,
    transition::DispatchTerms,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use uuid::Uuid;

/// Rows of one INSERT at most.
const CHUNK: usize = 5_000;

/// Which ready instances a transaction may dispatch.
pub(super) enum Candidates {
    /// Those that it made ready itself, unless other runs wait too: then all are left to the fair choice of `dispatch_ready`.
    Own,
    /// These, best first.
    Given(Vec<TiPk>),
}

pub(super) async fn finish<T: Tx>(
    tx: &mut T,
    mut ws: WorkingSet,
    candidates: Candidates,
    published: &[Dispatch],
    context: &DispatchContext,
) -> StoreResult<Applied> {
    let mut updates = Vec::new();
    settle(tx, &mut ws, &mut updates, &context.plans).await?;
    insert_expanded(tx, &mut ws, &mut updates).await?;
    let fair = matches!(candidates, Candidates::Own);
    let mut ready = match candidates {
        Candidates::Own => ws.ready(),
        Candidates::Given(order) => order,
    };
    let gave_back = ws.spent.values().any(|n| *n < 0);
    // Ready instances outside this set compete for the same slots: then the choice is `dispatch_ready`'s, among all.
    let asks = fair && (gave_back || !ready.is_empty());
    let own_wait = asks && ready_tasks(&ws) > ready.len();
    if own_wait {
        ready.clear();
    }
    let batch = usize::try_from(context.batch).unwrap_or(usize::MAX);
    let cut_off = ready.len() > batch;
    ready.truncate(batch);
    let Sent {
        outbox,
        others_wait,
        ask_again,
        undeliverable,
    } = dispatch(tx, &mut ws, &ready, asks && !own_wait, context).await?;
    // A message that could not be made ended its instance: that has consequences too.
    settle(tx, &mut ws, &mut updates, &context.plans).await?;
    insert_expanded(tx, &mut ws, &mut updates).await?;
    let others_wait =
        write(tx, &ws, &outbox, published, ask_again, &mut updates).await? || others_wait;
    if !updates.is_empty() {
        tx.put_asset_events(&updates).await?;
    }
    if !ws.calls.is_empty() {
        tx.put_calls(&ws.calls).await?;
    }
    endings::tell_dags(tx, &ws).await?;
    Ok(Applied {
        more_ready: own_wait || others_wait || cut_off || undeliverable,
        outbox,
        to_cancel: ws
            .to_cancel
            .iter()
            .filter_map(|ti| ws.ti(*ti))
            .map(out_dispatch)
            .collect(),
        ended_runs: ws
            .ended_runs
            .iter()
            .map(|run| ended_run(&ws, *run))
            .collect(),
        waits: ws.waits_begun || ws.ended_runs.iter().any(|run| may_be_awaited(&ws, *run)),
        updated_assets: !updates.is_empty(),
        calls: !ws.calls.is_empty(),
        followed: ws
            .followed
            .iter()
            .map(|run| (*run, past::catches_up(&ws, *run)))
            .collect(),
        stale: ws.stale,
        touched: 0,
    })
}

/// Ready instances of the set's runs, whether they are in the set or not.
fn ready_tasks(ws: &WorkingSet) -> usize {
    ws.run_keys()
        .iter()
        .filter_map(|run| ws.run(*run))
        .map(|run| usize::try_from(run.ready_tasks).unwrap_or(0))
        .sum()
}

fn ended_run(ws: &WorkingSet, run: RunPk) -> EndedRun {
    let is_data = |task: &TaskSpec| matches!(task.kind, TaskKind::Data(_));
    EndedRun {
        run,
        has_data: ws
            .plan_of(run)
            .is_some_and(|plan| plan.spec.tasks.iter().any(is_data)),
    }
}

/// Whether the run was made by another one's task, which may wait for it.
fn may_be_awaited(ws: &WorkingSet, run: RunPk) -> bool {
    ws.run(run)
        .is_some_and(|run| run.run_type == RunType::OperatorTriggered)
}

fn out_dispatch(row: &TiRow) -> OutDispatch {
    OutDispatch {
        run: row.run,
        dispatch: row.dispatch(),
        state: row.state,
        epoch: row.epoch,
        claim_by: row.claim_by,
        worker: row.worker.clone(),
    }
}

/// Settles; on the way mapped tasks are expanded, branches decided, and earlier runs looked at. What updates assets by it is added
/// to `updates`.
async fn settle<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    updates: &mut Vec<NewAssetEvent>,
    plans: &PlanCache,
) -> StoreResult<()> {
    loop {
        stop(tx, ws).await?;
        let missing = engine::settle(ws);
        if !missing.is_empty() {
            load(tx, ws, &missing, updates).await?;
            let mut nodes = missing.nodes.iter();
            let absent = nodes.find(|(run, idx)| !ws.has_node(*run, *idx));
            if let Some((run, idx)) = absent {
                return Err(StoreError::Corrupt(format!(
                    "run {run} has no node for task {idx}"
                )));
            }
            continue;
        }
        if !ws.to_stop.is_empty() {
            continue;
        }
        if ws.to_render.is_empty() && ws.to_close.is_empty() && ws.to_look_back.is_empty() {
            return Ok(());
        }
        past::look_back(tx, ws, plans).await?;
        for (node, state, reason) in std::mem::take(&mut ws.to_close) {
            load_mapped(tx, ws, node).await?;
            engine::close(ws, node, state, reason);
        }
        for node in engine::take_to_render(ws) {
            if ws.ti(node).is_some_and(|row| row.expanded_len.is_some()) {
                load_mapped(tx, ws, node).await?;
            }
            let xcoms = pulled_values(tx, ws, node).await?;
            engine::render(ws, node, Arc::new(xcoms));
        }
    }
}

/// Loads the instances of a task that was expanded before.
async fn load_mapped<T: Tx>(tx: &mut T, ws: &mut WorkingSet, node: TiPk) -> StoreResult<()> {
    let Some((run, task_idx)) = ws.ti(node).map(|row| (row.run, row.task_idx)) else {
        return Ok(());
    };
    for row in tx.load_tasks(run, &[task_idx], &[]).await? {
        ws.add_ti(row);
    }
    Ok(())
}

/// Goes on with runs that are being stopped, which needs all that is left of them.
async fn stop<T: Tx>(tx: &mut T, ws: &mut WorkingSet) -> StoreResult<()> {
    let runs: Vec<RunPk> = ws.to_stop.keys().copied().collect();
    for run in runs {
        for row in tx.load_unfinished(run).await? {
            ws.add_ti(row);
        }
        engine::stop_rest(ws, run);
    }
    Ok(())
}

/// Loads what the set needs to settle. Of a mapped group's instances some may have been made in this very transaction: they
/// get their keys first.
async fn load<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    missing: &Missing,
    updates: &mut Vec<NewAssetEvent>,
) -> StoreResult<()> {
    if !missing.nodes.is_empty() {
        for row in tx.load_nodes(&missing.nodes).await? {
            ws.add_ti(row);
        }
    }
    if !missing.instances.is_empty() || !missing.tasks.is_empty() {
        insert_expanded(tx, ws, updates).await?;
    }
    let single = missing.instances.iter();
    let single = single.filter(|(run, idx, _)| !ws.is_whole(*run, *idx));
    let single = single.map(|(run, idx, index)| (*run, *idx, Some(*index)));
    let whole = missing.tasks.iter();
    let whole = whole.filter(|(run, idx)| !ws.is_whole(*run, *idx));
    let wanted: Vec<_> = single
        .chain(whole.map(|(run, idx)| (*run, *idx, None)))
        .collect();
    if !wanted.is_empty() {
        for row in tx.load_instances(&wanted).await? {
            ws.add_ti(row);
        }
    }
    ws.loaded(missing);
    Ok(())
}

/// Inserts the instances of mapped tasks; what those update that have ended already is added to `updates`.
async fn insert_expanded<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    updates: &mut Vec<NewAssetEvent>,
) -> StoreResult<()> {
    let rows = std::mem::take(&mut ws.inserts);
    for row in &rows {
        updates.extend(assets::updates(ws, None, row));
    }
    for chunk in rows.chunks(CHUNK) {
        let new: Vec<NewTi> = chunk.iter().cloned().map(NewTi).collect();
        let keys = tx.insert_tis(&new).await?;
        for (row, pk) in chunk.iter().zip(keys) {
            ws.add_ti(TiRow { pk, ..row.clone() });
        }
    }
    Ok(())
}

/// What a transaction sends out.
#[derive(Default)]
struct Sent {
    outbox: Vec<OutboxRow>,
    /// Other runs wait too: everything was left to the fair choice.
    others_wait: bool,
    /// None was seen to wait: to be asked again now that the limits are locked.
    ask_again: bool,
    /// An instance failed because its message could not be made: it left room, and maybe downstreams that are ready.
    undeliverable: bool,
}

async fn dispatch<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    ready: &[TiPk],
    ask_others: bool,
    context: &DispatchContext,
) -> StoreResult<Sent> {
    let ready = if context.epoch.is_some() { ready } else { &[] };
    let keys = engine::dispatch_limits(ws, ready);
    if keys.is_empty() {
        return Ok(Sent::default());
    }
    let runs = ws.run_keys();
    let except = ask_others.then_some(runs.as_slice());
    // Whether others wait is looked up with the locks, which is soon enough to choose fairly, but may be older than they
    // are. So a "no" is asked again in the last statement, with the limits locked: a transaction that found one of them
    // full held its row until it had committed what it left waiting. Either it sees the room that is given back here,
    // or it is seen then, and the dispatch loop is woken for it.
    let (mut limits, others_wait) = tx.lock_limits_and_look(&keys, except).await?;
    let ask_again = ask_others && !others_wait;
    let new: Vec<(LimitKey, i64)> = keys
        .iter()
        .filter_map(|key| Some((key.clone(), first_cap(key)?)))
        .filter(|(key, _)| !limits.iter().any(|limit| limit.key == *key))
        .collect();
    if !new.is_empty() {
        tx.ensure_limits(&new, false).await?;
        limits = tx.lock_limits(&keys).await?;
    }
    let ready = if others_wait { &[] } else { ready };
    if !ready.is_empty() {
        count_active(tx, ws, &mut limits).await?;
        count_waiting(tx, ws, &mut limits, &ws.waiting_slots()).await?;
    }
    let now = ws.now;
    let claim_by = now
        + chrono::Duration::from_std(context.claim_window).unwrap_or(chrono::Duration::minutes(5));
    let epoch = context.epoch.unwrap_or_default();
    let out = engine::dispatch(ws, ready, &limits, || DispatchTerms {
        now,
        claim_by,
        epoch,
        attempt: Uuid::now_v7(),
    });
    if out.is_empty() {
        return Ok(Sent {
            others_wait,
            ask_again,
            ..Sent::default()
        });
    }
    take_tokens(tx, ws, &out, &limits).await?;
    let mut outbox = compose(tx, ws, &out, context).await?;
    let undeliverable = outbox.len() < out.len();
    if fault::misbehaves("lose-message") {
        outbox.clear();
    }
    Ok(Sent {
        undeliverable,
        outbox,
        others_wait,
        ask_again,
    })
}

/// Makes the messages of what was dispatched. An instance whose message cannot be made fails with the reason.
async fn compose<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    out: &[TiPk],
    context: &DispatchContext,
) -> StoreResult<Vec<OutboxRow>> {
    let mut outbox = Vec::with_capacity(out.len());
    let mut refs = HashMap::new();
    let mut secrets = HashMap::new();
    for &ti in out {
        let Some((run, idx)) = ws.ti(ti).map(|row| (row.run, row.task_idx)) else {
            continue;
        };
        assets::load_events(tx, ws, run).await?;
        if let std::collections::hash_map::Entry::Vacant(entry) = refs.entry((run, idx)) {
            entry.insert(pulled_refs(tx, ws, ti, out).await?);
        }
        if let std::collections::hash_map::Entry::Vacant(entry) = secrets.entry((run, idx)) {
            entry.insert(sealed(tx, ws, ti).await?);
        }
        let xcoms: &[XcomPull] = refs.get(&(run, idx)).map_or(&[], Vec::as_slice);
        let sealed = secrets.get(&(run, idx)).cloned().unwrap_or_default();
        match engine::compose(ws, ti, xcoms, sealed, (context.token)(run)) {
            Ok(row) => outbox.push(row),
            Err(error @ (ComposeError::TooLarge { .. } | ComposeError::QueueName(_))) => {
                fail_undeliverable(ws, ti, &error);
            }
            Err(error @ ComposeError::NotDispatched(_)) => {
                return Err(StoreError::Corrupt(error.to_string()));
            }
        }
    }
    Ok(outbox)
}

fn fail_undeliverable(ws: &mut WorkingSet, ti: TiPk, error: &ComposeError) {
    let Some(row) = ws.ti(ti) else { return };
    let event = Finished {
        run: row.run,
        dispatch: row.dispatch(),
        worker: String::new(),
        hostname: String::new(),
        started_at: ws.now,
        ended_at: ws.now,
        ending: Ending::FailedForGood,
        exit_code: None,
        pid: None,
        reason: Some(error.to_string()),
        xcoms: Vec::new(),
    };
    ws.apply(&Command::Finished(Box::new(event)));
}

async fn pulled_refs<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    ti: TiPk,
    out: &[TiPk],
) -> StoreResult<Vec<XcomPull>> {
    let Some((run, idx)) = ws.ti(ti).map(|row| (row.run, row.task_idx)) else {
        return Ok(Vec::new());
    };
    let Some(plan) = ws.plan_of(run).cloned() else {
        return Ok(Vec::new());
    };
    let refs = plan.refs(idx);
    let tasks = refs.map(|refs| plan.pulled_tasks(idx, refs));
    // Of members of the same mapped group only the values of the same index.
    let (mates, tasks): (Vec<TaskIdx>, Vec<TaskIdx>) = tasks
        .unwrap_or_default()
        .into_iter()
        .partition(|task| plan.share_map(idx, *task));
    if mates.is_empty() && tasks.is_empty() {
        return Ok(Vec::new());
    }
    write_xcoms(tx, ws).await?;
    let mut rows = Vec::new();
    if !tasks.is_empty() {
        rows = tx.xcom_refs(run, &tasks, MAX_XCOM_REFS as i64).await?;
    }
    if !mates.is_empty() {
        let of_task = out.iter().filter_map(|ti| ws.ti(*ti));
        let of_task = of_task.filter(|row| (row.run, row.task_idx) == (run, idx));
        let indexes: Vec<i32> = of_task.map(|row| row.map_index).collect();
        rows.extend(tx.xcom_refs_at(run, &mates, &indexes).await?);
    }
    Ok(rows
        .into_iter()
        .filter(|x| !x.key.starts_with(CACHE_XCOM))
        .map(|x| XcomPull {
            task_idx: x.task_idx,
            map_index: x.map_index,
            ti: x.ti,
            fence: x.fence,
            key: x.key,
            object: x.object,
        })
        .collect())
}

async fn sealed<T: Tx>(tx: &mut T, ws: &WorkingSet, ti: TiPk) -> StoreResult<Sealed> {
    let Some(row) = ws.ti(ti) else {
        return Ok(Sealed::default());
    };
    let Some(plan) = ws.plan_of(row.run) else {
        return Ok(Sealed::default());
    };
    match plan.refs(row.task_idx) {
        Some(refs) if !refs.conns.is_empty() || !refs.vars.is_empty() => {
            let conns: Vec<String> = refs.conns.iter().cloned().collect();
            let vars: Vec<String> = refs.vars.iter().cloned().collect();
            tx.sealed(&conns, &vars).await
        }
        _ => Ok(Sealed::default()),
    }
}

/// What a node's lists, what it decides by, or a waiting instance's templates, pull: by (task id, key).
pub(super) async fn pulled_values<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    node: TiPk,
) -> StoreResult<Pulled> {
    let mut pulled = Pulled::default();
    let Some((run, task_idx)) = ws.ti(node).map(|row| (row.run, row.task_idx)) else {
        return Ok(pulled);
    };
    if engine::follows_its_group(ws, node) {
        return Ok(pulled);
    }
    assets::load_events(tx, ws, run).await?;
    let Some(plan) = ws.plan_of(run).cloned() else {
        return Ok(pulled);
    };
    let Some(refs) = plan.expand_refs(task_idx) else {
        return Ok(pulled);
    };
    let tasks = plan.pulled_tasks(task_idx, refs);
    if tasks.is_empty() {
        return Ok(pulled);
    }
    let mut keys: Vec<String> = refs.xcom_pulls.iter().map(|(_, key)| key.clone()).collect();
    keys.push(RETURN_VALUE.to_owned());
    keys.sort_unstable();
    keys.dedup();
    write_xcoms(tx, ws).await?;
    // A mapped task that left no value gives the empty list.
    for task in tasks.iter().filter_map(|idx| plan.task(*idx)) {
        if task.mapping().is_some() {
            let key = (task.task_id.clone(), RETURN_VALUE.to_owned());
            pulled.0.entry(key).or_default();
        }
    }
    for x in tx.xcoms_of_tasks(run, &tasks, &keys).await? {
        let Some(task) = plan.task(x.task_idx) else {
            continue;
        };
        pulled
            .0
            .entry((task.task_id.clone(), x.key))
            .or_default()
            .insert(x.map_index, x.value);
    }
    Ok(pulled)
}

type ByMapIndex = BTreeMap<i32, XcomValue>;

/// XComs read in the transaction, for the scheduler's own templates.
#[derive(Debug, Default)]
pub(super) struct Pulled(HashMap<(String, String), ByMapIndex>);

impl XComSource for Pulled {
    fn pull(
        &self,
        task_id: &str,
        key: &str,
        map_index: Option<i32>,
    ) -> Result<Option<Value>, String> {
        let Some(values) = self.0.get(&(task_id.to_owned(), key.to_owned())) else {
            return Ok(None);
        };
        let inline = |value: &XcomValue| match value {
            XcomValue::Inline(value) => Ok(value.clone()),
            XcomValue::Object { size, .. } => Err(format!(
                "the XCom of {task_id} is {size} bytes; a list to map over may be at most 1 MiB"
            )),
        };
        match map_index {
            Some(index) => values.get(&index).map(inline).transpose(),
            None => match values.get(&gristmill_common::ids::UNMAPPED) {
                Some(value) => inline(value).map(Some),
                None => values
                    .values()
                    .map(inline)
                    .collect::<Result<Vec<_>, _>>()
                    .map(|list| Some(Value::Array(list))),
            },
        }
    }
}

/// Before XComs are read: they may be among those that this very transaction accepts.
async fn write_xcoms<T: Tx>(tx: &mut T, ws: &mut WorkingSet) -> StoreResult<()> {
    let xcoms = std::mem::take(&mut ws.xcoms);
    if xcoms.is_empty() {
        return Ok(());
    }
    tx.put_xcoms(&xcoms).await
}

/// Writes what the set has changed; the updates of assets in it are added to `updates`. Answers whether others wait, if that
/// is asked.
async fn write<T: Tx>(
    tx: &mut T,
    ws: &WorkingSet,
    outbox: &[OutboxRow],
    published: &[Dispatch],
    ask_others: bool,
    updates: &mut Vec<NewAssetEvent>,
) -> StoreResult<bool> {
    let tis = writes(ws);
    for write in &tis {
        updates.extend(assets::updates(ws, Some(write.expected_state), &write.row));
    }
    let limits: Vec<(LimitKey, i64)> = ws
        .spent
        .iter()
        .filter(|(_, n)| **n != 0)
        .map(|(key, n)| (key.clone(), *n))
        .collect();
    let (runs, touched) = (ws.changed_runs(), ws.run_keys());
    let written = tx
        .write(&Writes {
            tis: &tis,
            runs: &runs,
            xcoms: &ws.xcoms,
            attempts: &ws.attempts,
            limits: &limits,
            outbox,
            published,
            ask_others: ask_others.then_some(&touched),
        })
        .await?;
    if written.tis != tis.len() {
        // A start that was noted meanwhile, or what the run's lock should have made impossible: try the whole transaction
        // again on what is there now.
        return Err(StoreError::Conflict(format!(
            "{} of {} task instances had changed",
            tis.len() - written.tis,
            tis.len()
        )));
    }
    let remade: Vec<&TiRow> = tis
        .iter()
        .map(|write| &write.row)
        .filter(|row| row.state == TaskState::Restarting || ws.remade.contains(&row.pk))
        .collect();
    if !remade.is_empty() {
        tx.remake_tis(&remade).await?;
    }
    Ok(written.others_wait)
}
