//! Runs and task instances as the API lists and deletes them.

use super::{
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

/// Conditions joined by AND, each with its parameter: put together per call, so that each filter can use its index.
struct Conditions {
    sql: String,
    args: Vec<Arg>,
}

impl Conditions {
    fn new(first: &'static str) -> Self {
        Self {
            sql: first.to_owned(),
            args: Vec::new(),
        }
    }

    /// `condition` ends where its parameter belongs, followed by `close`.
    fn and(&mut self, condition: &'static str, arg: Option<impl Into<Arg>>, close: &'static str) {
        if let Some(arg) = arg {
            self.args.push(arg.into());
            self.sql.push_str(" AND ");
            self.sql.push_str(condition);
            self.sql.push('?');
            self.sql.push_str(&self.args.len().to_string());
            self.sql.push_str(close);
        }
    }

    fn and_states(&mut self, condition: &'static str, states: &[String]) -> StoreResult<()> {
        let states = (!states.is_empty()).then(|| encode(states)).transpose()?;
        self.and(condition, states, "))");
        Ok(())
    }

    fn count(&self, from: &str) -> (String, Vec<Arg>) {
        let sql = format!("SELECT json_array(count(*)) FROM {from} WHERE {}", self.sql);
        (sql, self.args.clone())
    }

    fn page(
        mut self,
        row: &str,
        from: &str,
        order: &str,
        limit: i64,
        offset: i64,
    ) -> (String, Vec<Arg>) {
        let n = self.args.len();
        self.args.extend([Arg::Int(limit), Arg::Int(offset)]);
        let sql = format!(
            "SELECT {row} FROM {from} WHERE {} ORDER BY {order} LIMIT ?{} OFFSET ?{}",
            self.sql,
            n + 1,
            n + 2
        );
        (sql, self.args)
    }
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
        conditions.and_states("r.state IN (SELECT value FROM jsonb_each(", &filter.states)?;
        let from = "dag_runs AS r";
        let (count, args) = conditions.count(from);
        let total = self.total(count, args).await?;
        let (page, args) =
            conditions.page(run_row!(), from, "r.pk DESC", filter.limit, filter.offset);
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
        conditions.and_states("t.state IN (SELECT value FROM jsonb_each(", &filter.states)?;
        conditions.and("t.queue = ", filter.queue.as_deref(), "");
        conditions.and("t.pool = ", filter.pool.as_deref(), "");
        let from = "task_instances AS t";
        let (count, args) = conditions.count(from);
        let total = self.total(count, args).await?;
        let (page, args) = conditions.page(ti_row!(), from, "t.pk", filter.limit, filter.offset);
        let records: Vec<TiRecord> = self.rows_of(page, args).await?;
        let rows = records.into_iter().map(TiRow::from).collect();
        Ok(Page { rows, total })
    }

    async fn total(&mut self, sql: String, args: Vec<Arg>) -> StoreResult<i64> {
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
