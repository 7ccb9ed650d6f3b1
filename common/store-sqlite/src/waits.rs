//! Waits without a worker: the traits, over the statements.

use crate::{SqliteStore, tx::SqliteTx};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gristmill_common::{
    ids::{RunPk, TaskIdx, TiPk},
    state::TaskState,
};
use gristmill_store::{
    ApprovalFilter, ApprovalRow, AwaitedEnd, DagRow, DueWait, EarlierRun, OtherRun, Page,
    StoreResult, WaitReads, WaitTx,
};
use std::collections::BTreeMap;

#[async_trait]
impl WaitTx for SqliteTx {
    async fn due_waits(&mut self, max: i64) -> StoreResult<Vec<DueWait>> {
        self.session()?.due_waits(max).await
    }

    async fn awaited_ends(&mut self, max: i64) -> StoreResult<Vec<AwaitedEnd>> {
        self.session()?.awaited_ends(max).await
    }

    async fn note_trigger(
        &mut self,
        run: RunPk,
        depth: i32,
        waiter: Option<TiPk>,
    ) -> StoreResult<()> {
        self.session()?.note_trigger(run, depth, waiter).await
    }

    async fn forget_waiters(&mut self, runs: &[RunPk]) -> StoreResult<()> {
        self.session()?.forget_waiters(runs).await
    }

    async fn trigger_depth(&mut self, run: RunPk) -> StoreResult<Option<i32>> {
        self.session()?.trigger_depth(run).await
    }

    async fn dag(&mut self, dag_id: &str) -> StoreResult<Option<DagRow>> {
        self.session()?.dag(dag_id).await
    }

    async fn runs_of_dates(
        &mut self,
        wanted: &[(String, DateTime<Utc>)],
    ) -> StoreResult<Vec<Option<OtherRun>>> {
        self.session()?.runs_of_dates(wanted).await
    }

    async fn runs_before(&mut self, of: &[(RunPk, bool)]) -> StoreResult<Vec<Option<EarlierRun>>> {
        self.session()?.runs_before(of).await
    }

    async fn runs_after(&mut self, of: &[(RunPk, bool)]) -> StoreResult<Vec<RunPk>> {
        self.session()?.runs_after(of).await
    }

    async fn task_states(
        &mut self,
        wanted: &[(RunPk, TaskIdx)],
    ) -> StoreResult<Vec<BTreeMap<TaskState, i64>>> {
        self.session()?.task_states(wanted).await
    }

    async fn put_approval(&mut self, approval: &ApprovalRow) -> StoreResult<()> {
        self.session()?.put_approval(approval).await
    }

    async fn approval(&mut self, ti: TiPk) -> StoreResult<Option<ApprovalRow>> {
        self.session()?.approval(ti).await
    }

    async fn put_answer(
        &mut self,
        ti: TiPk,
        try_number: i32,
        answer: &str,
        by: &str,
        at: DateTime<Utc>,
    ) -> StoreResult<bool> {
        self.session()?
            .put_answer(ti, try_number, answer, by, at)
            .await
    }
}

#[async_trait]
impl WaitReads for SqliteStore {
    async fn approvals(&self, filter: &ApprovalFilter) -> StoreResult<Page<ApprovalRow>> {
        self.reader().await?.approvals(filter).await
    }
}
