//! The cost of the statement does not grow with what is blocked.

use super::READY;
use crate::{PgOptions, PgStore};
use gristmill_store::{Backend, Reads, Tx};
use gristmill_testkit::{Database, shared};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row, query};

/// A DAG with runs 1 to `runs`, each with room 16.
const RUNS: &str = "
    INSERT INTO dag_versions (id, dag_id, version_number, spec, spec_hash, source, created_at)
        VALUES (gen_random_uuid(), 'd', 1, '{}', '', '', now());
    INSERT INTO dags (dag_id, version_pk, version_number, is_paused, fileloc, max_active_runs, max_active_tasks, created_at, updated_at)
        VALUES ('d', 1, 1, false, '', 16, 16, now(), now());
    INSERT INTO dag_runs (version_pk, run_after, queued_at, started_at, max_active_tasks, ready_tasks, unfinished_tasks, dag_id,
                          run_id, state, run_type, triggered_by, conf, params)
        SELECT 1, now(), now(), now(), 16, 1, 1, 'd', 'r' || n, 'running', 'manual', 'test', '{}', '{}'
        FROM generate_series(1, RUNS) n;
    UPDATE limits SET cap = 1000000 WHERE name = 'default_pool';
    INSERT INTO limits (kind, name, cap, used) VALUES ('pool', 'full', 9, 9), ('pool', 'empty', 100, 0);";

/// `count` ready instances of run `run`, from map index `first`.
fn ready(run: i64, first: i64, count: i64, pool: &str, priority: i32) -> String {
    format!(
        "INSERT INTO task_instances (run_pk, fence, epoch, scheduled_at, task_idx, map_index, try_number, max_tries,
             user_failures, infra_losses, pool_slots, priority_weight, up_total, up_success, up_failed,
             up_upstream_failed, up_skipped, up_removed, up_setups, up_setup_success, up_setup_skipped, limit_lane,
             occupies, state, task_id, queue, pool)
         SELECT {run}, 0, 0, now(), 0, {first} + n, 0, 0, 0, 0, 1, {priority}, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, false,
             'scheduled', 't', 'default', '{pool}'
         FROM generate_series(0, {count} - 1) n;"
    )
}

async fn filled(runs: i64, instances: &[String]) -> (PgStore, Database) {
    let database = shared::postgres_database().await.unwrap();
    let options = PgOptions { max_connections: 2 };
    let store = PgStore::connect(database.url(), options).unwrap();
    store.migrate().await.unwrap();
    let rows = instances.concat();
    let script = format!("{} {rows}", RUNS.replace("RUNS)", &format!("{runs})")));
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(script))
        .execute(&mut connection)
        .await
        .unwrap();
    (store, database)
}

/// Pages touched by the whole statement, and its plan.
async fn explain(store: &PgStore) -> (u64, String) {
    let sql = format!("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {READY}");
    let rows = store
        .all(query(AssertSqlSafe(sql)).bind(100_i64))
        .await
        .unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let buffers = plan.iter().find(|line| line.contains("Buffers:")).unwrap();
    let pages = buffers
        .split_whitespace()
        .filter_map(|word| {
            word.strip_prefix("hit=")
                .or_else(|| word.strip_prefix("read="))
        })
        .map(|pages| pages.parse::<u64>().unwrap())
        .sum();
    (pages, plan.join("\n"))
}

fn assert_cheap(pages: u64, limit: u64, plan: &str) {
    assert!(plan.contains("task_instances_ready"), "{plan}");
    assert!(!plan.contains("Seq Scan on task_instances"), "{plan}");
    assert!(!plan.contains("task_instances_pkey"), "{plan}");
    assert!(pages < limit, "{pages} pages:\n{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backlog_of_a_run_without_room_is_not_read() {
    let (store, _database) = filled(
        2,
        &[
            ready(1, 0, 100_000, "default_pool", 9),
            ready(2, 0, 1, "default_pool", 1),
        ],
    )
    .await;
    // Before any statistics, as in the first minute of a deployment, and with them.
    for analyse in [false, true] {
        if analyse {
            store.execute(query("ANALYZE")).await.unwrap();
        }
        let (pages, plan) = explain(&store).await;
        assert_cheap(pages, 400, &plan);
        let found = store
            .begin()
            .await
            .unwrap()
            .ready_candidates(100)
            .await
            .unwrap();
        assert_eq!(found.len(), 16 + 1);
    }
    store
        .execute(query("UPDATE dag_runs SET active_tasks = 16 WHERE pk = 1"))
        .await
        .unwrap();
    let (pages, plan) = explain(&store).await;
    assert_cheap(pages, 100, &plan);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_full_pool_is_skipped_in_one_probe() {
    let (store, _database) = filled(
        2,
        &[
            ready(1, 0, 10_000, "full", 9),
            ready(1, 20_000, 5, "empty", 1),
            ready(2, 0, 10_000, "full", 9),
        ],
    )
    .await;
    for analyse in [false, true] {
        if analyse {
            store.execute(query("ANALYZE")).await.unwrap();
        }
        let (pages, plan) = explain(&store).await;
        assert_cheap(pages, 200, &plan);
        let found = store
            .begin()
            .await
            .unwrap()
            .ready_candidates(100)
            .await
            .unwrap();
        assert_eq!(found.len(), 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_runs_cost_a_probe_each() {
    let instances: Vec<String> = (1..=500).map(|run| ready(run, 0, 40, "full", 1)).collect();
    let (store, _database) = filled(500, &instances).await;
    let (pages, plan) = explain(&store).await;
    assert_cheap(pages, 500 * 20, &plan);
    assert!(
        store
            .begin()
            .await
            .unwrap()
            .ready_candidates(100)
            .await
            .unwrap()
            .is_empty()
    );
}
