//! Deploys DAG versions and accepts runs.

use crate::{
    Backend, LimitKey, StoreError, StoreResult, Tx,
    records::{DagRow, NewDagVersion, VersionRow},
};
use gristmill_common::{spec::DagSpec, timetable::Timetable};

pub(crate) async fn deploy<B: Backend>(
    store: &B,
    new: &NewDagVersion,
) -> StoreResult<(VersionRow, bool)> {
    let mut tx = store.begin().await?;
    let (version, is_new) = tx.put_dag_version(new).await?;
    let spec = &new.spec;
    let mut dag = tx
        .lock_dag(&spec.dag_id)
        .await?
        .ok_or_else(|| StoreError::NotFound {
            what: "DAG",
            name: spec.dag_id.clone(),
        })?;
    plan_next(&mut dag, spec, tx.now())?;
    tx.update_dag(&dag).await?;
    let mut limits = vec![(
        LimitKey::DagRuns {
            dag_id: spec.dag_id.clone(),
        },
        i64::from(spec.max_active_runs),
    )];
    limits.extend(spec.tasks.iter().filter_map(|task| {
        task.max_active_tis_per_dag.map(|cap| {
            let key = LimitKey::Task {
                dag_id: spec.dag_id.clone(),
                task_id: task.task_id.clone(),
            };
            (key, i64::from(cap))
        })
    }));
    limits.sort_unstable();
    tx.ensure_limits(&limits, true).await?;
    tx.commit().await?;
    Ok((version, is_new))
}

/// Works out when the DAG's next scheduled run is due.
pub(super) fn plan_next(
    dag: &mut DagRow,
    spec: &DagSpec,
    now: chrono::DateTime<chrono::Utc>,
) -> StoreResult<()> {
    let timetable =
        Timetable::of(spec, dag.created_at).map_err(|e| StoreError::Refused(e.to_string()))?;
    let next = timetable.and_then(|t| t.next_after(dag.last_run_after, now));
    dag.next_run_after = next.as_ref().map(|n| n.run_after);
    dag.next_logical_date = next.as_ref().map(|n| n.logical_date);
    dag.next_interval_start = next.as_ref().map(|n| n.interval_start);
    dag.next_interval_end = next.as_ref().map(|n| n.interval_end);
    Ok(())
}
