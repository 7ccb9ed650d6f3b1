//! Where files are: `file://` and `s3://` locations, and the stores behind them.

use std::collections::HashMap;
use std::path::{Component, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use url::Url;

use crate::error::{Error, Result};

/// A place in a store. The text form is not percent-encoded: what a user writes is the name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// An absolute path.
    Local(PathBuf),
    /// An object or a prefix.
    S3 {
        /// The bucket.
        bucket: String,
        /// The key, without a leading slash.
        key: String,
    },
}

impl Location {
    /// Reads `s3://bucket/key`, `file:///path`, `/path` or a path relative to the current directory.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(Error::spec(format!(
                    "{text:?} names no bucket, expected s3://bucket/key"
                )));
            }
            return Ok(Self::S3 {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
            });
        }
        if let Some(path) = text.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(Error::spec(format!(
                    "{text:?} must have three slashes, as in file:///data/x.csv"
                )));
            }
            return Ok(Self::Local(plain(std::path::Path::new(path))));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(Error::spec(format!(
                "{text:?}: store {scheme}:// is not known, expected s3:// or file://"
            )));
        }
        if text.is_empty() {
            return Err(Error::spec("a path is empty"));
        }
        Ok(Self::Local(plain(&std::env::current_dir()?.join(text))))
    }

    /// `name` in this folder.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        match self {
            Self::Local(path) => Self::Local(path.join(name)),
            Self::S3 { bucket, key } => {
                let key = key.trim_end_matches('/');
                Self::S3 {
                    bucket: bucket.clone(),
                    key: if key.is_empty() {
                        name.to_owned()
                    } else {
                        format!("{key}/{name}")
                    },
                }
            }
        }
    }

    /// The path inside its store.
    pub fn path(&self) -> Result<Path> {
        let path = match self {
            Self::Local(path) => Path::from_absolute_path(path),
            Self::S3 { key, .. } => Path::parse(key.trim_end_matches('/')),
        };
        path.map_err(|e| Error::spec(format!("{self} is not a valid path: {e}")))
    }

    /// The store's URL, as the query engine names it.
    pub fn store_url(&self) -> Result<ObjectStoreUrl> {
        Ok(match self {
            Self::Local(_) => ObjectStoreUrl::local_filesystem(),
            Self::S3 { bucket, .. } => ObjectStoreUrl::parse(format!("s3://{bucket}"))
                .map_err(|e| Error::spec(format!("bucket {bucket:?}: {e}")))?,
        })
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(path) => write!(f, "file://{}", path.display()),
            Self::S3 { bucket, key } => write!(f, "s3://{bucket}/{key}"),
        }
    }
}

/// An absolute path without `.` and `..`, which stores refuse. By the text alone, as a glob is not a file.
fn plain(path: &std::path::Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

/// Opens stores on first use, with settings and credentials from the environment (`AWS_…`).
#[derive(Debug)]
pub struct Stores {
    local: Arc<dyn ObjectStore>,
    buckets: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl Default for Stores {
    fn default() -> Self {
        Self {
            local: Arc::new(LocalFileSystem::new()),
            buckets: Mutex::default(),
        }
    }
}

impl Stores {
    /// The store that holds `location`.
    pub fn open(&self, location: &Location) -> Result<Arc<dyn ObjectStore>> {
        let Location::S3 { bucket, .. } = location else {
            return Ok(Arc::clone(&self.local));
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = buckets.get(bucket) {
            return Ok(Arc::clone(store));
        }
        // The task's own retries come on top, so give up on a dead endpoint within a minute.
        let retry = RetryConfig {
            max_retries: 6,
            retry_timeout: Duration::from_secs(60),
            ..RetryConfig::default()
        };
        let store: Arc<dyn ObjectStore> = Arc::new(
            AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_retry(retry)
                .build()?,
        );
        buckets.insert(bucket.clone(), Arc::clone(&store));
        Ok(store)
    }

    /// Lets queries of `runtime` read the store that holds `location`.
    pub fn register(&self, runtime: &RuntimeEnv, location: &Location) -> Result<ObjectStoreUrl> {
        let url = location.store_url()?;
        let key: &Url = url.as_ref();
        runtime.register_object_store(key, self.open(location)?);
        Ok(url)
    }

    /// Reads a JSON file; [`None`] if there is none.
    pub async fn read_json<T: DeserializeOwned>(&self, location: &Location) -> Result<Option<T>> {
        let store = self.open(location)?;
        let bytes = match store.get(&location.path()?).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let value = serde_json::from_slice(&bytes)
            .map_err(|e| Error::request(format!("{location} is not what it should be: {e}")))?;
        Ok(Some(value))
    }

    /// Writes a JSON file, replacing what is there.
    pub async fn write_json<T: Serialize>(&self, location: &Location, value: &T) -> Result<()> {
        let payload = PutPayload::from(to_json(value)?);
        self.open(location)?.put(&location.path()?, payload).await?;
        Ok(())
    }

    /// Writes a JSON file unless there is one; tells whether it did.
    pub async fn create_json<T: Serialize>(&self, location: &Location, value: &T) -> Result<bool> {
        let payload = PutPayload::from(to_json(value)?);
        let store = self.open(location)?;
        match store
            .put_opts(&location.path()?, payload, PutMode::Create.into())
            .await
        {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Copies one file, replacing what is there, as one atomic step: a hard link, a copy inside the store, or a
    /// transfer between stores.
    pub async fn copy(&self, from: &Location, to: &Location) -> Result<()> {
        let source = self.open(from)?;
        let (from_path, to_path) = (from.path()?, to.path()?);
        if from.store_url()? == to.store_url()? {
            match source.copy(&from_path, &to_path).await {
                Ok(()) => return Ok(()),
                // Two file systems cannot share a link: transfer the bytes.
                Err(error) if matches!(from, Location::S3 { .. }) => return Err(error.into()),
                Err(error @ object_store::Error::NotFound { .. }) => return Err(error.into()),
                Err(_) => {}
            }
        }
        let mut chunks = source.get(&from_path).await?.into_stream();
        let mut target = BufWriter::new(self.open(to)?, to_path);
        while let Some(chunk) = chunks.try_next().await? {
            target.write_all(&chunk).await?;
        }
        target.shutdown().await?;
        Ok(())
    }

    /// Removes a file; that there is none is fine.
    pub async fn remove(&self, location: &Location) -> Result<()> {
        match self.open(location)?.delete(&location.path()?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The size of a file; [`None`] if there is none.
    pub async fn size(&self, location: &Location) -> Result<Option<u64>> {
        match self.open(location)?.head(&location.path()?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| {
        Error::new(
            crate::error::ErrorKind::Internal,
            format!("cannot write JSON: {e}"),
        )
    })
}
