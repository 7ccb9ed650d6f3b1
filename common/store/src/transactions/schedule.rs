//! Makes scheduled runs when they are due.

use super::deploy::{set_next, timetable};
use crate::{
    Backend, StoreError, StoreResult, Tx,
    records::{AuditRow, DagRow, NewRun},
};
use chrono::{DateTime, SecondsFormat, Utc};
use gristmill_common::{
    deadline,
    row::RunType,
    spec::{DagSpec, Overlap},
};
use serde_json::{Map, json};

/// DAGs that one transaction looks at.
const PASS: i64 = 50;
/// Runs of one DAG that one transaction makes, when it catches up.
const CATCH_UP: usize = 20;

pub(crate) async fn create_due_runs<B: Backend>(store: &B) -> StoreResult<usize> {
    let mut tx = store.begin().await?;
    let mut due = Vec::new();
    let mut skipped = Vec::new();
    for mut dag in tx.lock_due_dags(PASS).await? {
        let version = tx.version(dag.version).await?.ok_or_else(|| {
            StoreError::Corrupt(format!("DAG {} has no version {}", dag.dag_id, dag.version))
        })?;
        let runs = take_due(&mut dag, &version.spec, tx.now())?;
        let room = room(&mut tx, &dag, &version.spec).await?;
        let made = runs.len().min(room);
        skipped.extend(runs[made..].iter().map(|run| skip(run, tx.now())));
        due.extend(runs.into_iter().take(made));
        tx.update_dag(&dag).await?;
    }
    // Where a run of a logical date is there already, time goes on without another.
    tx.insert_runs(&due).await?;
    if !skipped.is_empty() {
        tx.put_audits(&skipped).await?;
    }
    tx.commit().await?;
    Ok(due.len() + skipped.len())
}

/// The DAG's runs that are due; its row moves on to the one after them.
fn take_due(dag: &mut DagRow, spec: &DagSpec, now: DateTime<Utc>) -> StoreResult<Vec<NewRun>> {
    let timetable = timetable(dag, spec)?;
    let mut runs = Vec::new();
    while runs.len() < CATCH_UP
        && let Some(run) = due_run(dag, spec, now)
    {
        runs.push(run);
        dag.last_run_after = dag.next_run_after;
        // The end of a continuous run makes the next one due.
        let next = timetable
            .as_ref()
            .filter(|timetable| !timetable.is_continuous())
            .and_then(|timetable| timetable.next_after(dag.last_run_after, now));
        set_next(dag, next);
    }
    Ok(runs)
}

/// How many due runs may be made: with `overlap: skip` as many as could be active.
async fn room<T: Tx>(tx: &mut T, dag: &DagRow, spec: &DagSpec) -> StoreResult<usize> {
    if spec.overlap != Overlap::Skip {
        return Ok(usize::MAX);
    }
    let active = tx.unfinished_runs(&dag.dag_id).await?.all;
    let room = i64::from(spec.max_active_runs) - active;
    Ok(usize::try_from(room).unwrap_or(0))
}

/// What the audit log says of a run that was not made.
fn skip(run: &NewRun, now: DateTime<Utc>) -> AuditRow {
    AuditRow {
        at: now,
        actor: "scheduler".to_owned(),
        event: "scheduled_run_skipped".to_owned(),
        dag_id: Some(run.dag_id.clone()),
        run_id: Some(run.run_id.clone()),
        task_id: None,
        extra: json!({ "reason": "max_active_runs runs were active (overlap: skip)" }),
    }
}

fn due_run(dag: &DagRow, spec: &DagSpec, now: DateTime<Utc>) -> Option<NewRun> {
    let run_after = dag.next_run_after.filter(|at| *at <= now)?;
    let logical_date = dag.next_logical_date?;
    Some(NewRun {
        dag_id: dag.dag_id.clone(),
        run_id: format!(
            "scheduled__{}",
            logical_date.to_rfc3339_opts(SecondsFormat::AutoSi, false)
        ),
        version: dag.version,
        run_type: RunType::Scheduled,
        triggered_by: "timetable".to_owned(),
        backfill: None,
        logical_date: Some(logical_date),
        data_interval_start: dag.next_interval_start,
        data_interval_end: dag.next_interval_end,
        run_after,
        conf: Map::new(),
        params: spec.param_defaults(),
        note: None,
        max_active_tasks: i32::try_from(spec.max_active_tasks).unwrap_or(i32::MAX),
        timeout_ms: spec.dagrun_timeout.map(|t| t.millis()),
        next_deadline: deadline::of_new(spec, Some(logical_date), now),
        idempotency: None,
    })
}
