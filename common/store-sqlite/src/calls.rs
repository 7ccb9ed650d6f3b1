//! Callbacks and deadlines: the traits, over the statements.

use crate::{SqliteStore, tx::SqliteTx};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use gristmill_common::{callback::NewCall, ids::RunPk};
use gristmill_store::{
    CallFilter, CallReads, CallRow, CallTx, Claim, Delivery, MissedDeadline, Page, StoreResult,
};

#[async_trait]
impl CallTx for SqliteTx {
    async fn put_calls(&mut self, calls: &[NewCall]) -> StoreResult<()> {
        self.session()?.put_calls(calls).await
    }

    async fn due_deadlines(&mut self, max: i64) -> StoreResult<Vec<RunPk>> {
        self.session()?.due_deadlines(max).await
    }

    async fn set_next_deadlines(
        &mut self,
        next: &[(RunPk, Option<DateTime<Utc>>)],
    ) -> StoreResult<()> {
        self.session()?.set_next_deadlines(next).await
    }

    async fn put_missed(&mut self, missed: &MissedDeadline) -> StoreResult<bool> {
        self.session()?.put_missed(missed).await
    }

    async fn average_runtime(&mut self, dag_id: &str) -> StoreResult<Option<TimeDelta>> {
        self.session()?.average_runtime(dag_id).await
    }
}

#[async_trait]
impl CallReads for SqliteStore {
    async fn claim_calls(&self, claim: &Claim<'_>) -> StoreResult<Vec<CallRow>> {
        let mut lease = self.shared.writer.begin().await?;
        let claimed = lease.session()?.claim_calls(claim).await?;
        lease.commit().await?;
        Ok(claimed)
    }

    async fn delivered(&self, deliveries: &[Delivery]) -> StoreResult<()> {
        let mut lease = self.shared.writer.begin().await?;
        lease.session()?.delivered(deliveries).await?;
        lease.commit().await
    }

    async fn calls(&self, filter: &CallFilter) -> StoreResult<Page<CallRow>> {
        self.reader().await?.calls(filter).await
    }

    async fn retry_call(&self, id: i64) -> StoreResult<bool> {
        let mut lease = self.shared.writer.begin().await?;
        let found = lease.session()?.retry_call(id).await?;
        lease.commit().await?;
        Ok(found)
    }

    async fn missed_deadlines(&self, run: RunPk) -> StoreResult<Vec<MissedDeadline>> {
        self.reader().await?.missed_deadlines(run).await
    }
}
