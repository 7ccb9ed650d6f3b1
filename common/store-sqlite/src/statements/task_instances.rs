//! Task instances: insert, load, guarded update; and their ended attempts.

use crate::{
    codec::{Document, Flag, Micros, Named, encode, micros, time},
    session::{Session, args},
};
use gristmill_common::{
    ids::{Fence, RunPk, TaskIdx, TiPk},
    row::{AttemptRow, SharedKey, TiRow, Wait},
    spec::Strategy,
    state::TaskState,
    trigger_rule::Counters,
};
use gristmill_store::{NewTi, StoreError, StoreResult, TiWrite};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap};
use uuid::Uuid;

/// The columns of a task instance `t`, in the order of [`TiRecord`].
macro_rules! ti_row {
    () => {
        "json_array(t.pk, t.run, t.task_idx, t.task_id, t.map_index, t.state, t.fence, t.try_number, t.max_tries, \
         t.user_failures, t.infra_losses, t.attempt, t.epoch, t.queue, t.pool, t.pool_slots, t.priority_weight, \
         t.occupies, t.counters, t.expanded_len, t.map_values, t.map_name, t.scheduled_at, t.queued_at, \
         t.claim_by, t.started_at, t.ended_at, t.next_at, t.worker, t.hostname, t.pid, t.exit_code, t.reason, \
         t.wait, t.then_state, t.concurrency_key, t.concurrency_limit, t.concurrency_strategy)"
    };
}
pub(super) use ti_row;

/// The node of an expanded task stands for its instances and is hidden.
macro_rules! visible {
    () => {
        "(t.map_index >= 0 OR coalesce(t.expanded_len, 0) = 0)"
    };
}
pub(super) use visible;

/// A task instance as it is read.
#[derive(Deserialize)]
pub(super) struct TiRecord {
    pk: TiPk,
    run: RunPk,
    task_idx: TaskIdx,
    task_id: String,
    map_index: i32,
    state: Named<TaskState>,
    fence: Fence,
    try_number: i32,
    max_tries: i32,
    user_failures: i32,
    infra_losses: i32,
    attempt: Option<Uuid>,
    epoch: i64,
    queue: String,
    pool: String,
    pool_slots: i32,
    priority_weight: i32,
    occupies: Flag,
    counters: Document<[i32; 9]>,
    expanded_len: Option<i32>,
    map_values: Option<Document<Map<String, Value>>>,
    map_name: Option<String>,
    scheduled_at: Option<Micros>,
    queued_at: Option<Micros>,
    claim_by: Option<Micros>,
    started_at: Option<Micros>,
    ended_at: Option<Micros>,
    next_at: Option<Micros>,
    worker: Option<String>,
    hostname: Option<String>,
    pid: Option<i32>,
    exit_code: Option<i32>,
    reason: Option<String>,
    wait: Option<Document<Wait>>,
    then_state: Option<Named<TaskState>>,
    concurrency_key: String,
    concurrency_limit: Option<i32>,
    concurrency_strategy: Option<Named<Strategy>>,
}

impl From<TiRecord> for TiRow {
    fn from(r: TiRecord) -> Self {
        Self {
            pk: r.pk,
            run: r.run,
            task_idx: r.task_idx,
            task_id: r.task_id,
            map_index: r.map_index,
            state: r.state.0,
            fence: r.fence,
            try_number: r.try_number,
            max_tries: r.max_tries,
            user_failures: r.user_failures,
            infra_losses: r.infra_losses,
            attempt: r.attempt,
            epoch: r.epoch,
            queue: r.queue,
            pool: r.pool,
            pool_slots: r.pool_slots,
            priority_weight: r.priority_weight,
            occupies: r.occupies.0,
            counters: read_counters(r.counters.0),
            expanded_len: r.expanded_len,
            map_values: r.map_values.map(|d| d.0),
            map_name: r.map_name,
            shared: (!r.concurrency_key.is_empty()).then(|| SharedKey {
                key: r.concurrency_key,
                limit: r.concurrency_limit.unwrap_or(1),
                strategy: r
                    .concurrency_strategy
                    .map_or(Strategy::Queue, |name| name.0),
            }),
            scheduled_at: time(r.scheduled_at),
            queued_at: time(r.queued_at),
            claim_by: time(r.claim_by),
            started_at: time(r.started_at),
            ended_at: time(r.ended_at),
            next_at: time(r.next_at),
            // Of any other state it says nothing.
            then: r
                .then_state
                .filter(|_| r.state.0 == TaskState::Restarting)
                .map(|then| then.0),
            worker: r.worker,
            hostname: r.hostname,
            pid: r.pid,
            exit_code: r.exit_code,
            reason: r.reason,
            wait: r.wait.map(|d| d.0),
        }
    }
}

fn read_counters(c: [i32; 9]) -> Counters {
    let [
        total,
        success,
        failed,
        upstream_failed,
        skipped,
        removed,
        setups,
        setup_success,
        setup_skipped,
    ] = c;
    Counters {
        total,
        success,
        failed,
        upstream_failed,
        skipped,
        removed,
        setups,
        setup_success,
        setup_skipped,
        setup_failed: 0,
    }
}

fn write_counters(c: &Counters) -> [i32; 9] {
    [
        c.total,
        c.success,
        c.failed,
        c.upstream_failed,
        c.skipped,
        c.removed,
        c.setups,
        c.setup_success,
        c.setup_skipped,
    ]
}

/// A task instance as it is written.
#[derive(Serialize)]
struct TiJson<'a> {
    pk: TiPk,
    expected_state: &'static str,
    expected_fence: Fence,
    state: &'static str,
    fence: Fence,
    try_number: i32,
    max_tries: i32,
    user_failures: i32,
    infra_losses: i32,
    attempt: Option<Uuid>,
    epoch: i64,
    occupies: Flag,
    counters: Document<[i32; 9]>,
    expanded_len: Option<i32>,
    scheduled_at: Option<Micros>,
    queued_at: Option<Micros>,
    claim_by: Option<Micros>,
    started_at: Option<Micros>,
    ended_at: Option<Micros>,
    next_at: Option<Micros>,
    worker: Option<&'a str>,
    hostname: Option<&'a str>,
    pid: Option<i32>,
    exit_code: Option<i32>,
    reason: Option<&'a str>,
    wait: Option<Document<&'a Wait>>,
    #[serde(flatten)]
    identity: Option<Identity<'a>>,
}

/// What never changes: written once.
#[derive(Serialize)]
struct Identity<'a> {
    run: RunPk,
    task_idx: TaskIdx,
    task_id: &'a str,
    map_index: i32,
    queue: &'a str,
    pool: &'a str,
    pool_slots: i32,
    priority_weight: i32,
    map_values: Option<Document<&'a Map<String, Value>>>,
    map_name: Option<&'a str>,
    #[serde(flatten)]
    shared: SharedJson<'a>,
}

/// The limit that an instance shares, in columns.
#[derive(Serialize)]
pub(super) struct SharedJson<'a> {
    /// Empty: none.
    concurrency_key: &'a str,
    concurrency_limit: Option<i32>,
    /// None for those that only wait, which nobody has to look for.
    concurrency_strategy: Option<&'static str>,
}

impl<'a> SharedJson<'a> {
    pub(super) fn of(row: &'a TiRow) -> Self {
        let shared = row.shared.as_ref();
        Self {
            concurrency_key: shared.map_or("", |shared| &shared.key),
            concurrency_limit: shared.map(|shared| shared.limit),
            concurrency_strategy: shared
                .map(|shared| shared.strategy)
                .filter(|strategy| *strategy != Strategy::Queue)
                .map(Strategy::as_str),
        }
    }
}

impl<'a> TiJson<'a> {
    fn update(write: &'a TiWrite) -> Self {
        Self::of(&write.row, write.expected_state, write.expected_fence)
    }

    fn insert(row: &'a TiRow) -> Self {
        Self {
            identity: Some(Identity {
                run: row.run,
                task_idx: row.task_idx,
                task_id: &row.task_id,
                map_index: row.map_index,
                queue: &row.queue,
                pool: &row.pool,
                pool_slots: row.pool_slots,
                priority_weight: row.priority_weight,
                map_values: row.map_values.as_ref().map(Document),
                map_name: row.map_name.as_deref(),
                shared: SharedJson::of(row),
            }),
            ..Self::of(row, row.state, row.fence)
        }
    }

    fn of(row: &'a TiRow, expected_state: TaskState, expected_fence: Fence) -> Self {
        Self {
            pk: row.pk,
            expected_state: expected_state.as_str(),
            expected_fence,
            state: row.state.as_str(),
            fence: row.fence,
            try_number: row.try_number,
            max_tries: row.max_tries,
            user_failures: row.user_failures,
            infra_losses: row.infra_losses,
            attempt: row.attempt,
            epoch: row.epoch,
            occupies: Flag(row.occupies),
            counters: Document(write_counters(&row.counters)),
            expanded_len: row.expanded_len,
            scheduled_at: micros(row.scheduled_at),
            queued_at: micros(row.queued_at),
            claim_by: micros(row.claim_by),
            started_at: micros(row.started_at),
            ended_at: micros(row.ended_at),
            next_at: micros(row.next_at),
            worker: row.worker.as_deref(),
            hostname: row.hostname.as_deref(),
            pid: row.pid,
            exit_code: row.exit_code,
            reason: row.reason.as_deref(),
            wait: row.wait.as_ref().map(Document),
            identity: None,
        }
    }
}

const INSERT: &str = "
INSERT INTO task_instances
    (run, task_idx, task_id, map_index, state, fence, try_number, max_tries, user_failures, infra_losses, attempt, epoch,
     queue, pool, pool_slots, priority_weight, occupies, counters, expanded_len, map_values, map_name,
     scheduled_at, queued_at, claim_by, started_at, ended_at, next_at, worker, hostname, pid, exit_code, reason, wait,
     concurrency_key, concurrency_limit, concurrency_strategy)
SELECT value ->> 'run', value ->> 'task_idx', value ->> 'task_id', value ->> 'map_index', value ->> 'state',
    value ->> 'fence', value ->> 'try_number', value ->> 'max_tries', value ->> 'user_failures',
    value ->> 'infra_losses', value ->> 'attempt', value ->> 'epoch', value ->> 'queue', value ->> 'pool',
    value ->> 'pool_slots', value ->> 'priority_weight', value ->> 'occupies', value ->> 'counters',
    value ->> 'expanded_len', value ->> 'map_values', value ->> 'map_name', value ->> 'scheduled_at',
    value ->> 'queued_at', value ->> 'claim_by', value ->> 'started_at', value ->> 'ended_at', value ->> 'next_at', value ->> 'worker',
    value ->> 'hostname', value ->> 'pid', value ->> 'exit_code', value ->> 'reason',
    value ->> 'wait', value ->> 'concurrency_key', value ->> 'concurrency_limit', value ->> 'concurrency_strategy'
FROM jsonb_each(?1)
RETURNING json_array(pk, run, task_idx, map_index)";

const UPDATE: &str = "
UPDATE task_instances AS t SET
    state = w.value ->> 'state', fence = w.value ->> 'fence', try_number = w.value ->> 'try_number',
    max_tries = w.value ->> 'max_tries', user_failures = w.value ->> 'user_failures',
    infra_losses = w.value ->> 'infra_losses', attempt = w.value ->> 'attempt', epoch = w.value ->> 'epoch',
    occupies = w.value ->> 'occupies', counters = w.value ->> 'counters',
    expanded_len = w.value ->> 'expanded_len', scheduled_at = w.value ->> 'scheduled_at',
    queued_at = w.value ->> 'queued_at', claim_by = w.value ->> 'claim_by', started_at = w.value ->> 'started_at',
    ended_at = w.value ->> 'ended_at', next_at = w.value ->> 'next_at', worker = w.value ->> 'worker',
    hostname = w.value ->> 'hostname', pid = w.value ->> 'pid', exit_code = w.value ->> 'exit_code',
    reason = w.value ->> 'reason', wait = w.value ->> 'wait'
FROM jsonb_each(?1) AS w
WHERE t.pk = w.value ->> 'pk' AND t.state = w.value ->> 'expected_state' AND t.fence = w.value ->> 'expected_fence'
RETURNING json_array(pk)";

impl Session {
    pub(crate) async fn insert_tis(&mut self, tis: &[NewTi]) -> StoreResult<Vec<TiPk>> {
        if tis.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<_> = tis.iter().map(|ti| TiJson::insert(&ti.0)).collect();
        let inserted: Vec<(TiPk, RunPk, TaskIdx, i32)> =
            self.rows(INSERT, args![encode(&rows)?]).await?;
        // RETURNING promises no order: the keys are put into the order of the input by what names an instance.
        let keys: HashMap<_, _> = inserted
            .into_iter()
            .map(|(pk, run, task, map)| ((run, task, map), pk))
            .collect();
        tis.iter()
            .map(|NewTi(row)| {
                keys.get(&(row.run, row.task_idx, row.map_index))
                    .copied()
                    .ok_or_else(|| {
                        StoreError::Corrupt(format!("{:?} was not inserted", row.task_id))
                    })
            })
            .collect()
    }

    pub(crate) async fn load_tis(&mut self, tis: &[TiPk]) -> StoreResult<Vec<TiRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            ti_row!(),
            " FROM task_instances AS t WHERE t.pk IN (SELECT value FROM jsonb_each(?1)) ORDER BY t.pk"
        );
        if tis.is_empty() {
            return Ok(Vec::new());
        }
        self.ti_rows(SQL, args![encode(tis)?]).await
    }

    pub(crate) async fn load_nodes(
        &mut self,
        nodes: &[(RunPk, TaskIdx)],
    ) -> StoreResult<Vec<TiRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            ti_row!(),
            " FROM jsonb_each(?1) AS k CROSS JOIN task_instances AS t
                ON t.run = k.value ->> 0 AND t.task_idx = k.value ->> 1 AND t.map_index = -1
              ORDER BY t.pk"
        );
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        let nodes: BTreeSet<_> = nodes.iter().collect();
        self.ti_rows(SQL, args![encode(&nodes)?]).await
    }

    pub(crate) async fn load_instances(
        &mut self,
        instances: &[(RunPk, TaskIdx, Option<i32>)],
    ) -> StoreResult<Vec<TiRow>> {
        // As a range, one index or all are the same look into the unique index.
        const SQL: &str = concat!(
            "SELECT ",
            ti_row!(),
            " FROM jsonb_each(?1) AS k CROSS JOIN task_instances AS t
                ON t.run = k.value ->> 0 AND t.task_idx = k.value ->> 1
               AND t.map_index BETWEEN coalesce(k.value ->> 2, 0) AND coalesce(k.value ->> 2, 2147483647)
              ORDER BY t.pk"
        );
        if instances.is_empty() {
            return Ok(Vec::new());
        }
        let instances: BTreeSet<_> = instances.iter().collect();
        self.ti_rows(SQL, args![encode(&instances)?]).await
    }

    pub(crate) async fn load_unfinished(&mut self, run: RunPk) -> StoreResult<Vec<TiRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            ti_row!(),
            " FROM task_instances AS t
              WHERE t.run = ?1 AND t.state NOT IN ('success', 'failed', 'upstream_failed', 'skipped', 'removed')
                AND ",
            visible!(),
            "
              ORDER BY t.pk"
        );
        self.ti_rows(SQL, args![run.0]).await
    }

    pub(crate) async fn runs_of(&mut self, tis: &[TiPk]) -> StoreResult<Vec<(TiPk, RunPk)>> {
        const SQL: &str = "
            SELECT json_array(pk, run) FROM task_instances WHERE pk IN (SELECT value FROM jsonb_each(?1))";
        self.rows(SQL, args![encode(tis)?]).await
    }

    pub(crate) async fn update_tis(&mut self, writes: &[TiWrite]) -> StoreResult<Vec<TiPk>> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<_> = writes.iter().map(TiJson::update).collect();
        let written: Vec<(TiPk,)> = self.rows(UPDATE, args![encode(&rows)?]).await?;
        Ok(written.into_iter().map(|(pk,)| pk).collect())
    }

    /// Task instances of a query over [`ti_row`].
    pub(super) async fn ti_rows(
        &mut self,
        sql: &'static str,
        args: Vec<crate::session::Arg>,
    ) -> StoreResult<Vec<TiRow>> {
        let records: Vec<TiRecord> = self.rows(sql, args).await?;
        Ok(records.into_iter().map(TiRow::from).collect())
    }

    pub(crate) async fn insert_attempts(&mut self, attempts: &[AttemptRow]) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO task_attempts (ti, try_number, attempt, fence, ending, started_at, ended_at, worker, hostname,
                pid, exit_code, reason)
            SELECT value ->> 'ti', value ->> 'try_number', value ->> 'attempt', value ->> 'fence', value ->> 'ending',
                value ->> 'started_at', value ->> 'ended_at', value ->> 'worker', value ->> 'hostname',
                value ->> 'pid', value ->> 'exit_code', value ->> 'reason'
            FROM jsonb_each(?1)";
        #[derive(Serialize)]
        struct Json<'a> {
            ti: TiPk,
            try_number: i32,
            attempt: Uuid,
            fence: Fence,
            ending: &'a str,
            started_at: Option<Micros>,
            ended_at: Micros,
            worker: Option<&'a str>,
            hostname: Option<&'a str>,
            pid: Option<i32>,
            exit_code: Option<i32>,
            reason: Option<&'a str>,
        }
        if attempts.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = attempts
            .iter()
            .map(|a| Json {
                ti: a.ti,
                try_number: a.try_number,
                attempt: a.attempt,
                fence: a.fence,
                ending: &a.ending,
                started_at: micros(a.started_at),
                ended_at: Micros(a.ended_at),
                worker: a.worker.as_deref(),
                hostname: a.hostname.as_deref(),
                pid: a.pid,
                exit_code: a.exit_code,
                reason: a.reason.as_deref(),
            })
            .collect();
        self.execute(SQL, args![encode(&rows)?]).await?;
        Ok(())
    }

    pub(crate) async fn attempts(&mut self, ti: TiPk) -> StoreResult<Vec<AttemptRow>> {
        const SQL: &str = "
            SELECT json_array(ti, try_number, attempt, fence, ending, started_at, ended_at, worker, hostname, pid,
                exit_code, reason)
            FROM task_attempts WHERE ti = ?1 ORDER BY try_number";
        #[derive(Deserialize)]
        struct Record {
            ti: TiPk,
            try_number: i32,
            attempt: Uuid,
            fence: Fence,
            ending: String,
            started_at: Option<Micros>,
            ended_at: Micros,
            worker: Option<String>,
            hostname: Option<String>,
            pid: Option<i32>,
            exit_code: Option<i32>,
            reason: Option<String>,
        }
        let records: Vec<Record> = self.rows(SQL, args![ti.0]).await?;
        Ok(records
            .into_iter()
            .map(|r| AttemptRow {
                ti: r.ti,
                try_number: r.try_number,
                attempt: r.attempt,
                fence: r.fence,
                ending: r.ending,
                started_at: time(r.started_at),
                ended_at: r.ended_at.0,
                worker: r.worker,
                hostname: r.hostname,
                pid: r.pid,
                exit_code: r.exit_code,
                reason: r.reason,
            })
            .collect())
    }
}
