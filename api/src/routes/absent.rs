//! Operations of Airflow's API that have no counterpart here: each says so, and what there is instead.

use crate::{auth::Viewer, error::ApiError, parts::App};
use axum::extract::State;

macro_rules! absent {
    ($($(#[$doc:meta])* $name:ident => $why:literal,)*) => {$(
        $(#[$doc])*
        pub(super) async fn $name(_: Viewer, State(_): State<App>) -> ApiError {
            ApiError::NotYet($why.to_owned())
        }
    )*};
}

absent! {
    /// `…/state-store` of assets.
    asset_state_store => "there is no state store of assets: keep what an asset's tasks remember in their XComs, or in the extra of its events",
    /// `…/state-store` of task instances.
    task_state_store => "there is no state store of tasks: keep what a task remembers in its XComs",
    /// `…/clearPartitions`.
    partitions => "there are no partitioned runs",
    /// `DELETE …/taskInstances/{task_id}`.
    delete_task_instance => "a task instance is part of its run and goes with it: delete the run, or clear the instance to run it anew",
    /// `…/externalLogUrl`.
    external_log_url => "logs are kept by this deployment: read them from …/logs/{try_number}",
    /// `PUT /parseDagFile/{file_token}`.
    parse_dag_file => "files are not parsed in the background: deploy them (POST /api/v2/dags/deploy), or let a watched folder do it",
}

/// Browsers sign in at the UI, programs with `POST /auth/token`: neither has a token yet.
pub(super) async fn login() -> ApiError {
    ApiError::NotYet("there is no page to sign in at: POST /auth/token gives a token".to_owned())
}
