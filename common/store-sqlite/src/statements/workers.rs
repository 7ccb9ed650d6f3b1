//! Workers, what they hold, barriers; the schedulers' heartbeats.

use crate::{
    codec::{Flag, Micros, Named, encode, time},
    session::{Arg, Session, args},
};
use chrono::{DateTime, Utc};
use gristmill_common::{
    ids::{Dispatch, Fence, RunPk, TiPk},
    state::TaskState,
};
use gristmill_store::{
    ComponentRow, OutDispatch, StoreError, StoreResult, ToDo, WorkerRow, WorkerState,
};
use serde::Deserialize;
use uuid::Uuid;

macro_rules! out_row {
    () => {
        "json_array(t.run, t.pk, t.fence, t.state, t.epoch, t.claim_by, t.worker)"
    };
}

#[derive(Deserialize)]
struct OutRecord {
    run: RunPk,
    ti: TiPk,
    fence: Fence,
    state: Named<TaskState>,
    epoch: i64,
    claim_by: Option<Micros>,
    worker: Option<String>,
}

type WorkerRecord = (String, String, Option<Micros>);

fn worker_row((incarnation, state, held_until): WorkerRecord) -> StoreResult<WorkerRow> {
    let state = [WorkerState::Alive, WorkerState::Lost]
        .into_iter()
        .find(|s| s.as_str() == state)
        .ok_or_else(|| {
            StoreError::Corrupt(format!(
                "{state:?} of worker {incarnation:?} is no worker's state"
            ))
        })?;
    Ok(WorkerRow {
        incarnation,
        state,
        held_until: time(held_until),
    })
}

impl Session {
    pub(crate) async fn lock_worker(&mut self, incarnation: &str) -> StoreResult<WorkerRow> {
        // A write that changes nothing, so that RETURNING answers for a row that was there too.
        const SQL: &str = "
            INSERT INTO workers (incarnation, state, updated_at) VALUES (?1, 'alive', ?2)
            ON CONFLICT (incarnation) DO UPDATE SET updated_at = excluded.updated_at
            RETURNING json_array(incarnation, state, held_until)";
        worker_row(self.one(SQL, args![incarnation, self.now]).await?)
    }

    pub(crate) async fn update_worker(&mut self, worker: &WorkerRow) -> StoreResult<()> {
        const SQL: &str = "
            UPDATE workers SET state = ?2, held_until = ?3, updated_at = ?4 WHERE incarnation = ?1";
        let written = self
            .execute(
                SQL,
                args![
                    worker.incarnation.as_str(),
                    worker.state.as_str(),
                    worker.held_until,
                    self.now
                ],
            )
            .await?;
        if written > 0 {
            return Ok(());
        }
        Err(StoreError::NotFound {
            what: "worker",
            name: worker.incarnation.clone(),
        })
    }

    pub(crate) async fn busy_workers(&mut self) -> StoreResult<Vec<WorkerRow>> {
        const SQL: &str = "
            SELECT json_array(out.worker, coalesce(w.state, 'alive'), w.held_until)
            FROM (SELECT DISTINCT worker FROM task_instances
                  WHERE state IN ('queued', 'running', 'restarting') AND worker IS NOT NULL) AS out
            LEFT JOIN workers AS w ON w.incarnation = out.worker
            ORDER BY out.worker";
        let rows: Vec<WorkerRecord> = self.rows(SQL, args![]).await?;
        rows.into_iter().map(worker_row).collect()
    }

    pub(crate) async fn look_for_work(
        &mut self,
        written_before: DateTime<Utc>,
    ) -> StoreResult<ToDo> {
        // Each is one probe of an index that holds little else.
        const SQL: &str = "
            SELECT json_array(
                EXISTS (SELECT 1 FROM dags WHERE next_run_after <= ?1 AND is_paused = 0 AND is_stale = 0),
                EXISTS (SELECT 1 FROM dag_runs WHERE state = 'queued' AND (run_after <= ?1 OR backfill_id IS NOT NULL)),
                EXISTS (SELECT 1 FROM dags AS d CROSS JOIN dag_runs AS r ON r.dag_id = d.dag_id
                    WHERE d.overlap = 'cancel' AND d.is_paused = 0 AND r.state = 'queued' AND r.run_after <= ?1
                        AND r.run_type = 'scheduled'),
                EXISTS (SELECT 1 FROM asset_queue AS q CROSS JOIN dags AS d ON d.dag_id = q.dag_id WHERE q.looked = 0),
                EXISTS (SELECT 1 FROM dag_runs WHERE state = 'running'
                    AND (stop_reason IS NOT NULL AND unfinished_tasks > 0 OR deadline_at <= ?1)),
                EXISTS (SELECT 1 FROM dag_runs WHERE state = 'running' AND ready_tasks > 0
                    AND active_tasks < max_active_tasks AND stop_reason IS NULL),
                EXISTS (SELECT 1 FROM task_instances WHERE state = 'up_for_retry' AND next_at <= ?1),
                EXISTS (SELECT 1 FROM task_instances
                        WHERE state IN ('none', 'up_for_reschedule', 'deferred', 'awaiting_input') AND next_at <= ?1)
                    OR EXISTS (SELECT 1 FROM dag_runs WHERE waiter IS NOT NULL AND ended_at IS NOT NULL),
                EXISTS (SELECT 1 FROM callbacks WHERE state = 'pending' AND next_at <= ?1),
                EXISTS (SELECT 1 FROM dag_runs WHERE next_deadline <= ?1),
                EXISTS (SELECT 1 FROM task_instances WHERE state = 'queued' AND claim_by < ?1)
                    OR EXISTS (SELECT 1 FROM task_instances WHERE state = 'restarting' AND worker IS NULL AND claim_by < ?1),
                EXISTS (SELECT 1 FROM task_instances AS t
                    CROSS JOIN limits AS l ON l.kind = 'task_key' AND l.name = t.concurrency_key
                    WHERE t.concurrency_strategy IS NOT NULL AND t.state = 'scheduled'
                        AND l.used >= t.concurrency_limit),
                EXISTS (SELECT 1 FROM task_instances WHERE state = 'restarting'),
                EXISTS (SELECT 1 FROM outbox WHERE written_at <= ?2))";
        #[derive(Deserialize)]
        struct Record {
            due_dags: Flag,
            queued_runs: Flag,
            overlaps: Flag,
            asset_events: Flag,
            runs_to_stop: Flag,
            ready: Flag,
            retries: Flag,
            waits: Flag,
            callbacks: Flag,
            deadlines: Flag,
            unclaimed: Flag,
            pushing: Flag,
            restarting: Flag,
            unpublished: Flag,
        }
        let found: Record = self.one(SQL, args![self.now, written_before]).await?;
        Ok(ToDo {
            due_dags: found.due_dags.0,
            queued_runs: found.queued_runs.0,
            overlaps: found.overlaps.0,
            asset_events: found.asset_events.0,
            runs_to_stop: found.runs_to_stop.0,
            ready: found.ready.0,
            retries: found.retries.0,
            waits: found.waits.0,
            callbacks: found.callbacks.0,
            deadlines: found.deadlines.0,
            unclaimed: found.unclaimed.0,
            pushing: found.pushing.0,
            restarting: found.restarting.0,
            unpublished: found.unpublished.0,
        })
    }

    pub(crate) async fn unclaimed(
        &mut self,
        claim_before: DateTime<Utc>,
        max: i64,
    ) -> StoreResult<Vec<OutDispatch>> {
        const SQL: &str = concat!(
            "SELECT ",
            out_row!(),
            " FROM task_instances AS t
              WHERE t.pk IN (SELECT pk FROM task_instances WHERE state = 'queued' AND claim_by < ?1
                             UNION ALL
                             SELECT pk FROM task_instances WHERE state = 'restarting' AND worker IS NULL AND claim_by < ?1)
              ORDER BY t.claim_by, t.pk LIMIT ?2"
        );
        self.out_rows(SQL, args![claim_before, max]).await
    }

    pub(crate) async fn expire_claim(&mut self, bounced: &[Dispatch]) -> StoreResult<()> {
        // A claim that is over already keeps its time.
        const SQL: &str = "
            UPDATE task_instances AS t SET claim_by = ?2
            FROM jsonb_each(?1) AS b
            WHERE t.pk = b.value ->> 'ti' AND t.fence = b.value ->> 'fence' AND t.state = 'queued' AND t.claim_by > ?2";
        if bounced.is_empty() {
            return Ok(());
        }
        self.execute(SQL, args![encode(bounced)?, self.now]).await?;
        Ok(())
    }

    pub(crate) async fn out_dispatches(
        &mut self,
        worker: Option<&str>,
    ) -> StoreResult<Vec<OutDispatch>> {
        const OF_WORKER: &str = concat!(
            "SELECT ",
            out_row!(),
            " FROM task_instances AS t WHERE t.state IN ('queued', 'running', 'restarting') AND t.worker = ?1 ORDER BY t.pk"
        );
        // The order alone would make SQLite walk the whole table.
        const ALL: &str = concat!(
            "SELECT ",
            out_row!(),
            " FROM task_instances AS t INDEXED BY task_instances_worker
              WHERE t.state IN ('queued', 'running', 'restarting') ORDER BY t.pk"
        );
        match worker {
            Some(worker) => self.out_rows(OF_WORKER, args![worker]).await,
            None => self.out_rows(ALL, args![]).await,
        }
    }

    pub(crate) async fn out_in_run(&mut self, run: RunPk) -> StoreResult<Vec<OutDispatch>> {
        const SQL: &str = concat!(
            "SELECT ",
            out_row!(),
            " FROM task_instances AS t WHERE t.run = ?1 AND t.state IN ('queued', 'running', 'restarting')
              ORDER BY t.pk"
        );
        self.out_rows(SQL, args![run.0]).await
    }

    pub(crate) async fn restarting(&mut self, max: i64) -> StoreResult<Vec<OutDispatch>> {
        const SQL: &str = concat!(
            "SELECT ",
            out_row!(),
            " FROM task_instances AS t WHERE t.state = 'restarting' ORDER BY t.pk LIMIT ?1"
        );
        self.out_rows(SQL, args![max]).await
    }

    async fn out_rows(
        &mut self,
        sql: &'static str,
        args: Vec<Arg>,
    ) -> StoreResult<Vec<OutDispatch>> {
        let records: Vec<OutRecord> = self.rows(sql, args).await?;
        Ok(records
            .into_iter()
            .map(|r| OutDispatch {
                run: r.run,
                dispatch: Dispatch {
                    ti: r.ti,
                    fence: r.fence,
                },
                state: r.state.0,
                epoch: r.epoch,
                claim_by: time(r.claim_by),
                worker: r.worker,
            })
            .collect())
    }

    pub(crate) async fn apply_barrier(&mut self, barrier: Uuid, shard: u16) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO barriers (barrier, shard, applied_at) VALUES (?1, ?2, ?3)
            ON CONFLICT (barrier, shard) DO NOTHING";
        self.execute(SQL, args![barrier.to_string(), i32::from(shard), self.now])
            .await?;
        Ok(())
    }

    pub(crate) async fn leased_over_broker(&mut self, since: DateTime<Utc>) -> StoreResult<bool> {
        let (leased,) = self
            .one(
                "SELECT json_array(count(*)) FROM workers WHERE state = 'alive' AND held_until >= ?1",
                args![since],
            )
            .await?;
        let leased: i64 = leased;
        Ok(leased > 0)
    }

    pub(crate) async fn barrier_applied(&mut self, barrier: Uuid) -> StoreResult<u16> {
        let (shards,) = self
            .one(
                "SELECT json_array(count(*)) FROM barriers WHERE barrier = ?1",
                args![barrier.to_string()],
            )
            .await?;
        Ok(shards)
    }

    pub(crate) async fn heartbeat(
        &mut self,
        kind: &str,
        id: &str,
        hostname: &str,
    ) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO components (kind, id, hostname, started_at, heartbeat_at) VALUES (?1, ?2, ?3, ?4, ?4)
            ON CONFLICT (kind, id) DO UPDATE SET hostname = excluded.hostname, heartbeat_at = excluded.heartbeat_at";
        self.execute(SQL, args![kind, id, hostname, self.now])
            .await?;
        Ok(())
    }

    pub(crate) async fn components(&mut self) -> StoreResult<Vec<ComponentRow>> {
        const SQL: &str = "
            SELECT json_array(kind, id, hostname, started_at, heartbeat_at) FROM components ORDER BY kind, id";
        let rows: Vec<(String, String, String, Micros, Micros)> = self.rows(SQL, args![]).await?;
        Ok(rows
            .into_iter()
            .map(
                |(kind, id, hostname, started_at, heartbeat_at)| ComponentRow {
                    kind,
                    id,
                    hostname,
                    started_at: started_at.0,
                    heartbeat_at: heartbeat_at.0,
                },
            )
            .collect())
    }
}
