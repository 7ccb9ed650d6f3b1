//! What travels over the broker: work to the workers, events back, control to workers.
//!
//! Every message is JSON and carries a version; one that the receiver does not know is bounced, not guessed at.

use crate::{
    ids::{Dispatch, Fence, RunPk, TiPk},
    row::XcomValue,
    spec::TaskSpec,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Version of every message that this build writes.
pub const VERSION: u32 = 1;
/// Bytes of one message's body at most; what is larger goes by reference.
pub const MAX_BODY: usize = 64 * 1024;
/// An XCom up to this size travels in its event and rests in the database; a larger one goes to the object store first.
pub const MAX_INLINE_XCOM: usize = 32 * 1024;
/// An XCom above this fails its attempt.
pub const MAX_XCOM: usize = 64 * 1024 * 1024;
/// Length of a worker's lease: it kills what it holds when its last acknowledged renewal was sent this long ago.
pub const LEASE: std::time::Duration = std::time::Duration::from_secs(6);
/// References to upstream XComs in a message at most; a task that pulls more asks the API.
pub const MAX_XCOM_REFS: usize = 256;

/// Names of a message's headers: what a consumer needs before it reads the body.
pub mod header {
    pub const VERSION: &str = "gm-version";
    pub const TI: &str = "gm-ti";
    pub const RUN: &str = "gm-run";
    pub const FENCE: &str = "gm-fence";
    pub const EPOCH: &str = "gm-epoch";
    /// Milliseconds since the Unix epoch, by the database's clock.
    pub const CLAIM_BY: &str = "gm-claim-by";
}

/// One dispatch of a task instance: all that a worker needs to run it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkMessage {
    pub v: u32,
    pub dispatch: Dispatch,
    pub attempt: Uuid,
    pub try_number: i32,
    pub max_tries: i32,
    pub map_index: i32,
    /// A mapped instance's map variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<Map<String, Value>>,
    pub run: RunContext,
    pub task: TaskSpec,
    /// Accepted XComs that the task's templates pull.
    #[serde(default, skip_serializing_if = "XcomRefs::is_empty")]
    pub xcoms: XcomRefs,
    /// Connections and variables that the task's templates name, each encrypted as it rests in the database.
    #[serde(default, skip_serializing_if = "Sealed::is_empty")]
    pub sealed: Sealed,
    /// Digest of the DAG version's bundle; absent: an empty working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// Bearer token that reads this run's XComs from the API, and nothing else.
    pub token: String,
}

/// What a run's task instances share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunContext {
    pub pk: RunPk,
    pub dag_id: String,
    pub run_id: String,
    pub run_type: String,
    pub logical_date: Option<DateTime<Utc>>,
    pub data_interval_start: Option<DateTime<Utc>>,
    pub data_interval_end: Option<DateTime<Utc>>,
    pub run_after: DateTime<Utc>,
    /// When the run started.
    pub started_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub conf: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub params: Map<String, Value>,
    /// Of a run that updates of assets made: these, by asset.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub asset_events: Map<String, Value>,
}

/// Where the XComs are that a task pulls, by upstream task id.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct XcomRefs {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_task: BTreeMap<String, Vec<XcomRef>>,
    /// There are more than fit: ask the API for every pull.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_api: bool,
}

impl XcomRefs {
    pub fn is_empty(&self) -> bool {
        self.by_task.is_empty() && !self.by_api
    }
}

/// One accepted XCom; its value is in Redis under (run, ti, fence, key), or in the object store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct XcomRef {
    pub ti: TiPk,
    pub fence: Fence,
    pub map_index: i32,
    pub key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
}

/// Secrets as ciphertext (base64 of nonce and AES-256-GCM text).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sealed {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub connections: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
}

impl Sealed {
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.variables.is_empty()
    }
}

/// The body of a message on an events queue: many events, in the order in which they happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventBatch {
    pub v: u32,
    pub events: Vec<Event>,
}

/// What happened at a worker, or a question that must pass through the events queues in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Started(Started),
    Finished(Box<Finished>),
    /// The dispatch did not run and never will: its process tree is empty. It runs anew at no cost of a try.
    Requeued {
        run: RunPk,
        dispatch: Dispatch,
        reason: String,
    },
    /// The dispatch could not be claimed (stale epoch, too late). Whether another holds it is for the scheduler to find out.
    Bounced {
        run: RunPk,
        dispatch: Dispatch,
        reason: String,
    },
    /// A worker that cannot reach Redis asks for its lease to be renewed.
    Renew(RenewRequest),
    /// Once every shard has applied this, all that was sent before it has been applied.
    Barrier {
        id: Uuid,
        shard: u16,
    },
}

impl Event {
    /// The run that the event is about, if it is about one.
    pub fn run(&self) -> Option<RunPk> {
        match self {
            Self::Started(e) => Some(e.run),
            Self::Finished(e) => Some(e.run),
            Self::Requeued { run, .. } | Self::Bounced { run, .. } => Some(*run),
            Self::Renew(_) | Self::Barrier { .. } => None,
        }
    }
}

/// A worker has started an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    pub run: RunPk,
    pub dispatch: Dispatch,
    /// Incarnation of the worker.
    pub worker: String,
    pub hostname: String,
    pub pid: Option<i32>,
    pub at: DateTime<Utc>,
}

/// An attempt has ended, and its process tree is empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    pub run: RunPk,
    pub dispatch: Dispatch,
    pub worker: String,
    pub hostname: String,
    pub started_at: DateTime<Utc>,
    pub ended_at: DateTime<Utc>,
    pub ending: Ending,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// For the user: why it failed or was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xcoms: Vec<XcomOut>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    Success,
    Skipped,
    /// Failed; tried again while tries remain.
    Failed,
    /// The same, but after this time instead of the task's own delay.
    RetryIn {
        ms: u64,
    },
    /// Failed in a way that another try cannot mend.
    FailedForGood,
    /// Killed because its run or itself was cancelled.
    Cancelled,
    /// A sensor's look found nothing yet: the try goes on with the next one.
    NotYet,
}

/// An XCom that an attempt produced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct XcomOut {
    pub key: String,
    pub value: XcomValue,
}

/// Asks for a lease over the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    pub incarnation: String,
    /// Returned in the grant, so that the worker knows which request was granted (its own `CLOCK_BOOTTIME` in ns).
    pub sent_at: i64,
    /// How long the lease is to last, in milliseconds from the grant.
    pub lease_ms: i64,
}

/// What a scheduler or the API tells a worker directly. Losing one costs only time: the same facts reach the worker with
/// its next renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// Kill these dispatches if you hold them.
    Cancel { dispatches: Vec<Dispatch> },
    /// You claimed these long ago, and nothing was heard of them: give back those that you do not know of.
    Check { dispatches: Vec<(RunPk, Dispatch)> },
    /// The renewal sent at `sent_at` is granted.
    Granted { sent_at: i64 },
    /// You were judged lost: kill everything and start as a new incarnation.
    Revoked,
}

/// Where the attempts of a run's data tasks keep their files, in the object store.
pub fn data_prefix(run: RunPk) -> String {
    format!("data/run={run}")
}

/// The events shard of a run.
pub fn shard_of(run: RunPk, shards: u16) -> u16 {
    // Fibonacci hashing: neighbouring keys spread over all shards.
    let hash = (run.0 as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    (hash % u64::from(shards.max(1))) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_spread_over_all_shards() {
        let mut seen = [0; 4];
        for run in 0..1000 {
            seen[usize::from(shard_of(RunPk(run), 4))] += 1;
        }
        assert!(seen.iter().all(|n| (200..300).contains(n)), "{seen:?}");
    }
}
