//! The `sql` task.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Statements on a database that a connection names, in one transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlTask {
    /// Id of the connection: a template.
    pub connection: String,
    /// Templates; each may hold several statements. Empty: those of `file`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statements: Vec<String>,
    /// A script in the bundle, taken as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(default, skip_serializing_if = "SqlParameters::is_empty")]
    pub parameters: SqlParameters,
    /// What of the last statement is the return value.
    #[serde(default)]
    pub output: SqlOutput,
    /// A last statement with more rows fails, if its rows are asked for.
    #[serde(default = "thousand")]
    pub max_rows: u32,
    /// Expressions over `rows` and `count`; they have to be true before anything is committed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<String>,
    /// No transaction around the statements.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub autocommit: bool,
}

/// Values bound to statements; texts in them are templates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SqlParameters {
    /// Bound to the database's own placeholders, for each statement from the first on.
    List(Vec<Value>),
    /// Bound to `:name`.
    Named(Map<String, Value>),
}

impl Default for SqlParameters {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl SqlParameters {
    pub fn is_empty(&self) -> bool {
        match self {
            Self::List(list) => list.is_empty(),
            Self::Named(named) => named.is_empty(),
        }
    }

    /// Values in their order.
    pub fn values(&self) -> Box<dyn Iterator<Item = &Value> + '_> {
        match self {
            Self::List(list) => Box::new(list.iter()),
            Self::Named(named) => Box::new(named.values()),
        }
    }
}

/// The return value of a [`SqlTask`], made of its last statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SqlOutput {
    /// A list of mappings from columns to values.
    Rows,
    /// The first column of the first row; null without a row.
    Value,
    /// How many rows it returned or changed.
    Count,
    #[default]
    None,
}

fn thousand() -> u32 {
    1000
}
