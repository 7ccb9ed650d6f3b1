//! What people read and add beside what the engine decides: the audit log, notes on task instances, XComs set by hand,
//! favourite DAGs.

use crate::{AuditRow, Listing, Page, StoreResult};
use async_trait::async_trait;
use gristmill_common::{
    ids::{RunPk, TiPk},
    row::{TiRow, XcomRow},
};
use serde_json::Value;

/// Fields of the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuditField {
    Key,
    At,
    Actor,
    Event,
    DagId,
    RunId,
    TaskId,
}

/// Which entries of the audit log, newest first unless the listing has an order of its own.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub listing: Listing<AuditField>,
    pub limit: i64,
    pub offset: i64,
}

#[async_trait]
pub trait Annotations: Send + Sync {
    /// Entries of the audit log with their numbers, which never change.
    async fn audit_entries(&self, filter: &AuditFilter) -> StoreResult<Page<(i64, AuditRow)>>;

    /// The notes of these instances, as far as they have one, by key.
    async fn task_notes(&self, tis: &[TiPk]) -> StoreResult<Vec<(TiPk, String)>>;

    /// Sets an instance's note, or takes it away.
    async fn put_task_note(&self, ti: &TiRow, note: Option<&str>) -> StoreResult<()>;

    /// Sets an XCom by hand, as if the instance's newest dispatch had written it, and answers with it; `None`: the
    /// instance is gone. A later dispatch's value takes its place.
    async fn set_xcom(&self, ti: TiPk, key: &str, value: &Value) -> StoreResult<Option<XcomRow>>;

    /// Deletes an XCom; `false`: there is none.
    async fn delete_xcom(&self, run: RunPk, ti: TiPk, key: &str) -> StoreResult<bool>;

    /// The DAGs that a user likes, by id.
    async fn favorites(&self, username: &str) -> StoreResult<Vec<String>>;

    /// Notes whether a user likes a DAG; `false`: it was so already.
    async fn set_favorite(&self, username: &str, dag_id: &str, likes: bool) -> StoreResult<bool>;
}
