//! Who asks, and what they may: sessions (signed, 24 h), API tokens (stored hashed) and the four roles.

mod password;
mod session;
mod throttle;
mod token;

pub(crate) use password::check as check_password;
pub use password::{AdminError, ensure_admin};
pub(crate) use session::open_session;
pub(crate) use throttle::Throttle;
pub use token::{TOKEN_PREFIX, issue_token, token_hash};

use crate::{error::ApiError, parts::App};
use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::{header, request::Parts},
};
use chrono::{DateTime, Utc};
use gristmill_store::{AuditRow, Store};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{fmt, str::FromStr};

/// What a caller may do; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read everything but secrets.
    Viewer,
    /// Trigger, cancel and delete runs, pause DAGs.
    User,
    /// Deploy DAGs; pools, queues, variables and connections.
    Op,
    /// Tokens and users.
    Admin,
}

impl Role {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Viewer, "viewer"),
        (Self::User, "user"),
        (Self::Op, "op"),
        (Self::Admin, "admin"),
    ];

    /// The role's name in the database and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::User => "user",
            Self::Op => "op",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|(_, name)| *name == text)
            .map(|(role, _)| role)
            .ok_or_else(|| format!("{text:?} is no role: use viewer, user, op or admin"))
    }
}

/// Who sent a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The only DAG that the caller's token is for.
    pub(crate) dag_id: Option<String>,
}

impl Caller {
    async fn of(parts: &Parts, app: &App) -> Result<Self, ApiError> {
        let text = bearer(parts).ok_or(ApiError::NotAuthenticated("Not authenticated"))?;
        if token::is_token(text) {
            return token::caller(app, text).await;
        }
        session::caller(&app.secret, text)
    }

    /// The caller, if it has the role, and the path is about the one DAG that its token may be for.
    async fn with(role: Role, parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Self::of(parts, app).await?;
        if caller.role < role {
            return Err(ApiError::Forbidden);
        }
        if let Some(only) = &caller.dag_id {
            let about = RawPathParams::from_request_parts(parts, app).await.ok();
            let fits = about
                .iter()
                .flatten()
                .any(|(name, value)| name == "dag_id" && value == only);
            if !fits {
                return Err(ApiError::Forbidden);
            }
        }
        Ok(caller)
    }

    /// The audit log's entry of what the caller changes.
    pub(crate) fn entry(
        &self,
        at: DateTime<Utc>,
        event: &str,
        about: About<'_>,
        extra: Value,
    ) -> AuditRow {
        AuditRow {
            at,
            actor: self.name.clone(),
            event: event.to_owned(),
            dag_id: about.dag_id.map(str::to_owned),
            run_id: about.run_id.map(str::to_owned),
            task_id: None,
            extra,
        }
    }

    /// Writes what the caller changed into the audit log. The change is done already: a failure is only logged.
    pub(crate) async fn audit(
        &self,
        store: &dyn Store,
        event: &str,
        about: About<'_>,
        extra: Value,
    ) {
        let entry = self.entry(store.now(), event, about, extra);
        if let Err(error) = store.put_audit(&entry).await {
            tracing::error!(%error, event, actor = self.name, "an audit entry is lost");
        }
    }
}

/// What an audit entry is about.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct About<'a> {
    dag_id: Option<&'a str>,
    run_id: Option<&'a str>,
}

impl<'a> About<'a> {
    /// Neither a DAG nor a run.
    pub(crate) fn nothing() -> Self {
        Self::default()
    }

    pub(crate) fn dag(dag_id: &'a str) -> Self {
        Self {
            dag_id: Some(dag_id),
            run_id: None,
        }
    }

    pub(crate) fn run(dag_id: &'a str, run_id: &'a str) -> Self {
        Self {
            dag_id: Some(dag_id),
            run_id: Some(run_id),
        }
    }
}

/// The token of `Authorization: Bearer …`.
pub(crate) fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

macro_rules! at_least {
    ($($(#[$doc:meta])* $name:ident => $role:expr,)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name(pub(crate) Caller);

        impl FromRequestParts<App> for $name {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
                Caller::with($role, parts, app).await.map(Self)
            }
        }
    )*};
}

at_least! {
    /// Lets every known caller in. A route's first argument: who may not ask learns nothing else.
    Viewer => Role::Viewer,
    /// Lets users in.
    User => Role::User,
    /// Lets operators in.
    Op => Role::Op,
    /// Lets administrators in.
    Admin => Role::Admin,
}
