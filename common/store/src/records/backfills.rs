//! Backfills.

use chrono::{DateTime, Utc};
use gristmill_common::{ids::BackfillPk, timetable::NextRun};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::str::FromStr;

/// What becomes of dates that have a run already. One that has not ended keeps its date in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reprocess {
    /// They are left out.
    #[default]
    None,
    /// They get another run if their newest one failed.
    Failed,
    /// They get another run however their newest one ended.
    Completed,
}

impl Reprocess {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Failed => "failed",
            Self::Completed => "completed",
        }
    }
}

impl FromStr for Reprocess {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::None, Self::Failed, Self::Completed]
            .into_iter()
            .find(|behavior| behavior.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no way to reprocess"))
    }
}

/// A backfill to make.
#[derive(Debug, Clone)]
pub struct NewBackfill {
    pub dag_id: String,
    /// First and last logical date.
    pub from_date: DateTime<Utc>,
    pub to_date: DateTime<Utc>,
    /// The newest date first.
    pub run_backwards: bool,
    /// Runs of it in state `running` at one time.
    pub max_active_runs: i32,
    pub reprocess: Reprocess,
    /// Of each of its runs; its parameters are those of the DAG, with this over them.
    pub conf: Map<String, Value>,
}

/// What a backfill comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillPlan {
    /// Absent of a dry run.
    pub id: Option<BackfillPk>,
    /// In the order in which they start.
    pub runs: Vec<NextRun>,
    /// Dates that are left out, because of the runs that they have.
    pub left_out: Vec<DateTime<Utc>>,
}

/// A backfill and how far it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackfillRow {
    pub id: BackfillPk,
    pub dag_id: String,
    pub from_date: DateTime<Utc>,
    pub to_date: DateTime<Utc>,
    pub run_backwards: bool,
    pub max_active_runs: i32,
    pub reprocess: Reprocess,
    pub conf: Map<String, Value>,
    pub is_paused: bool,
    /// Dates that were left out.
    pub left_out: i32,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub cancelled_at: Option<DateTime<Utc>>,
    /// Since when none of its runs is queued or running.
    pub completed_at: Option<DateTime<Utc>>,
    /// Its runs by state.
    pub queued: i64,
    pub running: i64,
    pub success: i64,
    pub failed: i64,
}

/// Which backfills, newest first.
#[derive(Debug, Clone, Default)]
pub struct BackfillFilter {
    pub dag_id: Option<String>,
    /// Only those that have not ended.
    pub active: bool,
    pub limit: i64,
    pub offset: i64,
}
