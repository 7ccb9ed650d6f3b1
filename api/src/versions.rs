//! DAG versions, kept in memory: they never change, and every answer about a run shows one.

use crate::error::ApiError;
use gristmill_common::ids::VersionPk;
use gristmill_store::{Store, StoreError, VersionRow};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Versions kept at most; a version may have a megabyte.
const CAPACITY: usize = 64;

/// A bounded cache.
#[derive(Debug, Default)]
pub(crate) struct Versions(Mutex<HashMap<VersionPk, Arc<VersionRow>>>);

impl Versions {
    /// The version that a run or a DAG points to.
    pub(crate) async fn get(
        &self,
        store: &dyn Store,
        version: VersionPk,
    ) -> Result<Arc<VersionRow>, ApiError> {
        if let Some(row) = self.lock().get(&version) {
            return Ok(row.clone());
        }
        let row = store
            .version(version)
            .await?
            .ok_or_else(|| StoreError::NotFound {
                what: "DAG version",
                name: version.to_string(),
            })?;
        let row = Arc::new(row);
        let mut kept = self.lock();
        if kept.len() >= CAPACITY {
            kept.clear();
        }
        kept.insert(version, row.clone());
        Ok(row)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<VersionPk, Arc<VersionRow>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
