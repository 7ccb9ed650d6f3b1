//! Watches a folder of DAG files and deploys it whenever something in it has really changed.

use gristmill_api::{DeployMode, deploy_dir};
use gristmill_objects::ObjectStore;
use gristmill_store::Store;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

const EVERY: Duration = Duration::from_secs(2);
/// The folder's name in the store: DAGs that are gone from it become stale.
const PREFIX: &str = "dags/";
/// A folder with more files than this is no folder of DAGs.
const MOST_FILES: usize = 20_000;

/// Deploys `folder` now and whenever it changes, in the background.
pub(super) fn watch(folder: Option<PathBuf>, store: Arc<dyn Store>, objects: ObjectStore) {
    let Some(folder) = folder else { return };
    tokio::spawn(async move {
        let mut seen = None;
        loop {
            let looked = {
                let folder = folder.clone();
                tokio::task::spawn_blocking(move || look(&folder)).await
            };
            match looked {
                Ok(Ok(now)) if seen.as_ref() != Some(&now) => {
                    if deploy(&folder, &*store, &objects).await {
                        seen = Some(now);
                    }
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(folder = %folder.display(), %error, "cannot read the DAG folder")
                }
                Err(error) => tracing::error!(%error, "looking at the DAG folder failed"),
            }
            tokio::time::sleep(EVERY).await;
        }
    });
}

/// Deploys a folder once and logs what came of it; `false` when it has to be tried again.
pub(super) async fn deploy(folder: &Path, store: &dyn Store, objects: &ObjectStore) -> bool {
    match deploy_dir(store, objects, folder, PREFIX, DeployMode::Deploy).await {
        Ok(report) => {
            for dag in report.deployed.iter().filter(|dag| dag.is_new) {
                tracing::info!(
                    dag_id = dag.dag_id,
                    version = dag.version_number,
                    file = dag.fileloc,
                    "deployed"
                );
            }
            for error in &report.errors {
                tracing::error!("{error}");
            }
            true
        }
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "cannot deploy the DAG folder now");
            false
        }
    }
}

type Look = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

/// Sizes and times of the folder's files; hidden ones are left out.
fn look(folder: &Path) -> std::io::Result<Look> {
    let mut files = Look::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            // A file that has just gone is seen as gone with the next look.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                folders.push(entry.path());
            } else if files.len() < MOST_FILES {
                files.insert(entry.path(), (meta.len(), meta.modified().ok()));
            }
        }
    }
    Ok(files)
}
