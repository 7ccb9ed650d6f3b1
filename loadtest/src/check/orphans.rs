//! Rows refer to what is there, and every counter agrees with what it counts.

use super::{
    CheckError, Database, Verdict,
    rows::{Instance, Rows, Run},
};
use gristmill_common::{
    graph::Graph, invariant::Invariant, spec::DagSpec, state::TaskState, trigger_rule::Counters,
};
use sqlx::Row;
use std::collections::{BTreeMap, HashMap};

/// References that no foreign key guards, and rows that contradict each other. Each statement answers one text a row.
const ORPHANS: &str = "
    SELECT format('task_attempts: try %s of instance %s in run %s, which is not there', a.try_number, a.ti_pk, a.run_pk)
    FROM task_attempts a LEFT JOIN task_instances t ON t.pk = a.ti_pk AND t.run_pk = a.run_pk WHERE t.pk IS NULL
    UNION ALL
    SELECT format('xcoms: key %s of instance %s in run %s, which is not there', x.key, x.ti_pk, x.run_pk)
    FROM xcoms x LEFT JOIN task_instances t ON t.pk = x.ti_pk AND t.run_pk = x.run_pk WHERE t.pk IS NULL
    UNION ALL
    SELECT format('xcoms: key %s of instance %s is of fence %s, the instance is at %s', x.key, x.ti_pk, x.fence, t.fence)
    FROM xcoms x JOIN task_instances t ON t.pk = x.ti_pk AND t.run_pk = x.run_pk WHERE x.fence > t.fence
    UNION ALL
    SELECT format('outbox: a message of dispatch %s#%s, and the instance is not there', o.ti_pk, o.fence)
    FROM outbox o LEFT JOIN task_instances t ON t.pk = o.ti_pk WHERE t.pk IS NULL
    UNION ALL
    SELECT format('limits: %s of a run that is not there', l.name)
    FROM limits l LEFT JOIN dag_runs r ON r.pk = split_part(l.name, '/', 1)::bigint
    WHERE l.kind = 'task_in_run' AND l.used > 0 AND r.pk IS NULL
    UNION ALL
    SELECT format('idempotency_keys: %s of %s names run %s of another DAG', k.key, k.dag_id, k.run_pk)
    FROM idempotency_keys k JOIN dag_runs r ON r.pk = k.run_pk WHERE r.dag_id <> k.dag_id";

/// What the database is asked.
pub(super) async fn references(
    database: &Database,
    verdict: &mut Verdict,
) -> Result<(), CheckError> {
    for row in sqlx::query(ORPHANS).fetch_all(&database.pool).await? {
        let what: String = row.try_get(0)?;
        verdict.breach(Invariant::NoOrphans, what);
    }
    Ok(())
}

/// Counters of runs and limits, and those of nodes that are still to be decided by them.
pub(super) fn counters(rows: &Rows, verdict: &mut Verdict) {
    let mut used: BTreeMap<(String, String), i64> = BTreeMap::new();
    let mut spend = |kind: &str, name: String, n: i64| {
        *used.entry((kind.to_owned(), name)).or_default() += n;
    };
    let graphs: HashMap<i64, Graph> = rows
        .specs
        .iter()
        .map(|(version, spec)| (*version, Graph::of(spec)))
        .collect();
    for (run, instances) in rows.instances_by_run() {
        if run.state == gristmill_common::state::RunState::Running {
            let (kind, name) = run.limit();
            spend(&kind, name, 1);
            if !run.key.is_empty() {
                spend("dag_run_key", format!("{}/{}", run.dag_id, run.key), 1);
            }
        }
        for instance in instances {
            let task = rows.spec(run).and_then(|spec| spec.task(instance.task_idx));
            if instance.state == TaskState::Queued {
                spend("queue", rows.names[instance.queue].clone(), 1);
            }
            let Some(task) = task.filter(|_| instance.occupies) else {
                continue;
            };
            let pool = rows.names[instance.pool].clone();
            spend("pool", pool, instance.pool_slots);
            if let Some((key, _)) = &instance.shared {
                spend("task_key", key.clone(), 1);
            }
            if task.max_active_tis_per_dag.is_some() {
                spend("task", format!("{}/{}", run.dag_id, task.task_id), 1);
            }
            if task.max_active_tis_per_dagrun.is_some() {
                spend("task_in_run", format!("{}/{}", run.pk, task.task_id), 1);
            }
        }
        let known = rows.spec(run).zip(graphs.get(&run.version));
        if let Some((spec, graph)) = known {
            of_run(run, instances, graph, verdict);
            of_nodes(run, instances, spec, graph, verdict);
        }
    }
    for (key, limit) in &rows.limits {
        let counted = used.remove(key).unwrap_or(0);
        if counted != limit.used {
            let what = format!(
                "limit {} {}: used is {}, what spends it adds up to {counted}",
                key.0, key.1, limit.used
            );
            verdict.breach(Invariant::NoOrphans, what);
        }
    }
    for ((kind, name), n) in used {
        let what = format!("limit {kind} {name} is not there, and {n} of it is spent");
        verdict.breach(Invariant::NoOrphans, what);
    }
}

/// A run's counters against its instances.
fn of_run(run: &Run, instances: &[Instance], graph: &Graph, verdict: &mut Verdict) {
    let count = |which: &dyn Fn(&&Instance) -> bool| {
        let n = instances.iter().filter(|i| i.is_visible()).filter(which);
        i64::try_from(n.count()).unwrap_or(i64::MAX)
    };
    let bad = [TaskState::Failed, TaskState::UpstreamFailed];
    let counters = [
        ("active_tasks", run.active_tasks, count(&|i| i.occupies)),
        (
            "ready_tasks",
            run.ready_tasks,
            count(&|i| i.state == TaskState::Scheduled),
        ),
        (
            "unfinished_tasks",
            run.unfinished_tasks,
            count(&|i| !i.state.is_finished()),
        ),
        (
            "failed_leaves",
            run.failed_leaves,
            count(&|i| bad.contains(&i.state) && graph.downstream(i.task_idx).is_empty()),
        ),
    ];
    for (name, is, counted) in counters {
        if is != counted {
            let what = format!("run {run}: {name} is {is}, there are {counted}");
            verdict.breach(Invariant::NoOrphans, what);
        }
    }
}

/// The counters of undecided nodes against the endings of their upstreams. (Once a node is decided its counters are not
/// kept up any more.)
fn of_nodes(
    run: &Run,
    instances: &[Instance],
    spec: &DagSpec,
    graph: &Graph,
    verdict: &mut Verdict,
) {
    let undecided =
        |i: &&Instance| i.map_index < 0 && i.state == TaskState::None && i.expanded_len.is_none();
    if run.state.is_finished() || !instances.iter().any(|i| undecided(&i)) {
        return;
    }
    let mut by_task = vec![Counters::default(); spec.tasks.len()];
    for instance in instances.iter().filter(|i| i.is_visible()) {
        let of_task = usize::try_from(instance.task_idx)
            .ok()
            .and_then(|idx| by_task.get_mut(idx));
        if let Some(counters) = of_task {
            counters.total += 1;
            counters.count(instance.state, false);
        }
    }
    for node in instances.iter().filter(undecided) {
        let mut counted = Counters::default();
        for up in graph.upstream(node.task_idx) {
            let of_up = usize::try_from(*up).ok().and_then(|idx| by_task.get(idx));
            let of_up = of_up.copied().unwrap_or_default();
            counted.total += of_up.total;
            counted.success += of_up.success;
            counted.failed += of_up.failed;
            counted.upstream_failed += of_up.upstream_failed;
            counted.skipped += of_up.skipped;
            counted.removed += of_up.removed;
        }
        if node.counters != counted {
            let task = spec.task(node.task_idx);
            let what = format!(
                "{run} {}: its counters are {:?}, its upstreams' endings {counted:?}",
                task.map_or("?", |task| task.task_id.as_str()),
                node.counters
            );
            verdict.breach(Invariant::NoOrphans, what);
        }
    }
}
