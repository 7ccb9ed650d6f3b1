//! Users, tokens, secrets, the audit log, dead letters.

use crate::{
    codec::{Document, Micros, encode, time},
    session::{Session, args},
};
use chrono::{DateTime, Utc};
use gristmill_common::message::Sealed;
use gristmill_store::{AuditRow, DeadLetterRow, Page, StoreError, StoreResult, TokenRow, UserRow};
use serde_json::Value;

type TokenRecord = (
    String,
    String,
    String,
    Option<String>,
    Option<Micros>,
    Micros,
);

fn token_row((hash, name, role, dag_id, expires_at, created_at): TokenRecord) -> TokenRow {
    TokenRow {
        hash,
        name,
        role,
        dag_id,
        expires_at: time(expires_at),
        created_at: created_at.0,
    }
}

fn user_row((username, password_hash, role): (String, String, String)) -> UserRow {
    UserRow {
        username,
        password_hash,
        role,
    }
}

impl Session {
    pub(crate) async fn user(&mut self, username: &str) -> StoreResult<Option<UserRow>> {
        const SQL: &str =
            "SELECT json_array(username, password_hash, role) FROM users WHERE username = ?1";
        Ok(self.row(SQL, args![username]).await?.map(user_row))
    }

    pub(crate) async fn users(&mut self) -> StoreResult<Vec<UserRow>> {
        const SQL: &str =
            "SELECT json_array(username, password_hash, role) FROM users ORDER BY username";
        let rows: Vec<_> = self.rows(SQL, args![]).await?;
        Ok(rows.into_iter().map(user_row).collect())
    }

    pub(crate) async fn put_user(&mut self, user: &UserRow, replace: bool) -> StoreResult<bool> {
        const SQL: &str = "
            INSERT INTO users (username, password_hash, role) VALUES (?1, ?2, ?3)
            ON CONFLICT (username) DO UPDATE SET password_hash = excluded.password_hash, role = excluded.role WHERE ?4";
        let written = self
            .execute(
                SQL,
                args![
                    user.username.as_str(),
                    user.password_hash.as_str(),
                    user.role.as_str(),
                    replace
                ],
            )
            .await?;
        Ok(written > 0)
    }

    pub(crate) async fn token(&mut self, hash: &str) -> StoreResult<Option<TokenRow>> {
        const SQL: &str = "
            SELECT json_array(hash, name, role, dag_id, expires_at, created_at) FROM api_tokens WHERE hash = ?1";
        Ok(self.row(SQL, args![hash]).await?.map(token_row))
    }

    pub(crate) async fn tokens(&mut self) -> StoreResult<Vec<TokenRow>> {
        const SQL: &str = "
            SELECT json_array(hash, name, role, dag_id, expires_at, created_at) FROM api_tokens ORDER BY name";
        let rows: Vec<_> = self.rows(SQL, args![]).await?;
        Ok(rows.into_iter().map(token_row).collect())
    }

    pub(crate) async fn put_token(&mut self, token: &TokenRow) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO api_tokens (hash, name, role, dag_id, expires_at, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
            RETURNING json_array(name)";
        let args = args![
            token.hash.as_str(),
            token.name.as_str(),
            token.role.as_str(),
            token.dag_id.as_deref(),
            token.expires_at,
            token.created_at
        ];
        let taken = || StoreError::Exists {
            what: "token",
            name: token.name.clone(),
        };
        self.rows_unless_taken::<(String,)>(SQL, args, taken)
            .await?;
        Ok(())
    }

    pub(crate) async fn delete_token(&mut self, name: &str) -> StoreResult<bool> {
        let deleted = self
            .execute("DELETE FROM api_tokens WHERE name = ?1", args![name])
            .await?;
        Ok(deleted > 0)
    }

    pub(crate) async fn put_secret(
        &mut self,
        kind: &str,
        name: &str,
        sealed: &str,
        meta: &Value,
    ) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO secrets (kind, name, sealed, meta, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)
            ON CONFLICT (kind, name) DO UPDATE SET
                sealed = excluded.sealed, meta = excluded.meta, updated_at = excluded.updated_at";
        self.execute(SQL, args![kind, name, sealed, encode(meta)?, self.now])
            .await?;
        Ok(())
    }

    pub(crate) async fn secret(
        &mut self,
        kind: &str,
        name: &str,
    ) -> StoreResult<Option<(String, Value)>> {
        const SQL: &str =
            "SELECT json_array(sealed, meta) FROM secrets WHERE kind = ?1 AND name = ?2";
        let row: Option<(String, Document<Value>)> = self.row(SQL, args![kind, name]).await?;
        Ok(row.map(|(sealed, meta)| (sealed, meta.0)))
    }

    pub(crate) async fn secrets(&mut self, kind: &str) -> StoreResult<Vec<(String, Value)>> {
        const SQL: &str =
            "SELECT json_array(name, meta) FROM secrets WHERE kind = ?1 ORDER BY name";
        let rows: Vec<(String, Document<Value>)> = self.rows(SQL, args![kind]).await?;
        Ok(rows
            .into_iter()
            .map(|(name, meta)| (name, meta.0))
            .collect())
    }

    pub(crate) async fn delete_secret(&mut self, kind: &str, name: &str) -> StoreResult<bool> {
        let deleted = self
            .execute(
                "DELETE FROM secrets WHERE kind = ?1 AND name = ?2",
                args![kind, name],
            )
            .await?;
        Ok(deleted > 0)
    }

    pub(crate) async fn sealed(
        &mut self,
        connections: &[String],
        variables: &[String],
    ) -> StoreResult<Sealed> {
        const SQL: &str = "
            SELECT json_array(kind, name, sealed) FROM secrets
            WHERE kind = 'connection' AND name IN (SELECT value FROM jsonb_each(?1))
                OR kind = 'variable' AND name IN (SELECT value FROM jsonb_each(?2))";
        let mut found = Sealed::default();
        if connections.is_empty() && variables.is_empty() {
            return Ok(found);
        }
        let rows: Vec<(String, String, String)> = self
            .rows(SQL, args![encode(connections)?, encode(variables)?])
            .await?;
        for (kind, name, sealed) in rows {
            match kind.as_str() {
                "connection" => found.connections.insert(name, sealed),
                _ => found.variables.insert(name, sealed),
            };
        }
        Ok(found)
    }

    pub(crate) async fn put_audit(&mut self, entry: &AuditRow) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO audit_log (at, actor, event, dag_id, run_id, task_id, extra)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.execute(
            SQL,
            args![
                entry.at,
                entry.actor.as_str(),
                entry.event.as_str(),
                entry.dag_id.as_deref(),
                entry.run_id.as_deref(),
                entry.task_id.as_deref(),
                encode(&entry.extra)?
            ],
        )
        .await?;
        Ok(())
    }

    pub(crate) async fn delete_audits(
        &mut self,
        before: DateTime<Utc>,
        max: i64,
    ) -> StoreResult<u64> {
        // The oldest by number, which rises with time: no index by time is needed.
        const SQL: &str = "
            DELETE FROM audit_log WHERE at < ?1 AND id IN (SELECT id FROM audit_log ORDER BY id LIMIT ?2)";
        self.execute(SQL, args![before, max]).await
    }

    pub(crate) async fn audit(&mut self, limit: i64, offset: i64) -> StoreResult<Page<AuditRow>> {
        const SQL: &str = "
            SELECT json_array(at, actor, event, dag_id, run_id, task_id, extra)
            FROM audit_log ORDER BY id DESC LIMIT ?1 OFFSET ?2";
        type Record = (
            Micros,
            String,
            String,
            Option<String>,
            Option<String>,
            Option<String>,
            Document<Value>,
        );
        let (total,) = self
            .one("SELECT json_array(count(*)) FROM audit_log", args![])
            .await?;
        let records: Vec<Record> = self.rows(SQL, args![limit, offset]).await?;
        let rows = records
            .into_iter()
            .map(
                |(at, actor, event, dag_id, run_id, task_id, extra)| AuditRow {
                    at: at.0,
                    actor,
                    event,
                    dag_id,
                    run_id,
                    task_id,
                    extra: extra.0,
                },
            )
            .collect();
        Ok(Page { rows, total })
    }

    pub(crate) async fn put_dead_letter(
        &mut self,
        source: &str,
        reason: &str,
        body: &[u8],
    ) -> StoreResult<()> {
        const SQL: &str =
            "INSERT INTO dead_letters (source, reason, body, at) VALUES (?1, ?2, ?3, ?4)";
        // It is kept to be read by people: what is no text is shown as far as it goes.
        let body = String::from_utf8_lossy(body).into_owned();
        self.execute(SQL, args![source, reason, body, self.now])
            .await?;
        Ok(())
    }

    pub(crate) async fn dead_letters(&mut self, limit: i64) -> StoreResult<Vec<DeadLetterRow>> {
        const SQL: &str = "
            SELECT json_array(id, source, reason, body, at) FROM dead_letters ORDER BY id DESC LIMIT ?1";
        let rows: Vec<(i64, String, String, String, Micros)> = self.rows(SQL, args![limit]).await?;
        Ok(rows
            .into_iter()
            .map(|(id, source, reason, body, at)| DeadLetterRow {
                id,
                source,
                reason,
                body,
                at: at.0,
            })
            .collect())
    }
}
