//! Runs and task instances as the stores keep them.

use crate::{
    ids::{BackfillPk, Dispatch, Fence, RunPk, TaskIdx, TiPk, UNMAPPED, VersionPk},
    limit::LimitKey,
    spec::Strategy,
    state::{RunState, TaskState},
    trigger_rule::Counters,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// A DAG run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    pub pk: RunPk,
    pub dag_id: String,
    pub run_id: String,
    pub version: VersionPk,
    pub state: RunState,
    pub run_type: RunType,
    /// Who made it: `rest_api`, `cli`, `timetable`, …
    pub triggered_by: String,
    /// The backfill that it belongs to, and whose limit it counts against instead of its DAG's.
    pub backfill: Option<BackfillPk>,
    pub logical_date: Option<DateTime<Utc>>,
    pub data_interval_start: Option<DateTime<Utc>>,
    pub data_interval_end: Option<DateTime<Utc>>,
    /// It does not start before.
    pub run_after: DateTime<Utc>,
    pub queued_at: DateTime<Utc>,
    /// A run that was queued anew keeps it until it starts again: its instances exist.
    pub started_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
    pub conf: Map<String, Value>,
    /// The DAG's parameters with defaults and conf merged, checked against their schemas.
    pub params: Map<String, Value>,
    pub note: Option<String>,
    /// A user asked for its end.
    pub cancelled: bool,
    /// Why the run was stopped from outside (cancel, timeout); its remaining instances are being ended.
    pub stop_reason: Option<String>,
    /// Why the run was stopped, if its teardowns go on. Beside a `stop_reason` everything else is being ended; without one that
    /// is done, and the teardowns run.
    pub clean_up: Option<String>,
    /// The run's own limit: instances that occupy slots at one time.
    pub max_active_tasks: i32,
    pub active_tasks: i32,
    /// Instances in state `scheduled`.
    pub ready_tasks: i32,
    /// Instances not ended.
    pub unfinished_tasks: i32,
    /// Leaf instances that ended in `failed` or `upstream_failed`: more than 0 makes the run fail.
    pub failed_leaves: i32,
    /// The key of the limit that it shares with other runs (`concurrency`), once it was rendered; empty: it shares none.
    pub concurrency_key: Option<String>,
}

impl RunRow {
    /// The limit on runs that it counts against while it is running.
    pub fn limit(&self) -> LimitKey {
        match self.backfill {
            Some(id) => LimitKey::Backfill { id },
            None => LimitKey::DagRuns {
                dag_id: self.dag_id.clone(),
            },
        }
    }
}

/// What made a run (Airflow's names).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunType {
    Manual,
    Scheduled,
    Backfill,
    /// A `trigger_dag` task of another run.
    OperatorTriggered,
    /// Updates of assets.
    AssetTriggered,
    /// Somebody asked for an asset to be made.
    AssetMaterialization,
}

impl RunType {
    pub const ALL: [Self; 6] = [
        Self::Manual,
        Self::Scheduled,
        Self::Backfill,
        Self::OperatorTriggered,
        Self::AssetTriggered,
        Self::AssetMaterialization,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Scheduled => "scheduled",
            Self::Backfill => "backfill",
            Self::OperatorTriggered => "operator_triggered",
            Self::AssetTriggered => "asset_triggered",
            Self::AssetMaterialization => "asset_materialization",
        }
    }
}

impl fmt::Display for RunType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RunType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|t| t.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not a run type"))
    }
}

/// A task instance.
///
/// Every task of a run has one row with `map_index` -1, its *node*: it carries the counters of its upstreams' endings.
/// An unmapped task's node is its only instance. A mapped task's node becomes invisible when it is expanded into
/// instances 0, 1, …; an empty expansion, or an upstream's failure before it, ends the node itself. In a mapped group an
/// instance has counters of its own, and waits (`none`) for the instances of other members with the same index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TiRow {
    pub pk: TiPk,
    pub run: RunPk,
    pub task_idx: TaskIdx,
    pub task_id: String,
    pub map_index: i32,
    pub state: TaskState,
    pub fence: Fence,
    /// The attempt that is out or was last; 0 before the first.
    pub try_number: i32,
    /// Tries allowed after the first; infrastructure losses raise it.
    pub max_tries: i32,
    /// Attempts that failed of their own: what backoff counts.
    pub user_failures: i32,
    /// Attempts lost to infrastructure in a row.
    pub infra_losses: i32,
    /// Names the current attempt and its log.
    pub attempt: Option<Uuid>,
    /// Redis epoch of the last dispatch.
    pub epoch: i64,
    pub queue: String,
    pub pool: String,
    pub pool_slots: i32,
    pub priority_weight: i32,
    /// Whether it holds its slots: from dispatch to the proof that its attempt is dead.
    pub occupies: bool,
    pub counters: Counters,
    /// A mapped task's node, once expanded: the number of its instances.
    pub expanded_len: Option<i32>,
    /// A mapped instance's map variables.
    pub map_values: Option<Map<String, Value>>,
    /// What `map_index_template` calls a mapped instance.
    pub map_name: Option<String>,
    /// The limit that it shares with others of the same key (`concurrency`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedKey>,
    pub scheduled_at: Option<DateTime<Utc>>,
    pub queued_at: Option<DateTime<Utc>>,
    /// No worker may claim the current dispatch after this.
    pub claim_by: Option<DateTime<Utc>>,
    pub started_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
    /// `up_for_retry`: when the next try is due. `none`: it waits for the run before, and looks at it again then. An instance that waits: when it is looked at next, unless something else
    /// wakes it before. `queued`, of a task with `queued_timeout`: when it is given up.
    pub next_at: Option<DateTime<Utc>>,
    /// What a waiting instance remembers from look to look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// `restarting`: what it becomes once its dispatch is over; absent: it waits anew.
    pub then: Option<TaskState>,
    /// Incarnation of the worker that started the current attempt.
    pub worker: Option<String>,
    pub hostname: Option<String>,
    pub pid: Option<i32>,
    pub exit_code: Option<i32>,
    /// Why it is in this state, in words for the user.
    pub reason: Option<String>,
}

/// A limit that task instances share whose key is the same, as one of them sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedKey {
    /// Rendered; not empty.
    pub key: String,
    /// It is not dispatched while so many of this key hold slots.
    pub limit: i32,
    pub strategy: Strategy,
}

impl SharedKey {
    pub fn limit_key(&self) -> LimitKey {
        LimitKey::TaskKey {
            key: self.key.clone(),
        }
    }
}

/// What an instance remembers that waits without a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    /// The first look: what a sensor's timeout counts from, over tries and workers.
    pub since: DateTime<Utc>,
    /// Looks that found nothing yet.
    #[serde(default)]
    pub looks: u32,
    /// The current try goes on with the next look.
    #[serde(default)]
    pub open: bool,
    /// The run that it has triggered and waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunPk>,
}

impl TiRow {
    /// Whether the next dispatch belongs to the try that is under way: a sensor's further poke.
    pub fn try_goes_on(&self) -> bool {
        self.wait.as_ref().is_some_and(|wait| wait.open)
    }

    /// The try is over, however it ended: the next dispatch is another.
    pub(crate) fn close_try(&mut self) {
        if let Some(wait) = &mut self.wait {
            wait.open = false;
        }
    }

    pub fn dispatch(&self) -> Dispatch {
        Dispatch {
            ti: self.pk,
            fence: self.fence,
        }
    }

    pub fn is_node(&self) -> bool {
        self.map_index == UNMAPPED
    }

    /// Whether it is a node whose trigger rule has not been decided, since its run started or since it was cleared: its
    /// counters have to be right. A node that was expanded shows in `scheduled_at` when its rule held.
    pub fn is_undecided(&self) -> bool {
        self.is_node() && self.is_waiting() && self.scheduled_at.is_none()
    }

    /// Whether it may still come to run: it is counted for while its last dispatch is being stopped, too.
    pub fn is_waiting(&self) -> bool {
        match self.state {
            TaskState::None => true,
            TaskState::Restarting => self.then.is_none(),
            _ => false,
        }
    }

    /// Whether its rule holds and it waits for the run before (`depends_on_past`).
    pub fn waits_for_past(&self) -> bool {
        self.state == TaskState::None && self.next_at.is_some()
    }

    /// Whether users see it: the node of an expanded task stands for its instances and is hidden.
    pub fn is_visible(&self) -> bool {
        !(self.is_node() && self.expanded_len.is_some_and(|n| n > 0))
    }
}

/// One ended attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRow {
    pub ti: TiPk,
    pub try_number: i32,
    pub attempt: Uuid,
    pub fence: Fence,
    /// `success`, `failed`, `skipped`, `up_for_retry`, or `lost` / `requeued` for an attempt that infrastructure ended.
    pub ending: String,
    pub started_at: Option<DateTime<Utc>>,
    pub ended_at: DateTime<Utc>,
    pub worker: Option<String>,
    pub hostname: Option<String>,
    pub pid: Option<i32>,
    pub exit_code: Option<i32>,
    pub reason: Option<String>,
}

/// The durable copy of one XCom of an accepted attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct XcomRow {
    pub run: RunPk,
    pub ti: TiPk,
    pub task_idx: TaskIdx,
    pub map_index: i32,
    pub key: String,
    pub fence: Fence,
    pub value: XcomValue,
}

/// An XCom's value: in the database, or in the object store under a key named by its fence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum XcomValue {
    Inline(Value),
    Object { key: String, size: u64 },
}

/// The XCom key of the list of files that a task has left, as its `artifacts` named them.
pub const ARTIFACTS: &str = "artifacts";
/// The XCom key of a task's result.
pub const RETURN_VALUE: &str = "return_value";

/// A message waiting to be published; written in the transaction that dispatched its task instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutboxRow {
    pub dispatch: Dispatch,
    pub run: RunPk,
    pub queue: String,
    /// JSON of [`crate::message::WorkMessage`].
    pub body: String,
    pub epoch: i64,
    pub claim_by: DateTime<Utc>,
    pub priority: i32,
}
