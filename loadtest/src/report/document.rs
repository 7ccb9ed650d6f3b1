//! What one call of the tool found, as it is written to a file and read again.

use super::machine::Machine;
use crate::{
    deployment::Kind,
    error::{LoadError, Result},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

/// Version of the documents' shape. Readers refuse others.
pub const FORMAT: u32 = 1;

/// Everything that one call of `bench` or `run` found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Document {
    pub format: u32,
    /// `bench` or `run`.
    pub command: String,
    pub measured_at: DateTime<Utc>,
    pub took_s: f64,
    pub machine: Machine,
    /// What was asked for, by the names of the options.
    pub settings: BTreeMap<String, Value>,
    pub deployments: Vec<Measured>,
    /// Others that were measured in the same run.
    #[serde(default)]
    pub peers: Vec<Peer>,
}

/// What was measured of one deployment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    pub deployment: Kind,
    /// In the order of reports.
    pub figures: Vec<FigureValue>,
    /// CPU seconds per 1000 tasks by scenario and group of processes.
    #[serde(default)]
    pub cpu_s_per_1000_tasks: BTreeMap<String, BTreeMap<String, f64>>,
    /// Servers whose CPU time is in no figure.
    #[serde(default)]
    pub servers_not_counted: Vec<String>,
    /// What `run` put on it second by second; absent from `bench`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<Second>,
}

/// One figure: what stands for all its samples, and what it should be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FigureValue {
    pub key: String,
    pub label: String,
    pub unit: String,
    pub value: f64,
    pub min: f64,
    pub max: f64,
    pub samples: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aim: Option<AimValue>,
    /// Whether the aim is met; absent without an aim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
    /// Counted rather than timed, lower is better: `compare` judges it.
    #[serde(default)]
    pub gate: bool,
    /// Percentiles and their values, of what was sampled often.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distribution: Vec<(f64, f64)>,
    /// Others' figures, measured at another time on a quiet machine of two processors: by name of the peer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reference: BTreeMap<String, String>,
}

/// What a figure should be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AimValue {
    pub bound: Bound,
    pub value: f64,
    /// How the value came about, when it is not fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<String>,
}

/// On which side of its aim a figure should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    AtMost,
    AtLeast,
}

impl AimValue {
    pub fn met(&self, value: f64) -> bool {
        match self.bound {
            Bound::AtMost => value <= self.value,
            Bound::AtLeast => value >= self.value,
        }
    }
}

/// Somebody else's product under the same loads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Peer {
    /// For example `celery`.
    pub name: String,
    /// For example `Celery 5.7.0, default settings`.
    pub label: String,
    /// By the keys of our figures, in their units.
    pub figures: BTreeMap<String, f64>,
}

/// One second under load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Runs that were due.
    pub intended: u64,
    /// Runs that were accepted.
    pub accepted: u64,
    /// Runs whose end was seen.
    pub ended: u64,
    /// Runs accepted and not ended, at the end of the second.
    pub in_flight: u64,
}

impl FigureValue {
    /// A single value, without an aim.
    pub fn plain(key: &str, label: &str, unit: &str, value: f64) -> Self {
        Self {
            key: key.to_owned(),
            label: label.to_owned(),
            unit: unit.to_owned(),
            value,
            min: value,
            max: value,
            samples: 1,
            aim: None,
            met: None,
            gate: false,
            distribution: Vec::new(),
            reference: BTreeMap::new(),
        }
    }
}

impl Document {
    /// Reads a file that `-o json` or `--save` wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let unreadable = |why: String| LoadError::Unreadable {
            path: path.to_owned(),
            why,
        };
        let text = fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        let value: Value =
            serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
        match value.get("format").and_then(Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            other => {
                let found = other.map_or_else(|| "none".to_owned(), |format| format.to_string());
                return Err(unreadable(format!(
                    "its format is {found}; this version reads {FORMAT}"
                )));
            }
        }
        serde_json::from_value(value).map_err(|error| unreadable(error.to_string()))
    }

    /// As pretty JSON.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Figures that somebody else reached in the same run.
    pub fn peer_value<'a>(&'a self, key: &'a str) -> impl Iterator<Item = Option<f64>> + 'a {
        self.peers
            .iter()
            .map(move |peer| peer.figures.get(key).copied())
    }
}

impl Measured {
    pub fn figure(&self, key: &str) -> Option<&FigureValue> {
        self.figures.iter().find(|figure| figure.key == key)
    }

    /// The label of `figure` out of its table: an indented one belongs to the one above it that is not.
    pub fn full_label(&self, figure: &FigureValue) -> String {
        let above = self
            .figures
            .iter()
            .take_while(|other| other.key != figure.key)
            .filter(|other| !other.label.starts_with(' '))
            .last();
        match above {
            Some(above) if figure.label.starts_with(' ') => {
                let above = above.label.split(':').next().unwrap_or_default();
                format!("{above}: {}", figure.label.trim())
            }
            _ => figure.label.trim().to_owned(),
        }
    }
}
