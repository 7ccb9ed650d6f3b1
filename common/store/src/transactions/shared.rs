//! Limits that runs share whose key is the same (`concurrency` of a DAG): what becomes of one that finds its limit full.

use super::apply::apply;
use crate::{
    Backend, LimitKey, StoreResult, Tx,
    records::RunKeyNote,
    store::{Applied, DispatchContext},
};
use gristmill_common::{
    engine::{self, Command, WorkingSet},
    ids::RunPk,
    row::RunRow,
    spec::{Concurrency, Strategy},
};
use std::collections::BTreeMap;

/// A queued run that its shared limit has no room for.
pub(super) struct Held {
    run: RunPk,
    run_id: String,
    dag_id: String,
    key: String,
    limit: u32,
    strategy: Strategy,
}

impl Held {
    pub(super) fn new(row: &RunRow, shared: &Concurrency) -> Option<Self> {
        Some(Self {
            run: row.pk,
            run_id: row.run_id.clone(),
            dag_id: row.dag_id.clone(),
            key: row.concurrency_key.clone()?,
            limit: shared.limit,
            strategy: shared.strategy,
        })
    }
}

/// Renders the keys of runs that are looked at for the first time, and makes sure that their limits have rows.
pub(super) async fn note_keys<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    runs: &[RunPk],
) -> StoreResult<Vec<RunKeyNote>> {
    let mut notes = Vec::new();
    for run in runs {
        if let Some(key) = ws.note_run_key(*run) {
            notes.push(RunKeyNote {
                run: *run,
                key,
                waits: false,
            });
        }
    }
    // Rows that nobody uses are deleted now and then.
    let mut limits: Vec<(LimitKey, i64)> = runs
        .iter()
        .filter_map(|run| {
            let key = engine::shared_limit(ws.run(*run)?)?;
            let shared = ws.plan_of(*run)?.spec.concurrency.as_ref()?;
            Some((key, i64::from(shared.limit)))
        })
        .collect();
    if !limits.is_empty() {
        limits.sort_unstable();
        limits.dedup_by(|a, b| a.0 == b.0);
        tx.ensure_limits(&limits, false).await?;
    }
    Ok(notes)
}

/// Writes new keys, and which runs wait for theirs.
pub(super) async fn write_keys<T: Tx>(
    tx: &mut T,
    new: &[RunKeyNote],
    held: &[Held],
) -> StoreResult<()> {
    let mut notes: BTreeMap<RunPk, RunKeyNote> =
        new.iter().map(|note| (note.run, note.clone())).collect();
    for held in held.iter().filter(|held| held.strategy == Strategy::Queue) {
        let note = RunKeyNote {
            run: held.run,
            key: held.key.clone(),
            waits: true,
        };
        notes.insert(held.run, note);
    }
    if notes.is_empty() {
        return Ok(());
    }
    let notes: Vec<RunKeyNote> = notes.into_values().collect();
    tx.set_run_keys(&notes).await
}

/// Cancels the new ones where that is their strategy, and answers which running ones have to go for others.
pub(super) async fn make_way<T: Tx>(
    tx: &mut T,
    ws: &mut WorkingSet,
    held: &[Held],
) -> StoreResult<Vec<Command>> {
    let mut replacing: BTreeMap<(&str, &str), Vec<&Held>> = BTreeMap::new();
    for held in held {
        match held.strategy {
            Strategy::Queue => {}
            Strategy::CancelNew => ws.apply(&Command::StopRun {
                run: held.run,
                cancelled: true,
                reason: format!(
                    "{} of at most {} runs with the key {:?} were running (concurrency: cancel_new)",
                    held.limit, held.limit, held.key
                ),
            }),
            Strategy::CancelRunning => replacing
                .entry((&held.dag_id, &held.key))
                .or_default()
                .push(held),
        }
    }
    let mut stops = Vec::new();
    for ((dag_id, key), waiting) in replacing {
        let running = tx.running_with_key(dag_id, key).await?;
        let stopping = running.iter().filter(|(_, stopping)| *stopping).count();
        let oldest = running.iter().filter(|(_, stopping)| !stopping);
        let newer = waiting.iter().skip(stopping);
        stops.extend(oldest.zip(newer).map(|((run, _), newer)| Command::StopRun {
            run: *run,
            cancelled: true,
            reason: format!(
                "the run {} took its place: its key is {key:?} too (concurrency: cancel_running)",
                newer.run_id
            ),
        }));
    }
    Ok(stops)
}

/// Stops runs in a transaction of their own: their locks come before those of the runs that they make way for. Should it
/// fail, whoever waits for them is looked at again within a second.
pub(super) async fn stop<B: Backend>(
    store: &B,
    stops: &[Command],
    applied: &mut Applied,
    context: &DispatchContext,
) {
    if stops.is_empty() {
        return;
    }
    match apply(store, stops, &[], context).await {
        Ok(stopped) => applied.extend(stopped),
        Err(error) => tracing::warn!(%error, "cannot stop runs for newer ones yet"),
    }
}
