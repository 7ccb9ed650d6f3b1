//! The audit log, notes, XComs set by hand, favourites.

use super::{
    listing::{Column, push_conditions, push_order},
    total,
};
use crate::{
    PgStore,
    bind::{column, json, text},
    rows::{decode, decode_optional, get},
};
use async_trait::async_trait;
use gristmill_common::{
    ids::{RunPk, TiPk},
    row::{TiRow, XcomRow},
};
use gristmill_store::{Annotations, AuditField, AuditFilter, AuditRow, Page, StoreResult};
use serde_json::Value;
use sqlx::{QueryBuilder, query};

impl Column for AuditField {
    fn value(self) -> &'static str {
        match self {
            Self::Key => "a.id",
            Self::At => "a.at",
            Self::Actor => "a.actor",
            Self::Event => "a.event",
            Self::DagId => "a.dag_id",
            Self::RunId => "a.run_id",
            Self::TaskId => "a.task_id",
        }
    }

    fn sorted(self) -> &'static str {
        match self {
            Self::DagId => "coalesce(a.dag_id, '')",
            Self::RunId => "coalesce(a.run_id, '')",
            Self::TaskId => "coalesce(a.task_id, '')",
            other => other.value(),
        }
    }
}

#[async_trait]
impl Annotations for PgStore {
    async fn audit_entries(&self, filter: &AuditFilter) -> StoreResult<Page<(i64, AuditRow)>> {
        let matching = |select: &'static str| {
            let mut sql = QueryBuilder::new(select);
            sql.push(" FROM audit_log a WHERE true");
            push_conditions(&mut sql, &filter.listing);
            sql
        };
        let mut rows =
            matching("SELECT a.id, a.at, a.actor, a.event, a.dag_id, a.run_id, a.task_id, a.extra");
        push_order(&mut rows, &filter.listing, "a.id DESC");
        rows.push(" LIMIT ")
            .push_bind(filter.limit)
            .push(" OFFSET ")
            .push_bind(filter.offset);
        let found = self.all(rows.build()).await?;
        let numbers: Vec<i64> = found
            .iter()
            .map(|row| get(row, "id"))
            .collect::<StoreResult<_>>()?;
        let entries: Vec<AuditRow> = decode(&found)?;
        let mut count = matching("SELECT count(*) AS total");
        Ok(Page {
            rows: numbers.into_iter().zip(entries).collect(),
            total: total(self.optional(count.build()).await?)?,
        })
    }

    async fn task_notes(&self, tis: &[TiPk]) -> StoreResult<Vec<(TiPk, String)>> {
        const SQL: &str =
            "SELECT ti_pk, note FROM task_notes WHERE ti_pk = ANY ($1) ORDER BY ti_pk";
        let rows = self.all(query(SQL).bind(column(tis, |ti| ti.0))).await?;
        rows.iter()
            .map(|row| Ok((TiPk(get(row, "ti_pk")?), get(row, "note")?)))
            .collect()
    }

    async fn put_task_note(&self, ti: &TiRow, note: Option<&str>) -> StoreResult<()> {
        const PUT: &str = "
            INSERT INTO task_notes (run_pk, ti_pk, note) VALUES ($1, $2, $3)
            ON CONFLICT (run_pk, ti_pk) DO UPDATE SET note = excluded.note";
        const DELETE: &str = "DELETE FROM task_notes WHERE run_pk = $1 AND ti_pk = $2";
        let statement = match note {
            Some(note) => query(PUT).bind(ti.run.0).bind(ti.pk.0).bind(text(note)),
            None => query(DELETE).bind(ti.run.0).bind(ti.pk.0),
        };
        self.execute(statement).await.map(drop)
    }

    async fn set_xcom(&self, ti: TiPk, key: &str, value: &Value) -> StoreResult<Option<XcomRow>> {
        const SQL: &str = "
            INSERT INTO xcoms AS x (run_pk, ti_pk, task_idx, map_index, key, fence, value)
            SELECT t.run_pk, t.pk, t.task_idx, t.map_index, $2, t.fence, $3::json FROM task_instances t WHERE t.pk = $1
            ON CONFLICT (run_pk, task_idx, map_index, key) DO UPDATE
                SET ti_pk = excluded.ti_pk, fence = excluded.fence, value = excluded.value, object_key = NULL,
                    object_size = NULL
            RETURNING x.run_pk, x.ti_pk, x.task_idx, x.map_index, x.key, x.fence, x.value, x.object_key, x.object_size";
        let statement = query(SQL).bind(ti.0).bind(text(key)).bind(json(value));
        decode_optional(self.optional(statement).await?)
    }

    async fn delete_xcom(&self, run: RunPk, ti: TiPk, key: &str) -> StoreResult<bool> {
        const SQL: &str = "
            DELETE FROM xcoms x USING task_instances t
            WHERE t.run_pk = $1 AND t.pk = $2 AND x.run_pk = t.run_pk AND x.task_idx = t.task_idx
                AND x.map_index = t.map_index AND x.key = $3";
        let statement = query(SQL).bind(run.0).bind(ti.0).bind(text(key));
        Ok(self.execute(statement).await? > 0)
    }

    async fn favorites(&self, username: &str) -> StoreResult<Vec<String>> {
        const SQL: &str = "SELECT dag_id FROM dag_favorites WHERE username = $1 ORDER BY dag_id";
        let rows = self.all(query(SQL).bind(text(username))).await?;
        rows.iter().map(|row| get(row, "dag_id")).collect()
    }

    async fn set_favorite(&self, username: &str, dag_id: &str, likes: bool) -> StoreResult<bool> {
        const PUT: &str = "
            INSERT INTO dag_favorites (username, dag_id)
            SELECT $1, d.dag_id FROM dags d WHERE d.dag_id = $2 ON CONFLICT DO NOTHING";
        const DELETE: &str = "DELETE FROM dag_favorites WHERE username = $1 AND dag_id = $2";
        let statement = query(if likes { PUT } else { DELETE })
            .bind(text(username))
            .bind(text(dag_id));
        Ok(self.execute(statement).await? > 0)
    }
}
