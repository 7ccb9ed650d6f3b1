//! Limits that are shared by what has the same key.

use serde::{Deserialize, Serialize};

/// A limit for each value that its key takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    /// A template. Whatever renders to an empty text shares no limit.
    pub key: String,
    /// How many at one time.
    #[serde(default = "one")]
    pub limit: u32,
    #[serde(default)]
    pub strategy: Strategy,
}

/// What becomes of one more when the limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// It waits.
    #[default]
    Queue,
    /// The oldest that runs is cancelled for it.
    CancelRunning,
    /// It is cancelled itself.
    CancelNew,
}

impl Strategy {
    pub const ALL: [Self; 3] = [Self::Queue, Self::CancelRunning, Self::CancelNew];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::CancelRunning => "cancel_running",
            Self::CancelNew => "cancel_new",
        }
    }
}

impl std::str::FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|strategy| strategy.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not a strategy of a shared limit"))
    }
}

fn one() -> u32 {
    1
}
