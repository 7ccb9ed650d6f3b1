//! The only place where rows become records. A value that this build cannot read is `Corrupt`, with the column's name.

use chrono::{DateTime, Utc};
use gristmill_common::{
    ids::{BackfillPk, Dispatch, Fence, RunPk, TiPk, VersionPk},
    limit::RateLimit,
    row::{AttemptRow, OutboxRow, RunRow, SharedKey, TiRow, XcomRow, XcomValue},
    spec::{DagSpec, Strategy},
    state::TaskState,
    trigger_rule::Counters,
};
use gristmill_store::{
    ApprovalRow, AssetEventRow, AssetRow, AssetSource, AuditRow, BackfillRow, ComponentRow, DagRow,
    DeadLetterRow, ImportErrorRow, OutDispatch, PoolRow, QueueCounts, StoreError, StoreResult,
    TokenRow, UserRow, VersionRow, WaitingAsset, WorkerRow, WorkerState,
};
use serde::de::DeserializeOwned;
use sqlx::{Decode, Postgres, Row, Type, postgres::PgRow, types::Json};
use std::{fmt::Display, str::FromStr};

/// A record read from a row that has the columns named beside it.
pub(crate) trait FromPg: Sized {
    fn from_pg(row: &PgRow) -> StoreResult<Self>;
}

pub(crate) fn decode<T: FromPg>(rows: &[PgRow]) -> StoreResult<Vec<T>> {
    rows.iter().map(T::from_pg).collect()
}

pub(crate) fn decode_optional<T: FromPg>(row: Option<PgRow>) -> StoreResult<Option<T>> {
    row.as_ref().map(T::from_pg).transpose()
}

pub(crate) fn get<'r, T>(row: &'r PgRow, column: &str) -> StoreResult<T>
where
    T: Decode<'r, Postgres> + Type<Postgres>,
{
    row.try_get(column)
        .map_err(|error| StoreError::Corrupt(format!("column {column}: {error}")))
}

pub(crate) fn json<T: DeserializeOwned + 'static>(row: &PgRow, column: &str) -> StoreResult<T> {
    get::<Json<T>>(row, column).map(|json| json.0)
}

pub(crate) fn optional_json<T: DeserializeOwned + 'static>(
    row: &PgRow,
    column: &str,
) -> StoreResult<Option<T>> {
    get::<Option<Json<T>>>(row, column).map(|json| json.map(|json| json.0))
}

/// A text that names a state or the like.
pub(crate) fn named<T>(row: &PgRow, column: &str) -> StoreResult<T>
where
    T: FromStr,
    T::Err: Display,
{
    get::<&str>(row, column)?
        .parse()
        .map_err(|error| StoreError::Corrupt(format!("column {column}: {error}")))
}

pub(crate) fn ti_and_run(row: &PgRow) -> StoreResult<(TiPk, RunPk)> {
    Ok((TiPk(get(row, "pk")?), RunPk(get(row, "run_pk")?)))
}

/// Columns of [`DagRow`], of `dags d`.
macro_rules! dag_columns {
    () => {
        "d.dag_id, d.version_pk, d.version_number, d.is_paused, d.pause_reason, d.is_stale, d.description, d.owner, d.tags, d.fileloc,
         d.schedule, d.max_active_runs, d.max_active_tasks, d.next_run_after, d.next_logical_date,
         d.next_interval_start, d.next_interval_end, d.last_run_after, d.created_at, d.updated_at"
    };
}
pub(crate) use dag_columns;

impl FromPg for DagRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            dag_id: get(row, "dag_id")?,
            version: VersionPk(get(row, "version_pk")?),
            version_number: get(row, "version_number")?,
            is_paused: get(row, "is_paused")?,
            pause_reason: get(row, "pause_reason")?,
            is_stale: get(row, "is_stale")?,
            description: get(row, "description")?,
            owner: get(row, "owner")?,
            tags: get(row, "tags")?,
            fileloc: get(row, "fileloc")?,
            schedule: get(row, "schedule")?,
            max_active_runs: get(row, "max_active_runs")?,
            max_active_tasks: get(row, "max_active_tasks")?,
            next_run_after: get(row, "next_run_after")?,
            next_logical_date: get(row, "next_logical_date")?,
            next_interval_start: get(row, "next_interval_start")?,
            next_interval_end: get(row, "next_interval_end")?,
            last_run_after: get(row, "last_run_after")?,
            created_at: get(row, "created_at")?,
            updated_at: get(row, "updated_at")?,
        })
    }
}

/// Columns of [`VersionRow`], of `dag_versions v`.
macro_rules! version_columns {
    () => {
        "v.pk, v.id, v.dag_id, v.version_number, v.spec, v.spec_hash, v.source, v.bundle, v.created_at"
    };
}
pub(crate) use version_columns;

impl FromPg for VersionRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            pk: VersionPk(get(row, "pk")?),
            id: get(row, "id")?,
            dag_id: get(row, "dag_id")?,
            version_number: get(row, "version_number")?,
            spec: json::<DagSpec>(row, "spec")?,
            spec_hash: get(row, "spec_hash")?,
            source: get(row, "source")?,
            bundle: get(row, "bundle")?,
            created_at: get(row, "created_at")?,
        })
    }
}

/// Columns of [`RunRow`], of `dag_runs r`.
macro_rules! run_columns {
    () => {
        "r.pk, r.dag_id, r.run_id, r.version_pk, r.state, r.run_type, r.triggered_by, r.backfill_id, r.logical_date,
         r.data_interval_start, r.data_interval_end, r.run_after, r.queued_at, r.started_at, r.ended_at, r.conf,
         r.params, r.note, r.cancelled, r.stop_reason, r.max_active_tasks, r.active_tasks, r.ready_tasks,
         r.unfinished_tasks, r.failed_leaves, r.concurrency_key, r.clean_up"
    };
}
pub(crate) use run_columns;

/// The columns of [`run_columns`] under names that no instance has: what [`locked_run`] reads.
macro_rules! run_aliases {
    () => {
        "r_pk, r_dag_id, r_run_id, r_version_pk, r_state, r_run_type, r_triggered_by, r_backfill_id, r_logical_date,
         r_data_interval_start, r_data_interval_end, r_run_after, r_queued_at, r_started_at, r_ended_at, r_conf, r_params, r_note,
         r_cancelled, r_stop_reason, r_max_active_tasks, r_active_tasks, r_ready_tasks, r_unfinished_tasks, r_failed_leaves,
         r_concurrency_key, r_clean_up"
    };
}
pub(crate) use run_aliases;

macro_rules! run_row {
    ($row:expr, $prefix:literal) => {
        RunRow {
            pk: RunPk(get($row, concat!($prefix, "pk"))?),
            dag_id: get($row, concat!($prefix, "dag_id"))?,
            run_id: get($row, concat!($prefix, "run_id"))?,
            version: VersionPk(get($row, concat!($prefix, "version_pk"))?),
            state: named($row, concat!($prefix, "state"))?,
            run_type: named($row, concat!($prefix, "run_type"))?,
            triggered_by: get($row, concat!($prefix, "triggered_by"))?,
            backfill: get::<Option<i64>>($row, concat!($prefix, "backfill_id"))?.map(BackfillPk),
            logical_date: get($row, concat!($prefix, "logical_date"))?,
            data_interval_start: get($row, concat!($prefix, "data_interval_start"))?,
            data_interval_end: get($row, concat!($prefix, "data_interval_end"))?,
            run_after: get($row, concat!($prefix, "run_after"))?,
            queued_at: get($row, concat!($prefix, "queued_at"))?,
            started_at: get($row, concat!($prefix, "started_at"))?,
            ended_at: get($row, concat!($prefix, "ended_at"))?,
            conf: json($row, concat!($prefix, "conf"))?,
            params: json($row, concat!($prefix, "params"))?,
            note: get($row, concat!($prefix, "note"))?,
            cancelled: get($row, concat!($prefix, "cancelled"))?,
            stop_reason: get($row, concat!($prefix, "stop_reason"))?,
            clean_up: get($row, concat!($prefix, "clean_up"))?,
            max_active_tasks: get($row, concat!($prefix, "max_active_tasks"))?,
            active_tasks: get($row, concat!($prefix, "active_tasks"))?,
            ready_tasks: get($row, concat!($prefix, "ready_tasks"))?,
            unfinished_tasks: get($row, concat!($prefix, "unfinished_tasks"))?,
            failed_leaves: get($row, concat!($prefix, "failed_leaves"))?,
            concurrency_key: get($row, concat!($prefix, "concurrency_key"))?,
        }
    };
}

impl FromPg for RunRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(run_row!(row, ""))
    }
}

/// A run beside an instance of it.
pub(crate) fn locked_run(row: &PgRow) -> StoreResult<RunRow> {
    Ok(run_row!(row, "r_"))
}

/// Columns of [`TiRow`], of `task_instances t`.
macro_rules! ti_columns {
    () => {
        "t.pk, t.run_pk, t.task_idx, t.task_id, t.map_index, t.state, t.fence, t.try_number, t.max_tries,
         t.user_failures, t.infra_losses, t.attempt, t.epoch, t.queue, t.pool, t.pool_slots, t.priority_weight,
         t.occupies, t.up_total, t.up_success, t.up_failed, t.up_upstream_failed, t.up_skipped, t.up_removed,
         t.up_setups, t.up_setup_success, t.up_setup_skipped, t.expanded_len, t.map_values, t.map_name,
         t.scheduled_at, t.queued_at, t.claim_by, t.started_at, t.ended_at, t.next_at, t.worker, t.hostname, t.pid,
         t.exit_code, t.reason, t.wait, t.then_state, t.concurrency_key, t.concurrency_limit, t.concurrency_strategy"
    };
}
pub(crate) use ti_columns;

impl FromPg for TiRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            pk: TiPk(get(row, "pk")?),
            run: RunPk(get(row, "run_pk")?),
            task_idx: get(row, "task_idx")?,
            task_id: get(row, "task_id")?,
            map_index: get(row, "map_index")?,
            state: named(row, "state")?,
            fence: Fence(get(row, "fence")?),
            try_number: get(row, "try_number")?,
            max_tries: get(row, "max_tries")?,
            user_failures: get(row, "user_failures")?,
            infra_losses: get(row, "infra_losses")?,
            attempt: get(row, "attempt")?,
            epoch: get(row, "epoch")?,
            queue: get(row, "queue")?,
            pool: get(row, "pool")?,
            pool_slots: get(row, "pool_slots")?,
            priority_weight: get(row, "priority_weight")?,
            occupies: get(row, "occupies")?,
            counters: Counters {
                total: get(row, "up_total")?,
                success: get(row, "up_success")?,
                failed: get(row, "up_failed")?,
                upstream_failed: get(row, "up_upstream_failed")?,
                skipped: get(row, "up_skipped")?,
                removed: get(row, "up_removed")?,
                setups: get(row, "up_setups")?,
                setup_success: get(row, "up_setup_success")?,
                setup_skipped: get(row, "up_setup_skipped")?,
                setup_failed: 0,
            },
            expanded_len: get(row, "expanded_len")?,
            map_values: get::<Option<Json<_>>>(row, "map_values")?.map(|json| json.0),
            map_name: get(row, "map_name")?,
            shared: shared_key(row)?,
            scheduled_at: get(row, "scheduled_at")?,
            queued_at: get(row, "queued_at")?,
            claim_by: get(row, "claim_by")?,
            started_at: get(row, "started_at")?,
            ended_at: get(row, "ended_at")?,
            next_at: get(row, "next_at")?,
            then: then_state(row)?,
            worker: get(row, "worker")?,
            hostname: get(row, "hostname")?,
            pid: get(row, "pid")?,
            exit_code: get(row, "exit_code")?,
            reason: get(row, "reason")?,
            wait: get::<Option<Json<_>>>(row, "wait")?.map(|json| json.0),
        })
    }
}

pub(crate) fn shared_key(row: &PgRow) -> StoreResult<Option<SharedKey>> {
    let key: &str = get(row, "concurrency_key")?;
    if key.is_empty() {
        return Ok(None);
    }
    let limit: Option<i32> = get(row, "concurrency_limit")?;
    let strategy = match get::<Option<&str>>(row, "concurrency_strategy")? {
        Some(name) => name.parse().map_err(|error| {
            StoreError::Corrupt(format!("column concurrency_strategy: {error}"))
        })?,
        None => Strategy::Queue,
    };
    Ok(Some(SharedKey {
        key: key.to_owned(),
        limit: limit.unwrap_or(1),
        strategy,
    }))
}

/// How a strategy is kept: none for those that only wait, which nobody has to look for.
pub(crate) fn strategy_name(shared: Option<&SharedKey>) -> Option<&'static str> {
    shared
        .map(|shared| shared.strategy)
        .filter(|strategy| *strategy != Strategy::Queue)
        .map(Strategy::as_str)
}

/// What a halted instance becomes; of any other it says nothing.
fn then_state(row: &PgRow) -> StoreResult<Option<TaskState>> {
    match (
        get::<&str>(row, "state")?,
        get::<Option<&str>>(row, "then_state")?,
    ) {
        ("restarting", Some(_)) => named(row, "then_state").map(Some),
        _ => Ok(None),
    }
}

impl FromPg for AttemptRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            ti: TiPk(get(row, "ti_pk")?),
            try_number: get(row, "try_number")?,
            attempt: get(row, "attempt")?,
            fence: Fence(get(row, "fence")?),
            ending: get(row, "ending")?,
            started_at: get(row, "started_at")?,
            ended_at: get(row, "ended_at")?,
            worker: get(row, "worker")?,
            hostname: get(row, "hostname")?,
            pid: get(row, "pid")?,
            exit_code: get(row, "exit_code")?,
            reason: get(row, "reason")?,
        })
    }
}

impl FromPg for XcomRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        let value = match get::<Option<String>>(row, "object_key")? {
            Some(key) => XcomValue::Object {
                key,
                size: unsigned(get(row, "object_size")?, "object_size")?,
            },
            None => XcomValue::Inline(json(row, "value")?),
        };
        Ok(Self {
            run: RunPk(get(row, "run_pk")?),
            ti: TiPk(get(row, "ti_pk")?),
            task_idx: get(row, "task_idx")?,
            map_index: get(row, "map_index")?,
            key: get(row, "key")?,
            fence: Fence(get(row, "fence")?),
            value,
        })
    }
}

/// A count or size, never negative.
pub(crate) fn unsigned<T: TryFrom<i64>>(value: i64, column: &str) -> StoreResult<T> {
    T::try_from(value)
        .map_err(|_| StoreError::Corrupt(format!("column {column}: {value} is out of range")))
}

impl FromPg for OutboxRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            run: RunPk(get(row, "run_pk")?),
            dispatch: dispatch(row, "ti_pk")?,
            queue: get(row, "queue")?,
            body: get(row, "body")?,
            epoch: get(row, "epoch")?,
            claim_by: get(row, "claim_by")?,
            priority: get(row, "priority")?,
        })
    }
}

fn dispatch(row: &PgRow, ti: &str) -> StoreResult<Dispatch> {
    Ok(Dispatch {
        ti: TiPk(get(row, ti)?),
        fence: Fence(get(row, "fence")?),
    })
}

/// Columns of [`OutDispatch`], of `task_instances t`.
macro_rules! out_columns {
    () => {
        "t.run_pk, t.pk, t.fence, t.state, t.epoch, t.claim_by, t.worker"
    };
}
pub(crate) use out_columns;

impl FromPg for OutDispatch {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            run: RunPk(get(row, "run_pk")?),
            dispatch: dispatch(row, "pk")?,
            state: named(row, "state")?,
            epoch: get(row, "epoch")?,
            claim_by: get(row, "claim_by")?,
            worker: get(row, "worker")?,
        })
    }
}

impl FromPg for WorkerRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            incarnation: get(row, "incarnation")?,
            state: match get::<&str>(row, "state")? {
                "alive" => WorkerState::Alive,
                "lost" => WorkerState::Lost,
                other => {
                    return Err(StoreError::Corrupt(format!(
                        "column state: {other:?} is not a state of a worker"
                    )));
                }
            },
            held_until: get(row, "held_until")?,
        })
    }
}

impl FromPg for QueueCounts {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            queue: get(row, "queue")?,
            scheduled: get(row, "scheduled")?,
            queued: get(row, "queued")?,
            running: get(row, "running")?,
            oldest_ready_at: get::<Option<DateTime<Utc>>>(row, "oldest_ready_at")?,
            paused: get(row, "paused")?,
            rate_limit: get::<Option<i64>>(row, "rate_count")?
                .zip(get::<Option<i64>>(row, "rate_seconds")?)
                .and_then(|(count, seconds)| RateLimit::new(count, seconds)),
            dead: get(row, "dead")?,
        })
    }
}

impl FromPg for PoolRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            name: get(row, "name")?,
            slots: get(row, "cap")?,
            occupied: get(row, "used")?,
            description: get(row, "description")?,
            include_deferred: get(row, "include_deferred")?,
        })
    }
}

impl FromPg for ImportErrorRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            id: get(row, "id")?,
            filename: get(row, "filename")?,
            error: get(row, "error")?,
            at: get(row, "at")?,
        })
    }
}

impl FromPg for ComponentRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            kind: get(row, "kind")?,
            id: get(row, "id")?,
            hostname: get(row, "hostname")?,
            started_at: get(row, "started_at")?,
            heartbeat_at: get(row, "heartbeat_at")?,
        })
    }
}

impl FromPg for UserRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            username: get(row, "username")?,
            password_hash: get(row, "password_hash")?,
            role: get(row, "role")?,
        })
    }
}

impl FromPg for TokenRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            hash: get(row, "hash")?,
            name: get(row, "name")?,
            role: get(row, "role")?,
            dag_id: get(row, "dag_id")?,
            expires_at: get(row, "expires_at")?,
            created_at: get(row, "created_at")?,
        })
    }
}

impl FromPg for DeadLetterRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            id: get(row, "id")?,
            source: get(row, "source")?,
            reason: get(row, "reason")?,
            body: String::from_utf8_lossy(get(row, "body")?).into_owned(),
            at: get(row, "at")?,
        })
    }
}

impl FromPg for AuditRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            at: get(row, "at")?,
            actor: get(row, "actor")?,
            event: get(row, "event")?,
            dag_id: get(row, "dag_id")?,
            run_id: get(row, "run_id")?,
            task_id: get(row, "task_id")?,
            extra: json(row, "extra")?,
        })
    }
}

/// Columns of [`ApprovalRow`], of `approvals a` and its instance `t`.
macro_rules! approval_columns {
    () => {
        "a.run_pk, a.ti_pk, t.task_id, t.map_index, a.try_number, a.prompt, a.options, a.who, a.default_answer, a.created_at, a.due_at, a.answer,
         a.answered_by, a.answered_at"
    };
}
pub(crate) use approval_columns;

impl FromPg for ApprovalRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            run: RunPk(get(row, "run_pk")?),
            ti: TiPk(get(row, "ti_pk")?),
            task_id: get(row, "task_id")?,
            map_index: get(row, "map_index")?,
            try_number: get(row, "try_number")?,
            prompt: get(row, "prompt")?,
            options: get(row, "options")?,
            who: get(row, "who")?,
            default: get(row, "default_answer")?,
            created_at: get(row, "created_at")?,
            due_at: get(row, "due_at")?,
            answer: get(row, "answer")?,
            answered_by: get(row, "answered_by")?,
            answered_at: get(row, "answered_at")?,
        })
    }
}

/// The name and what may be shown of a secret.
pub(crate) fn secret_meta(row: &PgRow) -> StoreResult<(String, serde_json::Value)> {
    Ok((get(row, "name")?, json(row, "meta")?))
}

/// The ciphertext and what may be shown of a secret.
pub(crate) fn secret(row: &PgRow) -> StoreResult<(String, serde_json::Value)> {
    Ok((get(row, "sealed")?, json(row, "meta")?))
}

impl FromPg for BackfillRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            id: BackfillPk(get(row, "id")?),
            dag_id: get(row, "dag_id")?,
            from_date: get(row, "from_date")?,
            to_date: get(row, "to_date")?,
            run_backwards: get(row, "run_backwards")?,
            max_active_runs: get(row, "max_active_runs")?,
            reprocess: named(row, "reprocess_behavior")?,
            conf: json(row, "conf")?,
            is_paused: get(row, "is_paused")?,
            left_out: get(row, "left_out")?,
            created_at: get(row, "created_at")?,
            updated_at: get(row, "updated_at")?,
            cancelled_at: get(row, "cancelled_at")?,
            completed_at: get(row, "completed_at")?,
            queued: get(row, "queued")?,
            running: get(row, "running")?,
            success: get(row, "success")?,
            failed: get(row, "failed")?,
        })
    }
}

impl FromPg for AssetRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        let event: Option<i64> = get(row, "event_id")?;
        let at: Option<DateTime<Utc>> = get(row, "event_at")?;
        Ok(Self {
            id: get(row, "id")?,
            name: get(row, "name")?,
            uri: get(row, "uri")?,
            group: get(row, "grp")?,
            extra: json(row, "extra")?,
            created_at: get(row, "created_at")?,
            updated_at: get(row, "updated_at")?,
            references: json(row, "uses")?,
            last_event: event.zip(at),
        })
    }
}

impl FromPg for AssetEventRow {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        let dag_id: Option<String> = get(row, "dag_id")?;
        let source = match dag_id {
            Some(dag_id) => Some(AssetSource {
                dag_id,
                run_id: get(row, "run_id")?,
                task_id: get(row, "task_id")?,
                map_index: get(row, "map_index")?,
            }),
            None => None,
        };
        let runs: Vec<i64> = get(row, "runs")?;
        Ok(Self {
            id: get(row, "id")?,
            asset_id: get(row, "asset_id")?,
            name: get(row, "name")?,
            uri: get(row, "uri")?,
            group: get(row, "grp")?,
            at: get(row, "at")?,
            extra: json(row, "extra")?,
            source,
            runs: runs.into_iter().map(RunPk).collect(),
        })
    }
}

impl FromPg for WaitingAsset {
    fn from_pg(row: &PgRow) -> StoreResult<Self> {
        Ok(Self {
            dag_id: get(row, "dag_id")?,
            asset_id: get(row, "asset_id")?,
            name: get(row, "name")?,
            event: get(row, "event")?,
            at: get(row, "at")?,
        })
    }
}
