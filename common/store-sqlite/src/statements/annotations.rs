//! The audit log, notes, XComs set by hand, favourites.

use super::listing::{Conditions, order_by};
use crate::{
    codec::{Document, Micros, encode},
    session::{Session, args},
};
use gristmill_common::{
    ids::{RunPk, TiPk},
    row::XcomRow,
};
use gristmill_store::{AuditFilter, AuditRow, Page, StoreResult};
use serde_json::Value;

impl Session {
    pub(crate) async fn audit_entries(
        &mut self,
        filter: &AuditFilter,
    ) -> StoreResult<Page<(i64, AuditRow)>> {
        const ROW: &str =
            "json_array(a.id, a.at, a.actor, a.event, a.dag_id, a.run_id, a.task_id, a.extra)";
        const FROM: &str = "audit_log AS a";
        type Record = (
            i64,
            Micros,
            String,
            String,
            Option<String>,
            Option<String>,
            Option<String>,
            Document<Value>,
        );
        let mut conditions = Conditions::new("true");
        conditions.and_listing(&filter.listing);
        let (count, args) = conditions.count(FROM, None);
        let total = self.total(count, args).await?;
        let order = order_by(&filter.listing, "a.id DESC");
        let (page, args) = conditions.page(ROW, FROM, &order, filter.limit, filter.offset);
        let records: Vec<Record> = self.rows_of(page, args).await?;
        let rows = records
            .into_iter()
            .map(|(id, at, actor, event, dag_id, run_id, task_id, extra)| {
                let entry = AuditRow {
                    at: at.0,
                    actor,
                    event,
                    dag_id,
                    run_id,
                    task_id,
                    extra: extra.0,
                };
                (id, entry)
            })
            .collect();
        Ok(Page { rows, total })
    }

    pub(crate) async fn task_notes(&mut self, tis: &[TiPk]) -> StoreResult<Vec<(TiPk, String)>> {
        const SQL: &str = "
            SELECT json_array(ti, note) FROM task_notes WHERE ti IN (SELECT value FROM jsonb_each(?1)) ORDER BY ti";
        self.rows(SQL, args![encode(tis)?]).await
    }

    pub(crate) async fn put_task_note(&mut self, ti: TiPk, note: Option<&str>) -> StoreResult<()> {
        const PUT: &str = "
            INSERT INTO task_notes (ti, note) VALUES (?1, ?2)
            ON CONFLICT (ti) DO UPDATE SET note = excluded.note";
        const DELETE: &str = "DELETE FROM task_notes WHERE ti = ?1";
        match note {
            Some(note) => self.execute(PUT, args![ti.0, note]).await.map(drop),
            None => self.execute(DELETE, args![ti.0]).await.map(drop),
        }
    }

    pub(crate) async fn set_xcom(
        &mut self,
        ti: TiPk,
        key: &str,
        value: &Value,
    ) -> StoreResult<Option<XcomRow>> {
        const SQL: &str = "
            INSERT INTO xcoms (run, ti, task_idx, map_index, key, fence, value)
            SELECT t.run, t.pk, t.task_idx, t.map_index, ?2, t.fence, ?3 FROM task_instances AS t WHERE t.pk = ?1
            ON CONFLICT (run, task_idx, map_index, key) DO UPDATE SET
                ti = excluded.ti, fence = excluded.fence, value = excluded.value, object = NULL, size = NULL
            RETURNING json_array(run)";
        let set: Vec<(i64,)> = self.rows(SQL, args![ti.0, key, encode(value)?]).await?;
        match set.first() {
            None => Ok(None),
            Some((run,)) => Ok(self.xcoms(RunPk(*run), Some(ti), Some(key)).await?.pop()),
        }
    }

    pub(crate) async fn delete_xcom(
        &mut self,
        run: RunPk,
        ti: TiPk,
        key: &str,
    ) -> StoreResult<bool> {
        const SQL: &str = "
            DELETE FROM xcoms WHERE run = ?1 AND key = ?3
                AND (task_idx, map_index) = (SELECT task_idx, map_index FROM task_instances WHERE pk = ?2)";
        Ok(self.execute(SQL, args![run.0, ti.0, key]).await? > 0)
    }

    pub(crate) async fn favorites(&mut self, username: &str) -> StoreResult<Vec<String>> {
        const SQL: &str =
            "SELECT json_array(dag_id) FROM dag_favorites WHERE username = ?1 ORDER BY dag_id";
        let rows: Vec<(String,)> = self.rows(SQL, args![username]).await?;
        Ok(rows.into_iter().map(|(dag_id,)| dag_id).collect())
    }

    pub(crate) async fn set_favorite(
        &mut self,
        username: &str,
        dag_id: &str,
        likes: bool,
    ) -> StoreResult<bool> {
        const PUT: &str = "
            INSERT INTO dag_favorites (username, dag_id)
            SELECT ?1, dag_id FROM dags WHERE dag_id = ?2 ON CONFLICT DO NOTHING";
        const DELETE: &str = "DELETE FROM dag_favorites WHERE username = ?1 AND dag_id = ?2";
        let sql = if likes { PUT } else { DELETE };
        Ok(self.execute(sql, args![username, dag_id]).await? > 0)
    }
}
