//! What limits need beyond `used` and a cap: keys that task instances share, and pools in which counts what waits.

use crate::StoreResult;
use async_trait::async_trait;
use gristmill_common::{
    ids::{RunPk, TiPk},
    row::SharedKey,
};

/// A ready instance whose shared limit is full, and which does not just wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushing {
    pub ti: TiPk,
    pub run: RunPk,
    pub dag_id: String,
    pub shared: SharedKey,
}

/// An instance that holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHolder {
    pub ti: TiPk,
    pub run: RunPk,
    pub dag_id: String,
    pub key: String,
    /// It is being stopped already.
    pub stopping: bool,
}

/// The statements of shared limits that take part in a transaction.
#[async_trait]
pub trait SharedLimitTx: Send {
    /// Instances that push (`concurrency.strategy` other than `queue`) at a limit that is full, oldest first; at most `max`.
    async fn pushing(&mut self, max: i64) -> StoreResult<Vec<Pushing>>;

    /// Who holds these keys, of whatever DAG; who was dispatched first comes first.
    async fn key_holders(&mut self, keys: &[String]) -> StoreResult<Vec<KeyHolder>>;

    /// Slots of these pools that instances would hold which wait without a worker: those between a sensor's looks, and those
    /// whose wait the scheduler ends, once it has begun. Those of `except` are left out.
    async fn waiting_slots(
        &mut self,
        pools: &[String],
        except: &[TiPk],
    ) -> StoreResult<Vec<(String, i64)>>;
}
