//! What the end of runs means for their DAG's schedule.

use super::deploy::plan_next;
use crate::{
    StoreError, StoreResult, Tx,
    records::{AuditRow, DagRow},
};
use gristmill_common::{
    engine::WorkingSet,
    ids::RunPk,
    row::RunType,
    spec::{DagSpec, Schedule},
    state::RunState,
};
use serde_json::json;
use std::collections::BTreeSet;

/// Once the endings are written: the next run of a continuous schedule is due, and a DAG whose runs fail one after another is
/// paused. DAGs that have neither cost nothing here.
pub(super) async fn tell_dags<T: Tx>(tx: &mut T, ws: &WorkingSet) -> StoreResult<()> {
    let dags: BTreeSet<&str> = ws
        .ended_runs
        .iter()
        .filter_map(|run| concerned(ws, *run))
        .collect();
    for dag_id in dags {
        let Some(mut dag) = tx.lock_dag(dag_id).await? else {
            continue;
        };
        // The DAG's current version decides, whatever version the run was of.
        let spec = tx
            .version(dag.version)
            .await?
            .ok_or_else(|| {
                StoreError::Corrupt(format!("DAG {dag_id} has no version {}", dag.version))
            })?
            .spec;
        pause_if_failing(tx, &mut dag, &spec).await?;
        if spec.schedule == Schedule::Continuous && dag.next_run_after.is_none() {
            plan_next(tx, &mut dag, &spec).await?;
        }
        tx.update_dag(&dag).await?;
    }
    Ok(())
}

/// The DAG of an ended run, if the ending may matter to it.
fn concerned(ws: &WorkingSet, run: RunPk) -> Option<&str> {
    let row = ws.run(run)?;
    let spec = &ws.plan_of(run)?.spec;
    let continues = spec.schedule == Schedule::Continuous && row.run_type == RunType::Scheduled;
    let failed = row.state == RunState::Failed && !row.cancelled && row.backfill.is_none();
    let counts = failed && spec.max_consecutive_failed_dag_runs > 0;
    (continues || counts).then_some(row.dag_id.as_str())
}

async fn pause_if_failing<T: Tx>(tx: &mut T, dag: &mut DagRow, spec: &DagSpec) -> StoreResult<()> {
    let most = spec.max_consecutive_failed_dag_runs;
    if most == 0 || dag.is_paused || tx.failures_in_a_row(&dag.dag_id, most).await? < most {
        return Ok(());
    }
    let reason = match most {
        1 => "its last run failed (max_consecutive_failed_dag_runs: 1)".to_owned(),
        _ => format!("its last {most} runs failed (max_consecutive_failed_dag_runs: {most})"),
    };
    let audit = AuditRow {
        at: tx.now(),
        actor: "scheduler".to_owned(),
        event: "dag_paused".to_owned(),
        dag_id: Some(dag.dag_id.clone()),
        run_id: None,
        task_id: None,
        extra: json!({ "reason": reason }),
    };
    dag.is_paused = true;
    dag.pause_reason = Some(reason);
    tx.put_audits(&[audit]).await
}
