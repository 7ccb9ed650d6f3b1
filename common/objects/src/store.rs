//! The store.

use std::fmt::Display;
use std::ops::Range;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{BoxStream, Stream, StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{
    GetOptions, GetRange, ObjectStore as Backend, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    WriteMultipart,
};
use url::Url;

use crate::ObjectError;
use crate::local::Draft;

/// Largest object that [`ObjectStore::get`] reads into memory, in bytes.
pub const MAX_GET_BYTES: u64 = 128 * 1024 * 1024;

/// One part of a multipart upload, in bytes. S3 takes 10,000 parts, so 80 GB an object.
const PART_BYTES: usize = 8 * 1024 * 1024;

/// Parts under way at once: with the one being filled, this bounds an upload's memory.
const PARTS_AT_ONCE: usize = 3;

/// An object's content, piece by piece.
pub type ByteStream = BoxStream<'static, Result<Bytes, ObjectError>>;
/// A listing.
pub type MetaStream = BoxStream<'static, Result<ObjectMeta, ObjectError>>;

/// What a listing says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was written.
    pub last_modified: DateTime<Utc>,
}

/// The object store. Clones are cheap and share connections.
#[derive(Debug, Clone)]
pub struct ObjectStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    url: String,
    backend: Arc<dyn Backend>,
    /// Of `file://` stores: writes go around the backend, see [`crate::local`].
    local: Option<Arc<LocalFileSystem>>,
    /// Of `s3://` stores: what precedes every key in the bucket.
    prefix: String,
}

impl ObjectStore {
    /// Opens `file:///absolute/path` (made if absent) or `s3://bucket/prefix`; the latter is set up by the usual `AWS_*`
    /// variables of the environment (`AWS_ENDPOINT` and `AWS_ALLOW_HTTP=true` for other servers than Amazon's).
    pub fn from_url(url: &str) -> Result<Self, ObjectError> {
        Self::open(url, AmazonS3Builder::from_env(), [])
    }

    /// As [`ObjectStore::from_url`], with these options (`aws_access_key_id`, `aws_endpoint`, …) in the environment's
    /// place.
    pub fn from_url_with<I>(url: &str, options: I) -> Result<Self, ObjectError>
    where
        I: IntoIterator<Item = (String, String)>,
    {
        Self::open(url, AmazonS3Builder::new(), options)
    }

    fn open(
        url: &str,
        mut builder: AmazonS3Builder,
        options: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ObjectError> {
        let invalid = |reason: String| ObjectError::InvalidUrl { reason };
        let expected = "expected file:///absolute/path or s3://bucket/prefix";
        let parsed = Url::parse(url).map_err(|error| invalid(format!("{error}; {expected}")))?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(invalid(
                "it carries credentials; give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                    .into(),
            ));
        }
        match parsed.scheme() {
            "file" => Self::open_local(&parsed).map_err(|reason| invalid(reason + "; " + expected)),
            "s3" => {
                for (key, value) in options {
                    let key = key
                        .to_ascii_lowercase()
                        .parse()
                        .map_err(|_| invalid(format!("{key:?} is not an option of S3 stores")))?;
                    builder = builder.with_config(key, value);
                }
                let bucket = parsed.host_str().unwrap_or_default();
                let backend = builder
                    .with_bucket_name(bucket)
                    .build()
                    .map_err(|error| invalid(error.to_string()))?;
                let prefix = parsed.path().trim_matches('/').to_owned();
                Ok(Self {
                    inner: Arc::new(Inner {
                        url: parsed.to_string(),
                        backend: Arc::new(backend),
                        local: None,
                        prefix,
                    }),
                })
            }
            other => Err(invalid(format!("unknown scheme {other:?}; {expected}"))),
        }
    }

    fn open_local(url: &Url) -> Result<Self, String> {
        let root = url
            .to_file_path()
            .map_err(|()| "it names no local folder".to_owned())?;
        let failed = |error: &dyn Display| format!("{}: {error}", root.display());
        std::fs::create_dir_all(&root).map_err(|error| failed(&error))?;
        let local = LocalFileSystem::new_with_prefix(&root).map_err(|error| failed(&error))?;
        let local = Arc::new(local);
        Ok(Self {
            inner: Arc::new(Inner {
                url: url.to_string(),
                backend: Arc::clone(&local) as Arc<dyn Backend>,
                local: Some(local),
                prefix: String::new(),
            }),
        })
    }

    /// The URL it was opened by. Never carries credentials.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// The file of a key, on a `file://` store.
    pub fn local_path(&self, key: &str) -> Option<PathBuf> {
        let local = self.inner.local.as_ref()?;
        local.path_to_filesystem(&self.path(key).ok()?).ok()
    }

    fn path(&self, key: &str) -> Result<StorePath, ObjectError> {
        let invalid = |reason: String| ObjectError::InvalidKey {
            key: key.to_owned(),
            reason,
        };
        if key.is_empty() || key.starts_with('/') || key.ends_with('/') {
            return Err(invalid("it must begin and end with a name".into()));
        }
        let full = if self.inner.prefix.is_empty() {
            key.to_owned()
        } else {
            format!("{}/{key}", self.inner.prefix)
        };
        StorePath::parse(full).map_err(|error| invalid(error.to_string()))
    }

    /// The local file of a key; `None` on other stores.
    fn file(&self, key: &str) -> Result<Option<PathBuf>, ObjectError> {
        let path = self.path(key)?;
        match &self.inner.local {
            None => Ok(None),
            Some(local) => match local.path_to_filesystem(&path) {
                Ok(file) => Ok(Some(file)),
                Err(error) => Err(ObjectError::store(key, error)),
            },
        }
    }

    /// Writes an object, in place of what may be there. Local files are durable when this returns.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        if let Some(file) = self.file(key)? {
            let written = async {
                let mut draft = Draft::create(&file).await?;
                draft.write(&bytes).await?;
                draft.publish().await
            };
            return written.await.map_err(|error| ObjectError::io(key, error));
        }
        let path = self.path(key)?;
        let put = self.inner.backend.put(&path, bytes.into()).await;
        put.map(drop)
            .map_err(|error| ObjectError::store(key, error))
    }

    /// Writes an object unless there is one; answers whether it did. Of several at once exactly one does.
    pub async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<bool, ObjectError> {
        if let Some(file) = self.file(key)? {
            let written = async {
                let mut draft = Draft::create(&file).await?;
                draft.write(&bytes).await?;
                draft.publish_if_absent().await
            };
            return written.await.map_err(|error| ObjectError::io(key, error));
        }
        let options = PutOptions::from(PutMode::Create);
        let payload = PutPayload::from(bytes);
        match self
            .inner
            .backend
            .put_opts(&self.path(key)?, payload, options)
            .await
        {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(ObjectError::store(key, error)),
        }
    }

    /// Reads a whole object of at most [`MAX_GET_BYTES`].
    pub async fn get(&self, key: &str) -> Result<Bytes, ObjectError> {
        let found = self
            .inner
            .backend
            .get(&self.path(key)?)
            .await
            .map_err(|error| ObjectError::store(key, error))?;
        if found.meta.size > MAX_GET_BYTES {
            return Err(ObjectError::TooLarge {
                key: key.to_owned(),
                size: found.meta.size,
                max: MAX_GET_BYTES,
            });
        }
        found
            .bytes()
            .await
            .map_err(|error| ObjectError::store(key, error))
    }

    /// Reads the bytes of a range, as far as the object has them. Holds the whole range in memory.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        let size = match self.head(key).await? {
            Some(meta) => meta.size,
            None => {
                return Err(ObjectError::NotFound {
                    key: key.to_owned(),
                });
            }
        };
        // Stores disagree on ranges beyond the end.
        let range = range.start..range.end.min(size);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let read = async {
            let found = self
                .inner
                .backend
                .get_opts(&self.path(key)?, options)
                .await
                .map_err(|error| ObjectError::store(key, error))?;
            found
                .bytes()
                .await
                .map_err(|error| ObjectError::store(key, error))
        };
        read.await
    }

    /// Size and age of an object, or `None`.
    pub async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, ObjectError> {
        match self.inner.backend.head(&self.path(key)?).await {
            Ok(meta) => Ok(Some(self.meta(meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(ObjectError::store(key, error)),
        }
    }

    /// Writes an object from a stream in constant memory; answers its size. If the stream fails, nothing appears.
    pub async fn stream_put<S, E>(&self, key: &str, data: S) -> Result<u64, ObjectError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Display + Send,
    {
        let mut data = pin!(data);
        let mut size = 0;
        if let Some(file) = self.file(key)? {
            let io = |error: std::io::Error| ObjectError::io(key, error);
            let mut draft = Draft::create(&file).await.map_err(io)?;
            while let Some(piece) = data.next().await {
                let piece = piece.map_err(|error| ObjectError::io(key, error))?;
                size += piece.len() as u64;
                draft.write(&piece).await.map_err(io)?;
            }
            draft.publish().await.map_err(io)?;
            return Ok(size);
        }
        let store = |error| ObjectError::store(key, error);
        let upload = self
            .inner
            .backend
            .put_multipart(&self.path(key)?)
            .await
            .map_err(store)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let sent = async {
            while let Some(piece) = data.next().await {
                let piece = piece.map_err(|error| ObjectError::io(key, error))?;
                size += piece.len() as u64;
                upload
                    .wait_for_capacity(PARTS_AT_ONCE)
                    .await
                    .map_err(store)?;
                upload.put(piece);
            }
            Ok(size)
        };
        match sent.await {
            Ok(size) => {
                upload.finish().await.map_err(store)?;
                Ok(size)
            }
            Err(error) => {
                // Parts of an upload that never ends are paid for; the first error is the one to report.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    /// Reads an object piece by piece.
    pub async fn stream_get(&self, key: &str) -> Result<ByteStream, ObjectError> {
        let found = self
            .inner
            .backend
            .get(&self.path(key)?)
            .await
            .map_err(|error| ObjectError::store(key, error))?;
        let key = key.to_owned();
        Ok(found
            .into_stream()
            .map_err(move |error| ObjectError::store(&key, error))
            .boxed())
    }

    /// Lists the objects under a prefix of whole path segments (`logs/dag_id=a`; not `logs/dag_id=`), in no order.
    /// An empty prefix lists all.
    pub fn list(&self, prefix: &str) -> MetaStream {
        let wanted = prefix.trim_matches('/');
        let path = if wanted.is_empty() && self.inner.prefix.is_empty() {
            None
        } else if wanted.is_empty() {
            Some(StorePath::from(self.inner.prefix.as_str()))
        } else {
            match self.path(wanted) {
                Ok(path) => Some(path),
                Err(error) => return futures::stream::once(async { Err(error) }).boxed(),
            }
        };
        let (store, prefix) = (self.clone(), prefix.to_owned());
        self.inner
            .backend
            .list(path.as_ref())
            .map(move |found| match found {
                Ok(meta) => Ok(store.meta(meta)),
                Err(error) => Err(ObjectError::store(&prefix, error)),
            })
            .boxed()
    }

    /// Deletes an object. That it is not there is fine.
    pub async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        match self.inner.backend.delete(&self.path(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(ObjectError::store(key, error)),
        }
    }

    /// Deletes all objects under a prefix of whole path segments; answers how many. Refuses the empty prefix.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<u64, ObjectError> {
        self.path(prefix)?;
        let mut deleted = 0;
        let mut found = self.list(prefix);
        while let Some(meta) = found.try_next().await? {
            self.delete(&meta.key).await?;
            deleted += 1;
        }
        if let Some(folder) = self.file(prefix)? {
            // Folders are no objects, but thousands of empty ones are no help either. Whoever writes into one meanwhile
            // makes it again, or fails and repeats.
            let _ = tokio::task::spawn_blocking(move || remove_empty(&folder)).await;
        }
        Ok(deleted)
    }

    fn meta(&self, meta: object_store::ObjectMeta) -> ObjectMeta {
        let full = meta.location.to_string();
        let key = match full.strip_prefix(&self.inner.prefix) {
            Some(rest) => rest.trim_start_matches('/').to_owned(),
            None => full,
        };
        ObjectMeta {
            key,
            size: meta.size,
            last_modified: meta.last_modified,
        }
    }
}

/// Removes a tree of folders as far as it holds no file.
fn remove_empty(folder: &std::path::Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    // Fails on a folder that is not empty, as it should.
    let _ = std::fs::remove_dir(folder);
}
