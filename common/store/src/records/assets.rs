//! Assets, who uses them, and what became of them.

use chrono::{DateTime, Utc};
use gristmill_common::{asset::Asset, ids::RunPk};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How a DAG uses an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssetUse {
    /// Its schedule waits for it.
    Schedule,
    /// A task reads it.
    Inlet,
    /// A task updates it.
    Outlet,
}

impl AssetUse {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Inlet => "inlet",
            Self::Outlet => "outlet",
        }
    }
}

/// One use of an asset by a DAG's version.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAssetReference {
    pub asset: Asset,
    pub kind: AssetUse,
    /// Empty for a schedule.
    pub task_id: String,
}

/// The same, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetReference {
    pub dag_id: String,
    pub kind: AssetUse,
    pub task_id: String,
    pub created_at: DateTime<Utc>,
}

/// An asset with its lineage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetRow {
    pub id: i64,
    pub name: String,
    pub uri: String,
    pub group: String,
    pub extra: Map<String, Value>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// By the current versions of DAGs.
    pub references: Vec<AssetReference>,
    /// Id and time of the newest event.
    pub last_event: Option<(i64, DateTime<Utc>)>,
}

/// The task instance that updated an asset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetSource {
    pub dag_id: String,
    pub run_id: String,
    pub task_id: String,
    pub map_index: i32,
}

/// An update of an asset.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAssetEvent {
    /// The asset's name.
    pub asset: String,
    pub extra: Map<String, Value>,
    /// Absent: a user said so.
    pub source: Option<AssetSource>,
}

/// The same, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetEventRow {
    pub id: i64,
    pub asset_id: i64,
    pub name: String,
    pub uri: String,
    pub group: String,
    pub at: DateTime<Utc>,
    pub extra: Map<String, Value>,
    pub source: Option<AssetSource>,
    /// The runs that it made, together with others.
    pub runs: Vec<RunPk>,
}

/// Which events of assets, newest first.
#[derive(Debug, Clone, Default)]
pub struct AssetEventFilter {
    pub id: Option<i64>,
    pub asset_id: Option<i64>,
    pub source_dag_id: Option<String>,
    pub source_run_id: Option<String>,
    pub source_task_id: Option<String>,
    /// Those that made this run.
    pub run: Option<RunPk>,
    pub limit: i64,
    pub offset: i64,
}

/// Events of one asset that wait for a DAG's next run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingAsset {
    pub dag_id: String,
    pub asset_id: i64,
    pub name: String,
    /// Of the newest of them.
    pub event: i64,
    pub at: DateTime<Utc>,
}
