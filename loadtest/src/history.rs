//! Fills a private deployment's database with ended runs, by few and large statements.

use crate::{deployment::Servers, error::Result, progress::Progress};

/// Task instances of each run.
const PER_RUN: u64 = 100;
/// Task instances that one statement makes.
const STEP: u64 = 200_000;
/// The rows refer to each other as they should: nobody has to check that again. What a crash of this private server would lose
/// is made anew.
const QUICKLY: &str = "SET session_replication_role = replica; SET synchronous_commit = off;";
/// Days over which the runs are spread; within the default retention, so that nothing is deleted while we measure.
const DAYS: u32 = 60;

/// Makes runs of the deployed DAG `dag_id` with so many ended task instances in all, each with its attempt, one in ten with an
/// XCom. The tables are analysed at the end, as autovacuum would have done by the time a database has grown so far.
pub async fn fill(servers: &Servers, dag_id: &str, instances: u64) -> Result<()> {
    let runs = instances.div_ceil(PER_RUN);
    let mut progress = Progress::new("ended task instances", instances);
    let mut made = 0;
    while made < runs {
        let next = (made + STEP / PER_RUN).min(runs);
        let statement = statement(dag_id, made, next, runs);
        servers.sql(&format!("{QUICKLY} {statement}")).await?;
        made = next;
        progress.set((made * PER_RUN).min(instances), "");
    }
    progress.set(instances, "vacuuming");
    servers.sql("VACUUM (ANALYZE)").await?;
    servers.sql("CHECKPOINT").await?;
    Ok(())
}

/// Makes the runs `from + 1` to `to` of `all`, oldest first, with all that belongs to them. Each part is made of what the part
/// before it has inserted, so that nothing is looked up, however large the tables are.
fn statement(dag_id: &str, from: u64, to: u64, all: u64) -> String {
    let first = from + 1;
    let dag_id = dag_id.replace('\'', "''");
    format!(
        "WITH r AS ( \
             INSERT INTO dag_runs (version_pk, run_after, queued_at, started_at, ended_at, max_active_tasks, dag_id, run_id, \
                 state, run_type, triggered_by, conf, params) \
             SELECT d.version_pk, t, t, t, t + interval '1 minute', 16, d.dag_id, 'history-' || n, \
                 'success', 'manual', 'rest_api', '{{}}', '{{}}' \
             FROM (SELECT n, now() - interval '{DAYS} days' * (({all} - n)::float8 / {all}) - interval '1 hour' AS t \
                   FROM generate_series({first}, {to}) n) AS made \
             CROSS JOIN dags d WHERE d.dag_id = '{dag_id}' ORDER BY n \
             RETURNING pk, started_at, ended_at), \
         t AS ( \
             INSERT INTO task_instances (run_pk, fence, epoch, scheduled_at, queued_at, started_at, ended_at, attempt, \
                 task_idx, map_index, try_number, max_tries, user_failures, infra_losses, pool_slots, priority_weight, pid, \
                 exit_code, up_total, up_success, up_failed, up_upstream_failed, up_skipped, up_removed, up_setups, \
                 up_setup_success, up_setup_skipped, limit_lane, occupies, state, task_id, queue, pool, worker, hostname, \
                 map_values) \
             SELECT r.pk, 1, 1, r.started_at, r.started_at, r.started_at, r.ended_at, gen_random_uuid(), \
                 0, i, 1, 1, 0, 0, 1, 1, 4711, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, false, 'success', 'work', 'default', \
                 'bench', 'worker-0', 'history', json_build_object('item', i) \
             FROM r CROSS JOIN generate_series(0, {PER_RUN} - 1) i ORDER BY r.pk, i \
             RETURNING run_pk, pk, fence, started_at, ended_at, attempt, pid, worker, hostname, task_idx, map_index), \
         a AS ( \
             INSERT INTO task_attempts (run_pk, ti_pk, fence, started_at, ended_at, attempt, try_number, pid, exit_code, \
                 ending, worker, hostname) \
             SELECT t.run_pk, t.pk, t.fence, t.started_at, t.ended_at, t.attempt, 1, t.pid, 0, 'success', t.worker, \
                 t.hostname \
             FROM t) \
         INSERT INTO xcoms (run_pk, ti_pk, fence, task_idx, map_index, key, value) \
         SELECT t.run_pk, t.pk, t.fence, t.task_idx, t.map_index, 'return_value', '\"a value\"' \
         FROM t WHERE t.map_index % 10 = 0"
    )
}

#[cfg(test)]
mod tests {
    use super::statement;

    #[test]
    fn runs_are_numbered_without_gaps_and_names_are_quoted() {
        let runs = statement("it's", 2000, 2500, 5000);
        assert!(runs.contains("generate_series(2001, 2500)"), "{runs}");
        assert!(runs.contains("d.dag_id = 'it''s'"), "{runs}");
    }
}
