//! Connections and variables that come from this process's environment and files: the API knows their names, and shows
//! nothing of their values. Workers look in their own, so all roles of a deployment are given the same.

use gristmill_secrets::{Backends, Kind};
use std::collections::BTreeMap;

/// Where what rests in the database comes from, as answers show it.
pub(crate) const DATABASE: &str = "database";

/// Names, with where each comes from. What cannot be read is in the log, and is missing here: workers say it too.
pub(crate) fn names(kind: Kind) -> BTreeMap<String, &'static str> {
    match Backends::from_env().names(kind) {
        Ok(names) => names
            .into_iter()
            .map(|(name, source)| (name, source.as_str()))
            .collect(),
        Err(error) => {
            tracing::warn!(%error, "secrets outside the database cannot be listed");
            BTreeMap::new()
        }
    }
}
