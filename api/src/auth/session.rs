//! Sessions: JWTs signed with a key of the deployment's secret, so that every API server accepts what one of them issued.

use super::{Caller, Role};
use crate::error::ApiError;
use gristmill_common::seal::SecretKey;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode, errors::ErrorKind,
};
use serde::{Deserialize, Serialize};

/// Seconds that a session lasts.
const LIFETIME: i64 = 24 * 3600;

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    role: Role,
    iat: i64,
    exp: i64,
}

/// A token for a user who has proven to be one.
pub(crate) fn open_session(
    secret: &SecretKey,
    username: &str,
    role: Role,
) -> Result<String, ApiError> {
    let now = chrono::Utc::now().timestamp();
    let claims = Claims {
        sub: username.to_owned(),
        role,
        iat: now,
        exp: now + LIFETIME,
    };
    encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &EncodingKey::from_secret(&secret.session_key()),
    )
    .map_err(|error| ApiError::Internal(format!("cannot sign a session: {error}")))
}

/// Who a session's token is of.
pub(super) fn caller(secret: &SecretKey, token: &str) -> Result<Caller, ApiError> {
    let key = DecodingKey::from_secret(&secret.session_key());
    let data =
        decode::<Claims>(token, &key, &Validation::new(Algorithm::HS256)).map_err(|error| {
            match error.kind() {
                ErrorKind::ExpiredSignature => ApiError::NotAuthenticated("Token Expired"),
                _ => ApiError::NotAuthenticated("Not authenticated"),
            }
        })?;
    Ok(Caller {
        name: data.claims.sub,
        role: data.claims.role,
        dag_id: None,
    })
}
