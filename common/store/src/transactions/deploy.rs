//! Deploys DAG versions and accepts runs.

use super::assets;
use crate::{
    Backend, LimitKey, StoreError, StoreResult, Tx,
    records::{DagRow, NewDagVersion, VersionRow},
};
use gristmill_common::{
    spec::DagSpec,
    timetable::{NextRun, Timetable},
};

pub(crate) async fn deploy<B: Backend>(
    store: &B,
    new: &NewDagVersion,
) -> StoreResult<(VersionRow, bool)> {
    let mut tx = store.begin().await?;
    let spec = &new.spec;
    // Limits before DAGs: the end of a run locks both too.
    tx.lock_limits(&[LimitKey::DagRuns {
        dag_id: spec.dag_id.clone(),
    }])
    .await?;
    let (version, is_new) = tx.put_dag_version(new).await?;
    let mut dag = tx
        .lock_dag(&spec.dag_id)
        .await?
        .ok_or_else(|| StoreError::NotFound {
            what: "DAG",
            name: spec.dag_id.clone(),
        })?;
    plan_next(&mut tx, &mut dag, spec).await?;
    tx.update_dag(&dag).await?;
    tx.put_asset_references(&spec.dag_id, &assets::references(spec))
        .await?;
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
    if let Some(shared) = &spec.concurrency {
        tx.cap_run_keys(&spec.dag_id, i64::from(shared.limit))
            .await?;
    }
    tx.commit().await?;
    Ok((version, is_new))
}

/// Works out when the DAG's next scheduled run is due. Of a continuous schedule there is none while a run has not ended.
pub(super) async fn plan_next<T: Tx>(
    tx: &mut T,
    dag: &mut DagRow,
    spec: &DagSpec,
) -> StoreResult<()> {
    let timetable = timetable(dag, spec)?;
    let waits = match &timetable {
        Some(timetable) if timetable.is_continuous() && dag.last_run_after.is_some() => {
            tx.unfinished_runs(&dag.dag_id).await?.scheduled > 0
        }
        _ => false,
    };
    let next = timetable.filter(|_| !waits);
    set_next(
        dag,
        next.and_then(|next| next.next_after(dag.last_run_after, tx.now())),
    );
    Ok(())
}

pub(super) fn timetable(dag: &DagRow, spec: &DagSpec) -> StoreResult<Option<Timetable>> {
    Timetable::of(spec, dag.created_at).map_err(|error| StoreError::Refused(error.to_string()))
}

pub(super) fn set_next(dag: &mut DagRow, next: Option<NextRun>) {
    dag.next_run_after = next.map(|n| n.run_after);
    dag.next_logical_date = next.map(|n| n.logical_date);
    dag.next_interval_start = next.map(|n| n.interval_start);
    dag.next_interval_end = next.map(|n| n.interval_end);
}
