//! When a DAG's runs are made by themselves.

use crate::{asset::AssetCondition, span::Span};
use serde::{Deserialize, Serialize};

/// When runs are made by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Only when triggered.
    #[default]
    Manual,
    /// A cron expression of 5 or 6 fields (presets such as `@daily` are stored as their expression).
    Cron(String),
    /// Several cron expressions: their times together.
    Crons(Vec<String>),
    /// Every so often, counted from `start_date`.
    Every(Span),
    /// Once, at `start_date`.
    Once,
    /// A run as soon as the one before has ended.
    Continuous,
    /// When assets were updated, and maybe at times too.
    Assets(AssetSchedule),
}

/// A schedule by assets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetSchedule {
    /// A run once this holds of the assets that were updated since the run before.
    pub when: AssetCondition,
    /// Cron expressions at whose times runs are made too, whatever was updated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cron: Vec<String>,
}

impl Schedule {
    /// For display; absent: only by trigger.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Manual => None,
            Self::Cron(expression) => Some(expression.clone()),
            Self::Crons(expressions) => Some(expressions.join(", ")),
            Self::Every(span) => Some(format!("every {span}")),
            Self::Once => Some("@once".to_owned()),
            Self::Continuous => Some("@continuous".to_owned()),
            Self::Assets(assets) if assets.cron.is_empty() => Some(assets.when.to_string()),
            Self::Assets(assets) => Some(format!("{} or {}", assets.when, assets.cron.join(", "))),
        }
    }

    /// Its cron expressions.
    pub fn crons(&self) -> &[String] {
        match self {
            Self::Cron(expression) => std::slice::from_ref(expression),
            Self::Crons(expressions) => expressions,
            Self::Assets(assets) => &assets.cron,
            Self::Manual | Self::Every(_) | Self::Once | Self::Continuous => &[],
        }
    }

    /// The assets whose updates make runs.
    pub fn assets(&self) -> Option<&AssetCondition> {
        match self {
            Self::Assets(assets) => Some(&assets.when),
            _ => None,
        }
    }
}

/// What a due run does while as many runs are active as `max_active_runs` allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It waits.
    #[default]
    Queue,
    /// It is not made at all.
    Skip,
    /// The oldest active runs are cancelled for it.
    Cancel,
}

impl Overlap {
    /// Whether this is what is assumed without a word.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Skip => "skip",
            Self::Cancel => "cancel",
        }
    }
}
