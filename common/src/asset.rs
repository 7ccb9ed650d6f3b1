//! Assets: data that tasks update and read, and that schedules wait for.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, fmt};

/// Characters of an asset's name or URI at most, as in Airflow.
pub const MAX_NAME: usize = 1500;

/// An asset as a task's `outlets` or `inlets` describe it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asset {
    /// Names it in the whole deployment.
    pub name: String,
    /// Where the data is; without one the name stands for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

impl Asset {
    /// An asset of which only the name is known.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            uri: None,
            group: None,
            extra: Map::new(),
        }
    }

    pub fn uri(&self) -> &str {
        self.uri.as_deref().unwrap_or(&self.name)
    }

    /// As Airflow names the group of an asset that has none.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or("asset")
    }

    /// Whether more than its name is said here.
    pub fn is_described(&self) -> bool {
        self.uri.is_some() || self.group.is_some() || !self.extra.is_empty()
    }
}

/// Which assets have to be updated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssetCondition {
    Asset(String),
    Any(Vec<AssetCondition>),
    All(Vec<AssetCondition>),
}

impl AssetCondition {
    /// Whether it holds when these assets were updated.
    pub fn holds(&self, updated: &BTreeSet<&str>) -> bool {
        match self {
            Self::Asset(name) => updated.contains(name.as_str()),
            Self::Any(parts) => parts.iter().any(|part| part.holds(updated)),
            Self::All(parts) => parts.iter().all(|part| part.holds(updated)),
        }
    }

    /// Every asset in it, each once, by name.
    pub fn names(&self) -> BTreeSet<&str> {
        match self {
            Self::Asset(name) => BTreeSet::from([name.as_str()]),
            Self::Any(parts) | Self::All(parts) => parts.iter().flat_map(Self::names).collect(),
        }
    }

    /// In Airflow's shape of an asset expression: `{"any": [{"asset": {…}}, …]}`.
    pub fn expression(&self) -> Value {
        let list = |parts: &[Self]| parts.iter().map(Self::expression).collect::<Vec<_>>();
        match self {
            Self::Asset(name) => serde_json::json!({ "asset": { "name": name } }),
            Self::Any(parts) => serde_json::json!({ "any": list(parts) }),
            Self::All(parts) => serde_json::json!({ "all": list(parts) }),
        }
    }
}

impl fmt::Display for AssetCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parts, word) = match self {
            Self::Asset(name) => return f.write_str(name),
            Self::Any(parts) => (parts, " or "),
            Self::All(parts) => (parts, " and "),
        };
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                f.write_str(word)?;
            }
            match part {
                Self::Asset(name) => f.write_str(name)?,
                nested => write!(f, "({nested})")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_nest() {
        let orders = || AssetCondition::Asset("orders".to_owned());
        let prices = || AssetCondition::Asset("prices".to_owned());
        let manual = || AssetCondition::Asset("manual".to_owned());
        let condition = AssetCondition::Any(vec![
            AssetCondition::All(vec![orders(), prices()]),
            manual(),
        ]);
        for (updated, holds) in [
            (&["orders"][..], false),
            (&["orders", "prices"], true),
            (&["manual"], true),
            (&["other"], false),
            (&[], false),
        ] {
            let updated = updated.iter().copied().collect();
            assert_eq!(condition.holds(&updated), holds, "{updated:?}");
        }
        assert_eq!(condition.to_string(), "(orders and prices) or manual");
        let names: Vec<&str> = condition.names().into_iter().collect();
        assert_eq!(names, ["manual", "orders", "prices"]);
    }
}
