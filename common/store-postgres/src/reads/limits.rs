//! Limits, pools and queues.

use crate::{
    PgStore,
    bind::{column, opt_text},
    rows::{FromPg, decode, get},
    tx,
};
use gristmill_common::{limit::RateLimit, spec::DEFAULT_POOL};
use gristmill_store::{
    Backend, LimitKey, LimitRow, PoolRow, PoolUse, QueueCounts, StoreError, StoreResult, Tx,
};
use sqlx::query;

pub(super) async fn limits(store: &PgStore, keys: &[LimitKey]) -> StoreResult<Vec<LimitRow>> {
    const SQL: &str = "
        SELECT l.kind, l.name, l.cap, l.used, l.paused, l.include_deferred, l.rate_count, l.rate_seconds, l.rate_full_at
        FROM (SELECT DISTINCT v.kind, v.name FROM unnest($1::text[], $2::text[]) AS v (kind, name)) v
        JOIN limits l ON l.kind = v.kind AND l.name = v.name
        ORDER BY l.kind, l.name";
    let columns: Vec<_> = keys.iter().map(LimitKey::columns).collect();
    let statement = query(SQL)
        .bind(column(&columns, |(kind, _)| *kind))
        .bind(column(&columns, |(_, name)| name.as_str()));
    tx::limit_rows(keys, &store.all(statement).await?, store.inner.clock.now())
}

pub(super) async fn pools(store: &PgStore) -> StoreResult<Vec<PoolRow>> {
    const SQL: &str = "SELECT name, cap, used, description, include_deferred FROM limits WHERE kind = 'pool' ORDER BY name";
    decode(&store.all(query(SQL)).await?)
}

pub(super) async fn pool_use(store: &PgStore, name: &str) -> StoreResult<PoolUse> {
    const SQL: &str = concat!(
        "SELECT count(*) FILTER (WHERE t.state = 'queued') AS queued,
                count(*) FILTER (WHERE t.state = 'running') AS running,
                count(*) FILTER (WHERE t.state = 'scheduled') AS scheduled,
                (SELECT COALESCE(sum(w.pool_slots), 0)::bigint FROM task_instances w WHERE w.pool = $1 AND ",
        tx::waits!(),
        ") AS deferred_slots
         FROM dag_runs r JOIN task_instances t ON t.run_pk = r.pk
         WHERE r.ended_at IS NULL AND t.pool = $1 AND t.state IN ('queued', 'running', 'scheduled')"
    );
    match store.optional(query(SQL).bind(name)).await? {
        Some(row) => Ok(PoolUse {
            queued: get(&row, "queued")?,
            running: get(&row, "running")?,
            scheduled: get(&row, "scheduled")?,
            deferred_slots: get(&row, "deferred_slots")?,
        }),
        None => Ok(PoolUse::default()),
    }
}

pub(super) async fn put_pool(
    store: &PgStore,
    name: &str,
    slots: i64,
    description: Option<&str>,
    include_deferred: bool,
) -> StoreResult<PoolRow> {
    const SQL: &str = "
        INSERT INTO limits (kind, name, cap, description, include_deferred) VALUES ('pool', $1, $2, $3, $4)
        ON CONFLICT (kind, name) DO UPDATE SET cap = excluded.cap, description = excluded.description,
            include_deferred = excluded.include_deferred
        RETURNING name, cap, used, description, include_deferred";
    let statement = query(SQL)
        .bind(name)
        .bind(slots)
        .bind(opt_text(description))
        .bind(include_deferred);
    let row = store
        .optional(statement)
        .await?
        .ok_or_else(|| StoreError::Other(format!("pool {name:?} was not written")))?;
    PoolRow::from_pg(&row)
}

pub(super) async fn delete_pool(store: &PgStore, name: &str) -> StoreResult<()> {
    if name == DEFAULT_POOL {
        return Err(StoreError::Refused(format!(
            "{DEFAULT_POOL} cannot be deleted: tasks that name no pool use it"
        )));
    }
    let key = LimitKey::pool(name);
    let mut tx = store.begin().await?;
    let row = tx.lock_limits(std::slice::from_ref(&key)).await?.pop();
    match row {
        None => Err(StoreError::NotFound {
            what: "pool",
            name: name.to_owned(),
        }),
        Some(row) if row.used > 0 => Err(StoreError::Refused(format!(
            "pool {name:?} is occupied: {} slots are in use",
            row.used
        ))),
        Some(_) => {
            let delete = "DELETE FROM limits WHERE kind = 'pool' AND name = $1";
            tx.execute(query(delete).bind(name)).await?;
            tx.commit().await
        }
    }
}

/// Instances that have not ended are looked for in unfinished runs: an ended run has none.
macro_rules! queue_names {
    () => {
        "SELECT name AS queue FROM limits WHERE kind = 'queue'
         UNION
         SELECT t.queue FROM dag_runs r JOIN task_instances t ON t.run_pk = r.pk
         WHERE r.ended_at IS NULL
           AND t.state NOT IN ('success', 'failed', 'upstream_failed', 'skipped', 'removed')"
    };
}

pub(super) async fn queue_counts(store: &PgStore) -> StoreResult<Vec<QueueCounts>> {
    const SQL: &str = concat!(
        "WITH names AS (",
        queue_names!(),
        "), counts AS (
             SELECT t.queue,
                    count(*) FILTER (WHERE t.state = 'scheduled') AS scheduled,
                    count(*) FILTER (WHERE t.state = 'queued') AS queued,
                    count(*) FILTER (WHERE t.state = 'running') AS running,
                    min(t.scheduled_at) FILTER (WHERE t.state IN ('scheduled', 'queued')) AS oldest_ready_at
             FROM dag_runs r JOIN task_instances t ON t.run_pk = r.pk
             WHERE r.ended_at IS NULL AND t.state IN ('scheduled', 'queued', 'running')
             GROUP BY t.queue
         ), dead AS (
             SELECT queue, count(*) AS dead FROM task_instances
             WHERE state = 'failed' AND infra_losses >= 3 GROUP BY queue
         )
         SELECT n.queue, COALESCE(c.scheduled, 0) AS scheduled, COALESCE(c.queued, 0) AS queued,
                COALESCE(c.running, 0) AS running, c.oldest_ready_at, COALESCE(l.paused, false) AS paused,
                l.rate_count, l.rate_seconds,
                COALESCE(d.dead, 0) AS dead
         FROM names n
         LEFT JOIN counts c ON c.queue = n.queue
         LEFT JOIN dead d ON d.queue = n.queue
         LEFT JOIN limits l ON l.kind = 'queue' AND l.name = n.queue
         ORDER BY n.queue"
    );
    decode(&store.all(query(SQL)).await?)
}

pub(super) async fn set_queue_paused(
    store: &PgStore,
    queue: &str,
    paused: bool,
) -> StoreResult<()> {
    const SQL: &str = "
        INSERT INTO limits (kind, name, cap, paused) VALUES ('queue', $1, 1000, $2)
        ON CONFLICT (kind, name) DO UPDATE SET paused = excluded.paused";
    let statement = query(SQL).bind(queue).bind(paused);
    store.execute(statement).await.map(drop)
}

pub(super) async fn set_queue_rate(
    store: &PgStore,
    queue: &str,
    rate: Option<RateLimit>,
) -> StoreResult<()> {
    const SQL: &str = "
        INSERT INTO limits (kind, name, cap, rate_count, rate_seconds) VALUES ('queue', $1, 1000, $2, $3)
        ON CONFLICT (kind, name) DO UPDATE
            SET rate_count = excluded.rate_count, rate_seconds = excluded.rate_seconds, rate_full_at = NULL";
    let statement = query(SQL)
        .bind(queue)
        .bind(rate.map(RateLimit::count))
        .bind(rate.map(RateLimit::seconds));
    store.execute(statement).await.map(drop)
}

pub(super) async fn parallelism(store: &PgStore) -> StoreResult<(Option<i64>, i64)> {
    const SQL: &str = "
        SELECT (SELECT cap FROM limits WHERE kind = $1 AND name = $2) AS cap,
               (SELECT COALESCE(sum(active_tasks), 0)::bigint FROM dag_runs WHERE ended_at IS NULL) AS active";
    let (kind, name) = LimitKey::Parallelism.columns();
    match store.optional(query(SQL).bind(kind).bind(name)).await? {
        Some(row) => Ok((get(&row, "cap")?, get(&row, "active")?)),
        None => Ok((None, 0)),
    }
}

pub(super) async fn set_parallelism(store: &PgStore, cap: Option<i64>) -> StoreResult<()> {
    const SET: &str = "
        INSERT INTO limits (kind, name, cap) VALUES ($1, $2, $3)
        ON CONFLICT (kind, name) DO UPDATE SET cap = excluded.cap";
    const LIFT: &str = "DELETE FROM limits WHERE kind = $1 AND name = $2";
    let (kind, name) = LimitKey::Parallelism.columns();
    let statement = match cap {
        Some(cap) => query(SET).bind(kind).bind(name).bind(cap),
        None => query(LIFT).bind(kind).bind(name),
    };
    store.execute(statement).await.map(drop)
}

pub(super) async fn set_queue_caps(store: &PgStore, caps: &[(String, i64)]) -> StoreResult<()> {
    if caps.is_empty() {
        return Ok(());
    }
    let limits: Vec<(LimitKey, i64)> = caps
        .iter()
        .map(|(queue, cap)| (LimitKey::queue(queue), *cap))
        .collect();
    let mut tx = store.begin().await?;
    tx.ensure_limits(&limits, true).await?;
    tx.commit().await
}

pub(super) async fn queues(store: &PgStore) -> StoreResult<Vec<String>> {
    const SQL: &str = concat!(queue_names!(), " ORDER BY queue");
    let rows = store.all(query(SQL)).await?;
    rows.iter().map(|row| get(row, "queue")).collect()
}
