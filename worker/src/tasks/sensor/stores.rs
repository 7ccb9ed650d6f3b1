//! The object stores that file sensors look into, opened on first use and shared by all pokes of a worker.

use object_store::{ObjectStore, RetryConfig, aws::AmazonS3Builder};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Buckets that are kept open; beyond that the cache starts anew.
const MOST: usize = 256;

/// By bucket; settings and credentials come from the worker's environment (`AWS_…`), as for data tasks.
#[derive(Debug, Default)]
pub(crate) struct Stores(Mutex<HashMap<String, Arc<dyn ObjectStore>>>);

impl Stores {
    pub(super) fn bucket(&self, name: &str) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.get(name) {
            return Ok(store.clone());
        }
        // The next poke comes anyway: none waits long for a store that does not answer.
        let retry = RetryConfig {
            max_retries: 1,
            retry_timeout: Duration::from_secs(20),
            ..RetryConfig::default()
        };
        let store: Arc<dyn ObjectStore> = Arc::new(
            AmazonS3Builder::from_env()
                .with_bucket_name(name)
                .with_retry(retry)
                .build()?,
        );
        if open.len() >= MOST {
            open.clear();
        }
        open.insert(name.to_owned(), store.clone());
        Ok(store)
    }
}
