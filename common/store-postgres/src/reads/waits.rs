//! What is asked of people.

use super::total;
use crate::{
    PgStore,
    bind::text,
    rows::{approval_columns, decode},
};
use async_trait::async_trait;
use gristmill_store::{ApprovalFilter, ApprovalRow, Page, StoreResult, WaitReads};
use sqlx::query;

#[async_trait]
impl WaitReads for PgStore {
    async fn approvals(&self, filter: &ApprovalFilter) -> StoreResult<Page<ApprovalRow>> {
        macro_rules! matching {
            () => {
                " FROM approvals a JOIN dag_runs r ON r.pk = a.run_pk JOIN task_instances t ON t.pk = a.ti_pk
                  WHERE ($1::bigint IS NULL OR a.run_pk = $1) AND ($2::text IS NULL OR r.dag_id = $2)
                    AND ($3::bigint IS NULL OR a.ti_pk = $3)
                    AND ($4::boolean IS NULL OR (a.answer IS NOT NULL) = $4)"
            };
        }
        const ROWS: &str = concat!(
            "SELECT ",
            approval_columns!(),
            matching!(),
            " ORDER BY a.created_at DESC, a.ti_pk DESC, a.try_number DESC LIMIT $5 OFFSET $6"
        );
        const TOTAL: &str = concat!("SELECT count(*) AS total", matching!());
        let bound = |sql| {
            query(sql)
                .bind(filter.run.map(|run| run.0))
                .bind(filter.dag_id.as_deref().map(text))
                .bind(filter.ti.map(|ti| ti.0))
                .bind(filter.answered)
        };
        let rows = bound(ROWS).bind(filter.limit).bind(filter.offset);
        Ok(Page {
            rows: decode(&self.all(rows).await?)?,
            total: total(self.optional(bound(TOTAL)).await?)?,
        })
    }
}
