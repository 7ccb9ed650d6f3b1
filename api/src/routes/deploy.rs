//! `POST /api/v2/dags/deploy`.

use crate::{
    auth::{About, Op},
    deploy::{DeployError, DeployMode, DeployReport, deploy_dir, deploy_file},
    error::ApiError,
    extract::{At, Query, raw_body},
    parts::App,
    upload,
};
use axum::{
    Json,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use gristmill_common::dagfile::{MAX_FILE_BYTES, Severity};
use serde_json::json;

pub(super) async fn deploy(
    Op(caller): Op,
    State(app): State<App>,
    At(word): At<String>,
    query: Query,
    request: Request,
) -> Result<Response, ApiError> {
    if word != "deploy" {
        return Err(ApiError::NotFound("Not Found".to_owned()));
    }
    // The path's word is no DAG: a token for one DAG may not deploy others.
    if caller.dag_id.is_some() {
        return Err(ApiError::Forbidden);
    }
    let mode = match query.flag("dry_run")? {
        Some(true) => DeployMode::DryRun,
        _ => DeployMode::Deploy,
    };
    let kind = content_type(&request);
    let folder = query
        .text("folder")
        .map(|name| format!("{}/", name.trim_end_matches('/')));
    let file_name = query.text("file_name").map(str::to_owned);
    let body = raw_body(request, &app).await?;
    let report = match kind.as_str() {
        "application/zstd" | "application/x-zstd" => {
            let dir = upload::unpack(body).await?;
            let prefix = folder.unwrap_or_default();
            deploy_dir(&*app.store, &app.objects, dir.path(), &prefix, mode).await
        }
        "application/yaml" | "application/x-yaml" | "text/yaml" | "application/json" => {
            if body.len() > MAX_FILE_BYTES {
                return Err(ApiError::TooLarge(format!(
                    "the file has {} bytes; a DAG file has at most {MAX_FILE_BYTES}",
                    body.len()
                )));
            }
            let name = file_name.unwrap_or_else(|| {
                if kind.ends_with("json") { "dag.json" } else { "dag.yaml" }.to_owned()
            });
            deploy_file(&*app.store, &name, &body, mode).await
        }
        other => {
            return Err(ApiError::UnsupportedMedia(format!(
                "the content type is {other:?}; send application/zstd (a tar.zst of a folder), application/yaml or application/json (one file)"
            )));
        }
    }
    .map_err(refused)?;
    if mode == DeployMode::Deploy {
        for dag in report.deployed.iter().filter(|dag| dag.is_new) {
            let extra = json!({ "version_number": dag.version_number, "fileloc": dag.fileloc });
            caller
                .audit(&*app.store, "deploy_dag", About::dag(&dag.dag_id), extra)
                .await;
        }
    }
    Ok(answer(&report))
}

fn content_type(request: &Request) -> String {
    let value = request.headers().get(header::CONTENT_TYPE);
    let text = value.and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

fn refused(error: DeployError) -> ApiError {
    match error {
        DeployError::Store(error) => error.into(),
        DeployError::Objects(error) => error.into(),
        DeployError::Bundle(gristmill_objects::bundle::BundleError::Store(error)) => error.into(),
        DeployError::Bundle(error) => ApiError::BadRequest(error.to_string()),
        DeployError::Io { .. } => ApiError::Internal(error.to_string()),
    }
}

fn answer(report: &DeployReport) -> Response {
    let bad = report.errors.iter().any(|d| d.severity == Severity::Error);
    let mut body = json!(report);
    if !report.deployed.is_empty() || !bad {
        return Json(body).into_response();
    }
    body["detail"] = match report.errors.as_slice() {
        [one] => one.to_string().into(),
        many => format!("{} problems, the first: {}", many.len(), many[0]).into(),
    };
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}
