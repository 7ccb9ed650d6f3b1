//! Deploying DAG files: of a folder, whose files become the bundle of its DAGs, or one alone.
//!
//! One bad file never hides the good ones: each file is read by itself, and what is wrong is told with its place.

use gristmill_common::{
    dagfile::{self, Diagnostic, Parsed, Severity},
    spec::DagSpec,
};
use gristmill_objects::{
    ObjectError, ObjectStore,
    bundle::{BundleError, Packed, pack},
};
use gristmill_store::{NewDagVersion, Store, StoreError};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// Whether to deploy, or only to say what would come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeployMode {
    Deploy,
    DryRun,
}

/// What came of a deployment.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct DeployReport {
    pub deployed: Vec<DeployedDag>,
    /// What is wrong with the other files.
    pub errors: Vec<Diagnostic>,
}

/// A DAG whose file was right.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeployedDag {
    pub dag_id: String,
    /// 0 in a dry run.
    pub version_number: i32,
    /// The version was not there before.
    pub is_new: bool,
    pub fileloc: String,
    pub warnings: Vec<Diagnostic>,
}

/// A folder could not be deployed at all. What was deployed before the failure stays deployed; deploy it again.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A DAG file as it was read.
struct Source {
    fileloc: String,
    text: String,
    parsed: Result<Parsed, Vec<Diagnostic>>,
}

/// Deploys every DAG file of a folder and its subfolders; the folder's files are their bundle.
///
/// `prefix` (`"dags/"`) names the folder: it begins the `fileloc` of its DAGs. The import errors of its files are
/// recorded, and DAGs of it whose file is gone are marked stale; a DAG whose file is bad now stays as it was. With the
/// prefix `""` nothing is recorded and nothing becomes stale: the folder need not hold all DAGs there are.
pub async fn deploy_dir(
    store: &dyn Store,
    objects: &ObjectStore,
    dir: &Path,
    prefix: &str,
    mode: DeployMode,
) -> Result<DeployReport, DeployError> {
    let (folder, name) = (dir.to_owned(), prefix.to_owned());
    let read = tokio::task::spawn_blocking(move || {
        // Packing comes first: it refuses links that lead out of the folder, which are therefore never read.
        let packed = pack(&folder)?;
        Ok::<_, DeployError>((packed, read_folder(&folder, &name)?))
    });
    let (packed, sources) = match read.await {
        Ok(read) => read?,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    let bundle = packed.digest.to_string();
    if mode == DeployMode::Deploy && sources.iter().any(|source| source.parsed.is_ok()) {
        upload(objects, packed).await?;
    }
    let report = deploy(store, sources, Some(&bundle), mode).await?;
    if mode == DeployMode::Deploy && !prefix.is_empty() {
        record(store, prefix, &report).await?;
    }
    Ok(report)
}

/// Deploys one file without a bundle.
pub(crate) async fn deploy_file(
    store: &dyn Store,
    file_name: &str,
    bytes: &[u8],
    mode: DeployMode,
) -> Result<DeployReport, DeployError> {
    let source = Source {
        fileloc: file_name.to_owned(),
        text: String::from_utf8_lossy(bytes).into_owned(),
        parsed: dagfile::parse_bytes(file_name, bytes),
    };
    deploy(store, vec![source], None, mode).await
}

async fn upload(objects: &ObjectStore, packed: Packed) -> Result<(), ObjectError> {
    let key = packed.digest.key();
    // The usual deployment changes nothing: do not send megabytes to learn that.
    if objects.head(&key).await?.is_none() {
        objects.put_if_absent(&key, packed.archive).await?;
    }
    Ok(())
}

async fn deploy(
    store: &dyn Store,
    sources: Vec<Source>,
    bundle: Option<&str>,
    mode: DeployMode,
) -> Result<DeployReport, DeployError> {
    let mut report = DeployReport::default();
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let pools: BTreeSet<String> = store
        .pools()
        .await?
        .into_iter()
        .map(|pool| pool.name)
        .collect();
    for source in sources {
        let Source {
            fileloc,
            text,
            parsed,
        } = source;
        let Parsed { spec, mut warnings } = match parsed {
            Ok(parsed) => parsed,
            Err(errors) => {
                report.errors.extend(errors);
                continue;
            }
        };
        if let Some(other) = files.get(&spec.dag_id) {
            let message = format!(
                "the DAG {:?} is in {other} already; a dag_id is of one file only",
                spec.dag_id
            );
            report.errors.push(error(&fileloc, "dag_id", message));
            continue;
        }
        files.insert(spec.dag_id.clone(), fileloc.clone());
        warnings.extend(missing_pools(&spec, &pools, &fileloc));
        let mut deployed = DeployedDag {
            dag_id: spec.dag_id.clone(),
            version_number: 0,
            is_new: false,
            fileloc: fileloc.clone(),
            warnings,
        };
        if mode == DeployMode::Deploy {
            let new = NewDagVersion {
                spec_hash: dagfile::spec_hash(&spec),
                schedule: spec.schedule.text(),
                source: text,
                fileloc: fileloc.clone(),
                bundle: bundle.map(str::to_owned),
                spec,
            };
            match store.deploy(&new).await {
                Ok((version, is_new)) => {
                    deployed.version_number = version.version_number;
                    deployed.is_new = is_new;
                }
                Err(StoreError::Refused(message)) => {
                    report.errors.push(error(&fileloc, "", message));
                    continue;
                }
                Err(other) => return Err(other.into()),
            }
        }
        report.deployed.push(deployed);
    }
    Ok(report)
}

/// A pool that does not exist is no error, since it may be made later; until then its tasks wait.
fn missing_pools(spec: &DagSpec, pools: &BTreeSet<String>, fileloc: &str) -> Vec<Diagnostic> {
    let mut waiting: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for task in spec.tasks.iter().filter(|task| !pools.contains(&task.pool)) {
        waiting.entry(&task.pool).or_default().push(&task.task_id);
    }
    let warning = |(pool, tasks): (&str, Vec<&str>)| {
        let others = match tasks.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!(
            "the pool {pool:?} does not exist: {}{others} will wait until it does (gristmill pools set {pool} SLOTS)",
            tasks[0]
        );
        Diagnostic {
            severity: Severity::Warning,
            ..error(fileloc, &format!("tasks.{}.pool", tasks[0]), message)
        }
    };
    waiting.into_iter().map(warning).collect()
}

/// Import errors and DAGs that are gone.
async fn record(store: &dyn Store, prefix: &str, report: &DeployReport) -> Result<(), StoreError> {
    let mut errors: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for diagnostic in report
        .errors
        .iter()
        .filter(|d| d.severity == Severity::Error)
    {
        errors
            .entry(&diagnostic.file)
            .or_default()
            .push(diagnostic.to_string());
    }
    let rows: Vec<(String, String)> = errors
        .iter()
        .map(|(file, lines)| ((*file).to_owned(), lines.join("\n")))
        .collect();
    store.put_import_errors(prefix, &rows).await?;
    let mut keep: BTreeSet<String> = report
        .deployed
        .iter()
        .map(|dag| dag.dag_id.clone())
        .collect();
    if !errors.is_empty() {
        keep.extend(dags_of_files(store, &errors.keys().copied().collect()).await?);
    }
    let gone = store
        .mark_stale(prefix, &keep.into_iter().collect::<Vec<_>>())
        .await?;
    if gone > 0 {
        tracing::info!(gone, prefix, "DAGs whose files are gone are stale now");
    }
    Ok(())
}

/// The DAGs that came from these files when they still were good.
async fn dags_of_files(
    store: &dyn Store,
    files: &BTreeSet<&str>,
) -> Result<Vec<String>, StoreError> {
    const PAGE: i64 = 500;
    let mut found = Vec::new();
    for offset in (0..).step_by(500) {
        let page = store.dags(None, false, PAGE, offset).await?;
        let last = page.rows.len() < 500;
        found.extend(
            page.rows
                .into_iter()
                .filter(|dag| files.contains(dag.fileloc.as_str()))
                .map(|dag| dag.dag_id),
        );
        if last {
            break;
        }
    }
    Ok(found)
}

/// The DAG files of a folder, by path.
fn read_folder(dir: &Path, prefix: &str) -> Result<Vec<Source>, DeployError> {
    let io = |path: &Path| {
        let path = path.display().to_string();
        move |source| DeployError::Io { path, source }
    };
    let mut sources = Vec::new();
    let mut folders: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(io(&folder))? {
            let path = entry.map_err(io(&folder))?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.starts_with('.') {
                continue;
            }
            // A link to a folder is not followed: it could be a circle.
            let kind = fs::symlink_metadata(&path).map_err(io(&path))?.file_type();
            if kind.is_dir() {
                folders.push(path);
            } else if dagfile::is_dag_file_name(&name) && path.is_file() {
                let within = path
                    .strip_prefix(dir)
                    .unwrap_or(&path)
                    .to_string_lossy()
                    .into_owned();
                let fileloc = format!("{prefix}{within}");
                // A file just over the limit is enough to be told so.
                let bytes =
                    read_at_most(&path, dagfile::MAX_FILE_BYTES as u64 + 1).map_err(io(&path))?;
                let folder = FolderOnDisk(dir.to_owned());
                let within = within.replace(std::path::MAIN_SEPARATOR, "/");
                sources.push(Source {
                    parsed: dagfile::parse_in(&folder, &within, &fileloc, &bytes),
                    text: String::from_utf8_lossy(&bytes).into_owned(),
                    fileloc,
                });
            }
        }
    }
    sources.sort_by(|a, b| a.fileloc.cmp(&b.fileloc));
    Ok(sources)
}

/// A folder of DAG files, for those that compose others of it in.
#[derive(Debug, Clone)]
pub struct FolderOnDisk(pub PathBuf);

impl dagfile::Folder for FolderOnDisk {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        let file = self.0.join(path);
        read_at_most(&file, dagfile::MAX_FILE_BYTES as u64 + 1).map_err(|error| {
            match error.kind() {
                io::ErrorKind::NotFound => "there is no such file".to_owned(),
                _ => error.to_string(),
            }
        })
    }
}

fn read_at_most(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn error(file: &str, path: &str, message: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        file: file.to_owned(),
        line: None,
        column: None,
        path: path.to_owned(),
        message,
        expected: None,
        suggestion: None,
    }
}
