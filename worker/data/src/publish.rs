//! The commit protocol: from staged files to a published folder, once, whatever crashes.
//!
//! The first attempt that has staged a whole result writes a record of it into the sink's folder with put-if-absent:
//! which staged file gets which name, and which older files go. From then on every attempt, late ones of an earlier
//! fence included, only carries out that record, and each of its steps can be repeated. A second record says that all
//! of it is done; after that an attempt does nothing at all, even if another run has replaced the data since.

use object_store::ObjectStoreExt as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::log;
use crate::request::{Column, Metrics};
use crate::sink::StagedFile;
use crate::spec::{Sink, SinkMode};
use crate::store::{Location, Stores};

/// The folder of records inside the sink's. Hidden, as its name begins with an underscore.
const RECORDS: &str = "_gristmill";
/// Says that the folder holds a whole result, and which.
const MARKER: &str = "_SUCCESS";
/// How long a record keeps a late attempt of its run from publishing again.
const KEEP_RECORDS: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);

/// What is published, by whichever attempt carries it out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Staged files and the names they get.
    pub files: Vec<PublishedFile>,
    /// Names of older files to remove.
    pub remove: Vec<String>,
    /// Rows in all files.
    pub rows: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// The first rows.
    pub preview: Vec<Value>,
    /// Columns.
    pub schema: Vec<Column>,
    /// What computing it cost.
    pub metrics: Metrics,
}

/// A staged file and its final name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PublishedFile {
    /// Where it is staged.
    pub from: StagedFile,
    /// Its name in the sink's folder.
    pub name: String,
}

/// The content of `_SUCCESS`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Marker {
    /// The run that published last.
    pub run_key: String,
    /// Names of its files.
    pub files: Vec<String>,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// A result of a computation that is staged but not yet recorded.
#[derive(Debug)]
pub struct Staged {
    /// Its files, in order.
    pub files: Vec<StagedFile>,
    /// The first rows.
    pub preview: Vec<Value>,
    /// Columns.
    pub schema: Vec<Column>,
    /// What computing it cost.
    pub metrics: Metrics,
}

/// One run's publication in one sink folder.
#[derive(Debug)]
pub struct Publication<'a> {
    stores: &'a Stores,
    sink: &'a Sink,
    folder: Location,
    run_key: &'a str,
    /// Run and plan: a task that was cleared and planned anew publishes anew, in place of its earlier files.
    key: String,
}

impl<'a> Publication<'a> {
    /// The publication of the plan `plan_id` of the run `run_key`.
    pub fn new(
        stores: &'a Stores,
        sink: &'a Sink,
        run_key: &'a str,
        plan_id: &str,
    ) -> Result<Self> {
        let short = plan_id.get(..8).unwrap_or(plan_id);
        Ok(Self {
            stores,
            sink,
            folder: Location::parse(&sink.path)?,
            run_key,
            key: format!("{run_key}-{short}"),
        })
    }

    /// URL of a file in the sink's folder.
    pub fn url(&self, name: &str) -> String {
        self.folder.join(name).to_string()
    }

    /// What an earlier attempt decided, if one got so far.
    pub async fn recorded(&self) -> Result<Option<Record>> {
        self.stores.read_json(&self.record_at()).await
    }

    /// Fails if the sink refuses data beside what is there.
    pub async fn check_mode(&self) -> Result<()> {
        if self.sink.mode != SinkMode::ErrorIfExists {
            return Ok(());
        }
        let names = self.data_files().await?;
        match names.iter().find(|name| !self.is_of_this_run(name)) {
            Some(name) => Err(Error::new(
                ErrorKind::SinkExists,
                format!(
                    "sink: {} holds {name} already and mode is error_if_exists; remove it or use overwrite or append",
                    self.folder
                ),
            )),
            None => Ok(()),
        }
    }

    /// Decides what is published: this staged result, or that of another attempt that was first.
    pub async fn record(&self, staged: Staged) -> Result<Record> {
        let files: Vec<PublishedFile> = staged
            .files
            .into_iter()
            .enumerate()
            .map(|(i, from)| PublishedFile {
                from,
                name: format!("part-{i:05}-{}.{}", self.key, self.sink.format.extension()),
            })
            .collect();
        let mut remove = self.data_files().await?;
        remove.retain(|name| {
            let replaced = self.sink.mode == SinkMode::Overwrite || self.is_of_this_run(name);
            replaced && files.iter().all(|file| file.name != *name)
        });
        let record = Record {
            rows: files.iter().map(|f| f.from.rows).sum(),
            bytes: files.iter().map(|f| f.from.bytes).sum(),
            files,
            remove,
            preview: staged.preview,
            schema: staged.schema,
            metrics: staged.metrics,
        };
        if self.stores.create_json(&self.record_at(), &record).await? {
            return Ok(record);
        }
        log::warn("another attempt recorded its result first; publishing that one");
        self.recorded().await?.ok_or_else(|| {
            Error::new(
                ErrorKind::Store,
                format!("{} came and went", self.record_at()),
            )
        })
    }

    /// Carries out `record`. May be repeated, and go on where another attempt stopped.
    pub async fn carry_out(&self, record: &Record) -> Result<()> {
        if self.stores.size(&self.done_at()).await?.is_some() {
            log::info("already published");
            return Ok(());
        }
        for file in &record.files {
            self.publish(file).await?;
            fault::point("commit.publishing");
        }
        fault::point("commit.published");
        for name in &record.remove {
            self.stores.remove(&self.folder.join(name)).await?;
            fault::point("commit.removing");
        }
        fault::point("commit.removed");
        let marker = Marker {
            run_key: self.run_key.to_owned(),
            files: record.files.iter().map(|f| f.name.clone()).collect(),
            rows: record.rows,
            bytes: record.bytes,
        };
        self.stores
            .write_json(&self.folder.join(MARKER), &marker)
            .await?;
        fault::point("commit.marked");
        self.stores.create_json(&self.done_at(), &marker).await?;
        self.remove_old_records().await?;
        fault::point("commit.done");
        log::info(format_args!(
            "published {} files, removed {} in {}",
            record.files.len(),
            record.remove.len(),
            self.folder
        ));
        Ok(())
    }

    async fn publish(&self, file: &PublishedFile) -> Result<()> {
        let to = self.folder.join(&file.name);
        // Files appear whole, so one of the right size is the one.
        if self.stores.size(&to).await? == Some(file.from.bytes) {
            return Ok(());
        }
        let from = Location::parse(&file.from.url)?;
        if self.stores.size(&from).await?.is_none() {
            return Err(Error::new(
                ErrorKind::InputLost,
                format!("{from} was staged by an earlier attempt but is gone; clear the plan task"),
            ));
        }
        let copied = self.stores.copy(&from, &to).await;
        copied.map_err(|e| e.context(format_args!("publishing {from} as {to}")))
    }

    fn record_at(&self) -> Location {
        self.folder
            .join(RECORDS)
            .join(&format!("{}.json", self.key))
    }

    fn done_at(&self) -> Location {
        self.folder
            .join(RECORDS)
            .join(&format!("{}.done.json", self.key))
    }

    /// Whether `name` is one that this run, under any plan, gives to its files.
    fn is_of_this_run(&self, name: &str) -> bool {
        let parts = || {
            let stem = name.rsplit_once('.')?.0.strip_prefix("part-")?;
            let (_, key) = stem.split_once('-')?;
            Some(key.rsplit_once('-')?.0)
        };
        parts() == Some(self.run_key)
    }

    /// Names of the Parquet and CSV files directly in the folder. Nothing else is ever removed.
    async fn data_files(&self) -> Result<Vec<String>> {
        let store = self.stores.open(&self.folder)?;
        let listed = store
            .list_with_delimiter(Some(&self.folder.path()?))
            .await?;
        let mut names: Vec<String> = listed
            .objects
            .iter()
            .filter_map(|meta| meta.location.filename())
            .filter(|name| !name.starts_with(['.', '_']))
            .filter(|name| name.ends_with(".parquet") || name.ends_with(".csv"))
            .map(str::to_owned)
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    async fn remove_old_records(&self) -> Result<()> {
        let store = self.stores.open(&self.folder)?;
        let records = self.folder.join(RECORDS).path()?;
        let now = std::time::SystemTime::now();
        for meta in store.list_with_delimiter(Some(&records)).await?.objects {
            let age = now
                .duration_since(meta.last_modified.into())
                .unwrap_or_default();
            if age > KEEP_RECORDS {
                match store.delete(&meta.location).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}
