//! Users, tokens and secrets.

use crate::{
    PgStore,
    bind::{json, text},
    rows::{self, decode, decode_optional},
};
use gristmill_store::{StoreError, StoreResult, TokenRow, UserRow};
use serde_json::Value;
use sqlx::query;

pub(super) async fn user(store: &PgStore, username: &str) -> StoreResult<Option<UserRow>> {
    const SQL: &str = "SELECT username, password_hash, role FROM users WHERE username = $1";
    decode_optional(store.optional(query(SQL).bind(text(username))).await?)
}

pub(super) async fn users(store: &PgStore) -> StoreResult<Vec<UserRow>> {
    const SQL: &str = "SELECT username, password_hash, role FROM users ORDER BY username";
    decode(&store.all(query(SQL)).await?)
}

pub(super) async fn put_user(store: &PgStore, user: &UserRow, replace: bool) -> StoreResult<bool> {
    const KEEP: &str = "
        INSERT INTO users (username, password_hash, role) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    const REPLACE: &str = "
        INSERT INTO users (username, password_hash, role) VALUES ($1, $2, $3)
        ON CONFLICT (username) DO UPDATE SET password_hash = excluded.password_hash, role = excluded.role";
    let statement = query(if replace { REPLACE } else { KEEP })
        .bind(&user.username)
        .bind(&user.password_hash)
        .bind(&user.role);
    Ok(store.execute(statement).await? > 0)
}

macro_rules! token_columns {
    () => {
        "SELECT hash, name, role, dag_id, expires_at, created_at FROM api_tokens"
    };
}

pub(super) async fn token(store: &PgStore, hash: &str) -> StoreResult<Option<TokenRow>> {
    const SQL: &str = concat!(token_columns!(), " WHERE hash = $1");
    decode_optional(store.optional(query(SQL).bind(text(hash))).await?)
}

pub(super) async fn tokens(store: &PgStore) -> StoreResult<Vec<TokenRow>> {
    const SQL: &str = concat!(token_columns!(), " ORDER BY name");
    decode(&store.all(query(SQL)).await?)
}

pub(super) async fn put_token(store: &PgStore, token: &TokenRow) -> StoreResult<()> {
    const SQL: &str = "
        INSERT INTO api_tokens (hash, name, role, dag_id, expires_at, created_at) VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT DO NOTHING";
    let statement = query(SQL)
        .bind(&token.hash)
        .bind(&token.name)
        .bind(&token.role)
        .bind(token.dag_id.as_deref())
        .bind(token.expires_at)
        .bind(token.created_at);
    match store.execute(statement).await? {
        0 => Err(StoreError::Exists {
            what: "token",
            name: token.name.clone(),
        }),
        _ => Ok(()),
    }
}

pub(super) async fn delete_token(store: &PgStore, name: &str) -> StoreResult<bool> {
    let statement = query("DELETE FROM api_tokens WHERE name = $1").bind(text(name));
    Ok(store.execute(statement).await? > 0)
}

pub(super) async fn put_secret(
    store: &PgStore,
    kind: &str,
    name: &str,
    sealed: &str,
    meta: &Value,
) -> StoreResult<()> {
    const SQL: &str = "
        INSERT INTO secrets (kind, name, sealed, meta) VALUES ($1, $2, $3, $4::json)
        ON CONFLICT (kind, name) DO UPDATE SET sealed = excluded.sealed, meta = excluded.meta";
    let statement = query(SQL)
        .bind(kind)
        .bind(name)
        .bind(sealed)
        .bind(json(meta));
    store.execute(statement).await.map(drop)
}

pub(super) async fn secret(
    store: &PgStore,
    kind: &str,
    name: &str,
) -> StoreResult<Option<(String, Value)>> {
    const SQL: &str = "SELECT sealed, meta FROM secrets WHERE kind = $1 AND name = $2";
    let row = store
        .optional(query(SQL).bind(kind).bind(text(name)))
        .await?;
    row.as_ref().map(rows::secret).transpose()
}

pub(super) async fn secrets(store: &PgStore, kind: &str) -> StoreResult<Vec<(String, Value)>> {
    const SQL: &str = "SELECT name, meta FROM secrets WHERE kind = $1 ORDER BY name";
    let found = store.all(query(SQL).bind(kind)).await?;
    found.iter().map(rows::secret_meta).collect()
}

pub(super) async fn delete_secret(store: &PgStore, kind: &str, name: &str) -> StoreResult<bool> {
    const SQL: &str = "DELETE FROM secrets WHERE kind = $1 AND name = $2";
    let statement = query(SQL).bind(kind).bind(text(name));
    Ok(store.execute(statement).await? > 0)
}
