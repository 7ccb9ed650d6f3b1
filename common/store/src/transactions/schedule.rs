//! Makes scheduled runs when they are due.

use super::deploy::plan_next;
use crate::{
    Backend, StoreError, StoreResult, Tx,
    records::{DagRow, NewRun},
};
use chrono::{DateTime, SecondsFormat, Utc};
use gristmill_common::{row::RunType, spec::DagSpec};
use serde_json::Map;

/// DAGs that one transaction looks at.
const PASS: i64 = 50;
/// Runs of one DAG that one transaction makes, when it catches up.
const CATCH_UP: usize = 20;

pub(crate) async fn create_due_runs<B: Backend>(store: &B) -> StoreResult<usize> {
    let mut tx = store.begin().await?;
    let now = tx.now();
    let mut due = Vec::new();
    for mut dag in tx.lock_due_dags(PASS).await? {
        let version = tx.version(dag.version).await?.ok_or_else(|| {
            StoreError::Corrupt(format!("DAG {} has no version {}", dag.dag_id, dag.version))
        })?;
        for _ in 0..CATCH_UP {
            let Some(run) = due_run(&dag, &version.spec, now) else {
                break;
            };
            due.push(run);
            dag.last_run_after = dag.next_run_after;
            plan_next(&mut dag, &version.spec, now)?;
        }
        tx.update_dag(&dag).await?;
    }
    // Where a run of a logical date is there already, time goes on without another.
    tx.insert_runs(&due).await?;
    tx.commit().await?;
    Ok(due.len())
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
        logical_date: Some(logical_date),
        data_interval_start: dag.next_interval_start,
        data_interval_end: dag.next_interval_end,
        run_after,
        conf: Map::new(),
        params: spec.param_defaults(),
        note: None,
        max_active_tasks: i32::try_from(spec.max_active_tasks).unwrap_or(i32::MAX),
        timeout_ms: spec.dagrun_timeout.map(|t| t.millis()),
        idempotency: None,
    })
}
