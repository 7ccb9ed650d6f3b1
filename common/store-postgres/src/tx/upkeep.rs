//! Workers, barriers, dead letters, secrets.

use super::PgTx;
use crate::{
    bind::{column, text},
    rows::{FromPg, get},
};
use gristmill_common::message::Sealed;
use gristmill_store::{StoreError, StoreResult, WorkerRow};
use sqlx::query;
use uuid::Uuid;

pub(super) async fn lock_worker(tx: &mut PgTx, incarnation: &str) -> StoreResult<WorkerRow> {
    // The update that changes nothing takes the lock, and makes RETURNING answer for an existing row too.
    const SQL: &str = "
        INSERT INTO workers (incarnation, state, updated_at) VALUES ($1, 'alive', $2)
        ON CONFLICT (incarnation) DO UPDATE SET updated_at = excluded.updated_at
        RETURNING incarnation, state, held_until";
    let row = tx
        .optional(query(SQL).bind(incarnation).bind(tx.now))
        .await?
        .ok_or_else(|| StoreError::Other(format!("worker {incarnation:?} was not inserted")))?;
    WorkerRow::from_pg(&row)
}

pub(super) async fn update_worker(tx: &mut PgTx, worker: &WorkerRow) -> StoreResult<()> {
    const SQL: &str =
        "UPDATE workers SET state = $2, held_until = $3, updated_at = $4 WHERE incarnation = $1";
    let statement = query(SQL)
        .bind(&worker.incarnation)
        .bind(worker.state.as_str())
        .bind(worker.held_until)
        .bind(tx.now);
    match tx.execute(statement).await?.rows_affected() {
        0 => Err(StoreError::NotFound {
            what: "worker",
            name: worker.incarnation.clone(),
        }),
        _ => Ok(()),
    }
}

pub(super) async fn apply_barrier(tx: &mut PgTx, barrier: Uuid, shard: u16) -> StoreResult<()> {
    const SQL: &str = "
        INSERT INTO barriers (barrier, shard, applied_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    let statement = query(SQL).bind(barrier).bind(i32::from(shard)).bind(tx.now);
    tx.execute(statement).await.map(drop)
}

pub(super) async fn put_dead_letter(
    tx: &mut PgTx,
    source: &str,
    reason: &str,
    body: &[u8],
) -> StoreResult<()> {
    const SQL: &str = "INSERT INTO dead_letters (at, source, reason, body) VALUES ($1, $2, $3, $4)";
    let statement = query(SQL)
        .bind(tx.now)
        .bind(text(source))
        .bind(text(reason))
        .bind(body);
    tx.execute(statement).await.map(drop)
}

pub(super) async fn sealed(
    tx: &mut PgTx,
    connections: &[String],
    variables: &[String],
) -> StoreResult<Sealed> {
    const SQL: &str = "
        SELECT kind, name, sealed FROM secrets
        WHERE (kind = 'connection' AND name = ANY ($1)) OR (kind = 'variable' AND name = ANY ($2))";
    let mut sealed = Sealed::default();
    if connections.is_empty() && variables.is_empty() {
        return Ok(sealed);
    }
    let statement = query(SQL)
        .bind(column(connections, |name| text(name)))
        .bind(column(variables, |name| text(name)));
    for row in tx.all(statement).await? {
        let of_kind = match get::<&str>(&row, "kind")? {
            "connection" => &mut sealed.connections,
            _ => &mut sealed.variables,
        };
        of_kind.insert(get(&row, "name")?, get(&row, "sealed")?);
    }
    Ok(sealed)
}
