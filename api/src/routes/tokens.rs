//! Signing in (`POST /auth/token`), and API tokens for programs (`/api/v2/tokens`).

use crate::{
    auth::{About, Admin, Role, check_password, issue_token, open_session},
    error::{ApiError, FieldError},
    extract::{At, Body, parse_json, raw_body},
    parts::App,
    view,
};
use axum::{
    Json,
    extract::{Request, State},
    http::{StatusCode, header},
};
use chrono::TimeDelta;
use gristmill_common::ids::valid_name;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Instant;

/// Longer passwords are only work for the hash.
const MAX_PASSWORD: usize = 1024;

#[derive(Debug, Deserialize)]
struct Credentials {
    username: String,
    password: String,
}

/// JSON, or a form as browsers send it.
async fn credentials(app: &App, request: Request) -> Result<Credentials, ApiError> {
    let kind = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let is_form = kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    let body = raw_body(request, app).await?;
    if !is_form {
        return parse_json(&body);
    }
    let field = |name: &str| {
        url::form_urlencoded::parse(&body)
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
            .ok_or_else(|| {
                ApiError::field(FieldError::body(
                    name,
                    "Field required".to_owned(),
                    Value::Null,
                ))
            })
    };
    Ok(Credentials {
        username: field("username")?,
        password: field("password")?,
    })
}

pub(super) async fn sign_in(
    State(app): State<App>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let Credentials { username, password } = credentials(&app, request).await?;
    if let Some(wait) = app.throttle.wait(&username, Instant::now()) {
        return Err(ApiError::TooMany {
            retry_after: wait.as_secs() + 1,
        });
    }
    let user = app.store.user(&username).await?;
    let right = password.len() <= MAX_PASSWORD
        && check_password(user.as_ref(), password)
            .await
            .map_err(ApiError::Internal)?;
    let Some(user) = user.filter(|_| right) else {
        app.throttle.failed(&username, Instant::now());
        tracing::warn!(username, "a sign-in failed");
        return Err(ApiError::NotAuthenticated("Invalid credentials"));
    };
    app.throttle.succeeded(&username);
    let role: Role = user.role.parse().map_err(ApiError::Internal)?;
    let token = open_session(&app.secret, &user.username, role)?;
    Ok((StatusCode::CREATED, Json(json!({ "access_token": token }))))
}

pub(super) async fn list(_: Admin, State(app): State<App>) -> Result<Json<Value>, ApiError> {
    let rows = app.store.tokens().await?;
    let tokens: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "name": row.name,
                "role": row.role,
                "dag_id": row.dag_id,
                "expires_at": view::time_or_null(row.expires_at),
                "created_at": view::time(row.created_at),
            })
        })
        .collect();
    Ok(Json(
        json!({ "total_entries": tokens.len(), "tokens": tokens }),
    ))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    name: String,
    role: Role,
    dag_id: Option<String>,
    expires_in_s: Option<i64>,
}

pub(super) async fn create(
    Admin(caller): Admin,
    State(app): State<App>,
    Body(body): Body<Create>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    if !valid_name(&body.name) {
        let msg = "a token's name has 1 to 250 letters, digits, _ - and .".to_owned();
        return Err(ApiError::field(FieldError::body(
            "name",
            msg,
            body.name.into(),
        )));
    }
    let expires_at = match body.expires_in_s {
        None => None,
        Some(seconds) => {
            let span = TimeDelta::try_seconds(seconds).filter(|span| *span > TimeDelta::zero());
            let at = span.and_then(|span| app.store.now().checked_add_signed(span));
            let wrong = || {
                let msg = "Input should be a number of seconds above 0".to_owned();
                ApiError::field(FieldError::body("expires_in_s", msg, seconds.into()))
            };
            Some(at.ok_or_else(wrong)?)
        }
    };
    let token = issue_token(
        &*app.store,
        &body.name,
        body.role,
        body.dag_id.clone(),
        expires_at,
    )
    .await?;
    let extra = json!({ "name": body.name, "role": body.role, "dag_id": body.dag_id });
    caller
        .audit(&*app.store, "create_token", About::nothing(), extra)
        .await;
    let answer = json!({
        "token": token,
        "name": body.name,
        "role": body.role,
        "dag_id": body.dag_id,
        "expires_at": view::time_or_null(expires_at),
    });
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(super) async fn delete(
    Admin(caller): Admin,
    State(app): State<App>,
    At(name): At<String>,
) -> Result<StatusCode, ApiError> {
    if !app.store.delete_token(&name).await? {
        return Err(ApiError::NotFound(format!("no token is named {name:?}")));
    }
    caller
        .audit(
            &*app.store,
            "delete_token",
            About::nothing(),
            json!({ "name": name }),
        )
        .await;
    Ok(StatusCode::NO_CONTENT)
}
