//! Runs and task instances as the API lists and deletes them.

use super::{
    listing::{Conditions, order_by},
    runs::{RunRecord, run_row},
    task_instances::{TiRecord, ti_row, visible},
};
use crate::{
    codec::encode,
    session::{Arg, Session, args},
};
use gristmill_common::{
    ids::{RunPk, UNMAPPED},
    row::{RunRow, TiRow},
};
use gristmill_store::{Page, RunFilter, StateCounts, StoreError, StoreResult, TiFilter};

/// The parameter of a condition on states; none where any will do.
fn states(states: &[String]) -> StoreResult<Option<String>> {
    (!states.is_empty()).then(|| encode(states)).transpose()
}

impl Session {
    pub(crate) async fn run(&mut self, dag_id: &str, run_id: &str) -> StoreResult<Option<RunRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            run_row!(),
            " FROM dag_runs AS r WHERE r.dag_id = ?1 AND r.run_id = ?2"
        );
        Ok(self.run_rows(SQL, args![dag_id, run_id]).await?.pop())
    }

    pub(crate) async fn runs(&mut self, filter: &RunFilter) -> StoreResult<Page<RunRow>> {
        let mut conditions = Conditions::new("true");
        conditions.and("r.dag_id = ", filter.dag_id.as_deref(), "");
        conditions.and("r.run_id = ", filter.run_id.as_deref(), "");
        let states = states(&filter.states)?;
        conditions.and("r.state IN (SELECT value FROM jsonb_each(", states, "))");
        conditions.and_listing(&filter.listing);
        let from = "dag_runs AS r";
        let (count, args) = conditions.count(from, filter.listing.count_at_most);
        let total = self.total(count, args).await?;
        conditions.and_after(&filter.listing);
        let order = order_by(&filter.listing, "r.pk DESC");
        let (page, args) = conditions.page(run_row!(), from, &order, filter.limit, filter.offset);
        let records: Vec<RunRecord> = self.rows_of(page, args).await?;
        let rows = records.into_iter().map(RunRow::from).collect();
        Ok(Page { rows, total })
    }

    pub(crate) async fn task_instances(&mut self, filter: &TiFilter) -> StoreResult<Page<TiRow>> {
        let mut conditions = Conditions::new(visible!());
        conditions.and("t.run = ", filter.run.map(|run| run.0), "");
        conditions.and(
            "t.run IN (SELECT pk FROM dag_runs WHERE dag_id = ",
            filter.dag_id.as_deref(),
            ")",
        );
        conditions.and("t.task_id = ", filter.task_id.as_deref(), "");
        conditions.and("t.map_index = ", filter.map_index, "");
        let states = states(&filter.states)?;
        conditions.and("t.state IN (SELECT value FROM jsonb_each(", states, "))");
        conditions.and("t.queue = ", filter.queue.as_deref(), "");
        conditions.and("t.pool = ", filter.pool.as_deref(), "");
        conditions.and_listing(&filter.listing);
        let from = if filter.listing.asks_of_runs() {
            "task_instances AS t JOIN dag_runs AS r ON r.pk = t.run"
        } else {
            "task_instances AS t"
        };
        let (count, args) = conditions.count(from, filter.listing.count_at_most);
        let total = self.total(count, args).await?;
        conditions.and_after(&filter.listing);
        let order = order_by(&filter.listing, "t.pk");
        let (page, args) = conditions.page(ti_row!(), from, &order, filter.limit, filter.offset);
        let records: Vec<TiRecord> = self.rows_of(page, args).await?;
        let rows = records.into_iter().map(TiRow::from).collect();
        Ok(Page { rows, total })
    }

    pub(super) async fn total(&mut self, sql: String, args: Vec<Arg>) -> StoreResult<i64> {
        let counts: Vec<(i64,)> = self.rows_of(sql, args).await?;
        Ok(counts.first().map_or(0, |(n,)| *n))
    }

    pub(crate) async fn task_instance(
        &mut self,
        run: RunPk,
        task_id: &str,
        map_index: i32,
    ) -> StoreResult<Option<TiRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            ti_row!(),
            " FROM task_instances AS t WHERE t.run = ?1 AND t.task_id = ?2 AND t.map_index = ?3"
        );
        debug_assert!(map_index >= UNMAPPED);
        Ok(self
            .ti_rows(SQL, args![run.0, task_id, map_index])
            .await?
            .pop())
    }

    pub(crate) async fn state_counts(&mut self, run: RunPk) -> StoreResult<StateCounts> {
        const SQL: &str = concat!(
            "SELECT json_array(t.state, count(*)) FROM task_instances AS t WHERE t.run = ?1 AND ",
            visible!(),
            " GROUP BY t.state"
        );
        let rows: Vec<(String, i64)> = self.rows(SQL, args![run.0]).await?;
        Ok(rows.into_iter().collect())
    }

    pub(crate) async fn dead_tasks(&mut self, limit: i64) -> StoreResult<Vec<TiRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            ti_row!(),
            " FROM task_instances AS t WHERE t.state = 'failed' AND t.infra_losses > 0
              ORDER BY t.ended_at DESC LIMIT ?1"
        );
        self.ti_rows(SQL, args![limit]).await
    }

    pub(crate) async fn delete_run(&mut self, run: RunPk) -> StoreResult<()> {
        const SQL: &str = "
            DELETE FROM dag_runs WHERE pk = ?1 AND ended_at IS NOT NULL RETURNING json_array(pk)";
        let deleted: Vec<(i64,)> = self.rows(SQL, args![run.0]).await?;
        if !deleted.is_empty() {
            return self.delete_leavings(vec![run.0]).await;
        }
        match self.load_runs(&[run]).await?.pop() {
            Some(row) => Err(StoreError::Refused(format!(
                "run {:?} cannot be deleted: it is {}; cancel it first",
                row.run_id, row.state
            ))),
            None => Err(StoreError::NotFound {
                what: "run",
                name: run.to_string(),
            }),
        }
    }
}
