//! What changed from one version of a DAG to another.

use super::{dags::numbered, lookup};
use crate::{
    auth::Viewer,
    error::ApiError,
    extract::{At, Query},
    parts::App,
};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use similar::TextDiff;

/// Lines around a change.
const AROUND: usize = 3;

/// A unified diff of two versions' files: from `from`, the version before unless it is given, to the one in the path.
pub(super) async fn diff(
    _: Viewer,
    State(app): State<App>,
    At((dag_id, number)): At<(String, i32)>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    lookup::dag(&app, &dag_id).await?;
    let from = query.parse("from")?.unwrap_or(number - 1);
    let to = numbered(&app, &dag_id, number).await?;
    // The first version is all new.
    let old = match from {
        0 => None,
        from => Some(numbered(&app, &dag_id, from).await?),
    };
    let (source, bundle) = match &old {
        Some(old) => (old.source.as_str(), old.bundle.as_deref()),
        None => ("", None),
    };
    let names = [from, number].map(|number| format!("{dag_id} version {number}"));
    let text = TextDiff::from_lines(source, &to.source)
        .unified_diff()
        .context_radius(AROUND)
        .header(&names[0], &names[1])
        .to_string();
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if accept.starts_with("text/plain") {
        return Ok(text.into_response());
    }
    Ok(Json(json!({
        "dag_id": dag_id,
        "from": from,
        "to": number,
        "diff": text,
        // Files beside the DAG file may have changed alone.
        "bundle_changed": bundle != to.bundle.as_deref(),
    }))
    .into_response())
}
