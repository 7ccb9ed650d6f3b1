//! API tokens: for programs. The database has only their hash.

use super::{Caller, Role};
use crate::{error::ApiError, parts::App};
use chrono::{DateTime, Utc};
use gristmill_store::{Store, StoreError, TokenRow};
use sha2::{Digest, Sha256};

/// What every API token begins with: secret scanners find it, and it is no JWT.
pub const TOKEN_PREFIX: &str = "gm_";

pub(super) fn is_token(text: &str) -> bool {
    text.starts_with(TOKEN_PREFIX)
}

/// Makes a token and answers it; it cannot be read again. `Exists` if the name is taken.
pub async fn issue_token(
    store: &dyn Store,
    name: &str,
    role: Role,
    dag_id: Option<String>,
    expires_at: Option<DateTime<Utc>>,
) -> Result<String, StoreError> {
    // 256 random bits: a plain hash of them is as good as a slow one.
    let token = format!("{TOKEN_PREFIX}{}", hex::encode(rand::random::<[u8; 32]>()));
    store
        .put_token(&TokenRow {
            hash: token_hash(&token),
            name: name.to_owned(),
            role: role.as_str().to_owned(),
            dag_id,
            expires_at,
            created_at: store.now(),
        })
        .await?;
    Ok(token)
}

/// Who a token was made for.
pub(super) async fn caller(app: &App, token: &str) -> Result<Caller, ApiError> {
    let row = app
        .tokens
        .ask(token_hash(token))
        .await??
        .ok_or(ApiError::NotAuthenticated("Not authenticated"))?;
    if row.expires_at.is_some_and(|at| at <= app.store.now()) {
        return Err(ApiError::NotAuthenticated("Token Expired"));
    }
    Ok(Caller {
        role: row.role.parse().map_err(ApiError::Internal)?,
        name: format!("token {}", row.name),
        dag_id: row.dag_id,
    })
}

/// How an API token is stored: its SHA-256, in hex.
pub fn token_hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}
