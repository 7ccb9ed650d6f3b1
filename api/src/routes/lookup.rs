//! Finding what a path names, or 404 in Airflow's words.

use crate::{error::ApiError, parts::App};
use gristmill_common::{
    ids::{RunPk, UNMAPPED},
    row::{RunRow, TiRow},
};
use gristmill_store::{DagRow, StoreError, VersionRow};
use serde::Deserialize;
use std::{collections::HashMap, sync::Arc};

/// Stands for all DAGs or all runs where a listing allows it.
pub(super) const ALL: &str = "~";

pub(super) async fn dag(app: &App, dag_id: &str) -> Result<DagRow, ApiError> {
    app.store
        .dag(dag_id)
        .await?
        .ok_or_else(|| ApiError::no_dag(dag_id))
}

pub(super) async fn run(app: &App, dag_id: &str, run_id: &str) -> Result<RunRow, ApiError> {
    app.store
        .run(dag_id, run_id)
        .await?
        .ok_or_else(|| ApiError::no_run(dag_id, run_id))
}

pub(super) async fn version(app: &App, run: &RunRow) -> Result<Arc<VersionRow>, ApiError> {
    app.versions.get(&*app.store, run.version).await
}

/// The path of a task instance.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TiPath {
    pub(super) dag_id: String,
    pub(super) dag_run_id: String,
    pub(super) task_id: String,
    #[serde(default = "unmapped")]
    pub(super) map_index: i32,
}

pub(super) fn unmapped() -> i32 {
    UNMAPPED
}

impl TiPath {
    pub(super) fn not_found(&self) -> ApiError {
        let TiPath {
            dag_id,
            dag_run_id,
            task_id,
            map_index,
        } = self;
        let mapped = if *map_index == UNMAPPED {
            String::new()
        } else {
            format!(", map_index: `{map_index}`")
        };
        ApiError::NotFound(format!(
            "The Task Instance with dag_id: `{dag_id}`, run_id: `{dag_run_id}` and task_id: `{task_id}`{mapped} was not found"
        ))
    }

    pub(super) async fn run(&self, app: &App) -> Result<RunRow, ApiError> {
        run(app, &self.dag_id, &self.dag_run_id).await
    }

    /// The instance, with its run.
    pub(super) async fn find(&self, app: &App) -> Result<(RunRow, TiRow), ApiError> {
        let run = self.run(app).await?;
        let row = app
            .store
            .task_instance(run.pk, &self.task_id, self.map_index)
            .await?
            .filter(TiRow::is_visible)
            .ok_or_else(|| self.not_found())?;
        Ok((run, row))
    }
}

/// Runs by key, each asked for once per request.
#[derive(Debug, Default)]
pub(super) struct Runs(HashMap<RunPk, Arc<RunRow>>);

impl Runs {
    pub(super) fn with(run: RunRow) -> Self {
        Self(HashMap::from([(run.pk, Arc::new(run))]))
    }

    pub(super) async fn get(&mut self, app: &App, pk: RunPk) -> Result<Arc<RunRow>, ApiError> {
        if let Some(run) = self.0.get(&pk) {
            return Ok(run.clone());
        }
        let run = app
            .store
            .run_by_pk(pk)
            .await?
            .ok_or_else(|| StoreError::NotFound {
                what: "run",
                name: pk.to_string(),
            })?;
        let run = Arc::new(run);
        self.0.insert(pk, run.clone());
        Ok(run)
    }
}
