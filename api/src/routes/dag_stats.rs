//! `/api/v2/dagStats`: runs by state.

use crate::{auth::Viewer, error::ApiError, extract::Query, parts::App};
use axum::{Json, extract::State};
use gristmill_common::state::RunState;
use gristmill_store::RunFilter;
use serde_json::{Value, json};

/// DAGs of one answer unless they are named.
const MOST: i64 = 100;

pub(super) async fn stats(
    _: Viewer,
    State(app): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let mut names = query.all("dag_ids");
    if names.is_empty() {
        let page = app.store.dags(None, false, MOST, 0).await?;
        names = page.rows.into_iter().map(|dag| dag.dag_id).collect();
    }
    names.truncate(MOST as usize);
    let mut dags = Vec::with_capacity(names.len());
    for dag_id in names {
        let mut stats = Vec::new();
        for state in RunState::ALL {
            let filter = RunFilter {
                dag_id: Some(dag_id.clone()),
                states: vec![state.to_string()],
                ..RunFilter::default()
            };
            let count = app.store.runs(&filter).await?.total;
            stats.push(json!({ "state": state, "count": count }));
        }
        dags.push(json!({ "dag_id": dag_id, "dag_display_name": dag_id, "stats": stats }));
    }
    Ok(Json(json!({ "total_entries": dags.len(), "dags": dags })))
}
