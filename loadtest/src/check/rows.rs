//! What the database has of runs, task instances, attempts and limits: read once, in one snapshot.

use super::CheckError;
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use gristmill_common::{
    spec::DagSpec,
    state::{RunState, TaskState},
    trigger_rule::Counters,
};
use sqlx::{Connection, PgConnection, PgPool, Row, postgres::PgRow};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
    sync::Arc,
};

/// A run.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) pk: i64,
    pub(super) dag_id: String,
    pub(super) run_id: String,
    pub(super) version: i64,
    /// It counts against this backfill's `max_active_runs` and not against its DAG's.
    pub(super) backfill: Option<i64>,
    pub(super) state: RunState,
    pub(super) stopped: bool,
    pub(super) max_active_tasks: i64,
    pub(super) active_tasks: i64,
    pub(super) ready_tasks: i64,
    pub(super) unfinished_tasks: i64,
    pub(super) failed_leaves: i64,
    /// The key that it shares with other runs of its DAG; empty: none.
    pub(super) key: String,
}

impl Run {
    /// Kind and name of the limit that it counts against while it is running.
    pub(super) fn limit(&self) -> (String, String) {
        match self.backfill {
            Some(id) => ("backfill".to_owned(), id.to_string()),
            None => ("dag_runs".to_owned(), self.dag_id.clone()),
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.dag_id, self.run_id)
    }
}

/// A row of `task_instances`, nodes of expanded tasks included.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) pk: i64,
    /// Position in [`Rows::runs`].
    pub(super) run: usize,
    pub(super) task_idx: i32,
    pub(super) map_index: i32,
    pub(super) state: TaskState,
    pub(super) fence: i64,
    pub(super) try_number: i32,
    pub(super) occupies: bool,
    pub(super) expanded_len: Option<i32>,
    /// Position in [`Rows::names`].
    pub(super) pool: usize,
    pub(super) pool_slots: i64,
    /// Position in [`Rows::names`].
    pub(super) queue: usize,
    /// The key that it shares with other instances, and how many may hold it.
    pub(super) shared: Option<(String, i64)>,
    /// When it was dispatched last.
    pub(super) queued_at: Option<DateTime<Utc>>,
    pub(super) counters: Counters,
    /// The records of its attempts, as positions in [`Rows::attempts`].
    pub(super) attempts: std::ops::Range<usize>,
}

impl Instance {
    /// Whether it stands for itself: the node of an expanded task stands for its instances.
    pub(super) fn is_visible(&self) -> bool {
        !(self.map_index < 0 && self.expanded_len.is_some_and(|n| n > 0))
    }
}

/// A record of an ended attempt.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) fence: i64,
    pub(super) try_number: i32,
    pub(super) ending: Ending,
    pub(super) started_at: Option<DateTime<Utc>>,
    pub(super) ended_at: DateTime<Utc>,
    pub(super) pid: Option<i32>,
    pub(super) exit_code: Option<i32>,
}

/// How an attempt ended, by its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Success,
    Failed,
    Skipped,
    UpForRetry,
    Lost,
    Requeued,
}

impl Ending {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::UpForRetry => "up_for_retry",
            Self::Lost => "lost",
            Self::Requeued => "requeued",
        }
    }

    /// Whether infrastructure ended it, and not the task.
    pub(super) const fn is_interruption(self) -> bool {
        matches!(self, Self::Lost | Self::Requeued)
    }
}

impl FromStr for Ending {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [
            Self::Success,
            Self::Failed,
            Self::Skipped,
            Self::UpForRetry,
            Self::Lost,
            Self::Requeued,
        ]
        .into_iter()
        .find(|ending| ending.name() == text)
        .ok_or_else(|| format!("{text:?} is not the ending of an attempt"))
    }
}

/// What is used of a limit by its own row, and its cap (below 0: none).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Limit {
    pub(super) cap: i64,
    pub(super) used: i64,
    /// Of a pool: what waits without a worker counts in it.
    pub(super) include_deferred: bool,
    /// Of a queue: so many dispatches in so many seconds.
    pub(super) rate: Option<(i64, i64)>,
}

/// Everything, in the order of keys.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) runs: Vec<Run>,
    /// Sorted by run, task and map index.
    pub(super) instances: Vec<Instance>,
    pub(super) attempts: Vec<Attempt>,
    /// Versions by key.
    pub(super) specs: HashMap<i64, Arc<DagSpec>>,
    /// By kind and name.
    pub(super) limits: BTreeMap<(String, String), Limit>,
    /// Names of pools and queues.
    pub(super) names: Vec<String>,
    by_name: HashMap<(String, String), usize>,
}

impl Rows {
    pub(super) async fn read(pool: &PgPool) -> Result<Self, CheckError> {
        let mut connection = pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            .execute(&mut *transaction)
            .await?;
        let mut rows = Self::default();
        rows.read_runs(&mut transaction).await?;
        rows.read_instances(&mut transaction).await?;
        rows.read_attempts(&mut transaction).await?;
        rows.read_limits(&mut transaction).await?;
        Ok(rows)
    }

    async fn read_runs(&mut self, connection: &mut PgConnection) -> Result<(), CheckError> {
        let mut rows = sqlx::query(
            "SELECT pk, dag_id, run_id, version_pk, state, stop_reason IS NOT NULL, max_active_tasks, active_tasks,
                    ready_tasks, unfinished_tasks, failed_leaves, backfill_id, COALESCE(concurrency_key, '')
             FROM dag_runs ORDER BY pk",
        )
        .fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            self.runs.push(Run {
                pk: row.try_get(0)?,
                dag_id: row.try_get(1)?,
                run_id: row.try_get(2)?,
                version: row.try_get(3)?,
                state: parsed(&row, 4)?,
                stopped: row.try_get(5)?,
                max_active_tasks: int(&row, 6)?,
                active_tasks: int(&row, 7)?,
                ready_tasks: int(&row, 8)?,
                unfinished_tasks: int(&row, 9)?,
                failed_leaves: int(&row, 10)?,
                backfill: row.try_get(11)?,
                key: row.try_get(12)?,
            });
        }
        drop(rows);
        (0..self.runs.len()).for_each(|position| self.add_name(position));
        let mut versions = sqlx::query(
            "SELECT pk, spec::text FROM dag_versions
             WHERE pk IN (SELECT version_pk FROM dag_runs) OR pk IN (SELECT version_pk FROM dags)",
        )
        .fetch(connection);
        while let Some(row) = versions.try_next().await? {
            let (pk, text): (i64, &str) = (row.try_get(0)?, row.try_get(1)?);
            let spec: DagSpec = serde_json::from_str(text)
                .map_err(|error| CheckError::Strange(format!("DAG version {pk}: {error}")))?;
            self.specs.insert(pk, Arc::new(spec));
        }
        Ok(())
    }

    async fn read_instances(&mut self, connection: &mut PgConnection) -> Result<(), CheckError> {
        let by_pk: HashMap<i64, usize> = (0..)
            .zip(&self.runs)
            .map(|(position, run)| (run.pk, position))
            .collect();
        let mut interned: HashMap<String, usize> = HashMap::new();
        let mut rows = sqlx::query(
            "SELECT pk, run_pk, task_idx, map_index, state, fence, try_number, occupies, expanded_len, pool, pool_slots,
                    queue, up_total, up_success, up_failed, up_upstream_failed, up_skipped, up_removed,
                    concurrency_key, concurrency_limit, queued_at
             FROM task_instances ORDER BY run_pk, task_idx, map_index",
        )
        .fetch(connection);
        while let Some(row) = rows.try_next().await? {
            let (pk, run): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            let run = *by_pk
                .get(&run)
                .ok_or_else(|| CheckError::Strange(format!("task instance {pk} without a run")))?;
            let mut intern = |text: &str| match interned.get(text) {
                Some(position) => *position,
                None => {
                    self.names.push(text.to_owned());
                    interned.insert(text.to_owned(), self.names.len() - 1);
                    self.names.len() - 1
                }
            };
            self.instances.push(Instance {
                pk,
                run,
                task_idx: row.try_get(2)?,
                map_index: row.try_get(3)?,
                state: parsed(&row, 4)?,
                fence: row.try_get(5)?,
                try_number: row.try_get(6)?,
                occupies: row.try_get(7)?,
                expanded_len: row.try_get(8)?,
                pool: intern(row.try_get(9)?),
                pool_slots: int(&row, 10)?,
                queue: intern(row.try_get(11)?),
                counters: Counters {
                    total: row.try_get(12)?,
                    success: row.try_get(13)?,
                    failed: row.try_get(14)?,
                    upstream_failed: row.try_get(15)?,
                    skipped: row.try_get(16)?,
                    removed: row.try_get(17)?,
                    ..Counters::default()
                },
                shared: row
                    .try_get::<Option<i32>, _>(19)?
                    .map(|limit| Ok::<_, CheckError>((row.try_get(18)?, i64::from(limit))))
                    .transpose()?,
                queued_at: row.try_get(20)?,
                attempts: 0..0,
            });
        }
        Ok(())
    }

    async fn read_attempts(&mut self, connection: &mut PgConnection) -> Result<(), CheckError> {
        let by_pk: HashMap<i64, usize> = (0..)
            .zip(&self.instances)
            .map(|(position, instance)| (instance.pk, position))
            .collect();
        let mut rows = sqlx::query(
            "SELECT ti_pk, fence, try_number, ending, ended_at, pid, exit_code, started_at
             FROM task_attempts ORDER BY ti_pk, try_number",
        )
        .fetch(connection);
        while let Some(row) = rows.try_next().await? {
            let ti: i64 = row.try_get(0)?;
            // Of no instance: `orphans` finds it.
            let Some(instance) = by_pk.get(&ti) else {
                continue;
            };
            let range = &mut self.instances[*instance].attempts;
            if range.end == 0 {
                range.start = self.attempts.len();
            }
            range.end = self.attempts.len() + 1;
            self.attempts.push(Attempt {
                fence: row.try_get(1)?,
                try_number: row.try_get(2)?,
                ending: parsed(&row, 3)?,
                ended_at: row.try_get(4)?,
                pid: row.try_get(5)?,
                exit_code: row.try_get(6)?,
                started_at: row.try_get(7)?,
            });
        }
        Ok(())
    }

    async fn read_limits(&mut self, connection: &mut PgConnection) -> Result<(), CheckError> {
        let rows = sqlx::query(
            "SELECT kind, name, cap, used, include_deferred, rate_count, rate_seconds FROM limits",
        )
        .fetch_all(connection)
        .await?;
        for row in rows {
            let limit = Limit {
                cap: row.try_get(2)?,
                used: row.try_get(3)?,
                include_deferred: row.try_get(4)?,
                rate: row
                    .try_get::<Option<i64>, _>(5)?
                    .zip(row.try_get::<Option<i64>, _>(6)?),
            };
            self.limits
                .insert((row.try_get(0)?, row.try_get(1)?), limit);
        }
        Ok(())
    }

    /// Makes a run known by its name.
    pub(super) fn add_name(&mut self, position: usize) {
        let run = &self.runs[position];
        let name = (run.dag_id.clone(), run.run_id.clone());
        self.by_name.insert(name, position);
    }

    pub(super) fn run_of(&self, dag_id: &str, run_id: &str) -> Option<usize> {
        // Names are looked up once per instance of the ledger.
        self.by_name
            .get(&(dag_id.to_owned(), run_id.to_owned()))
            .copied()
    }

    pub(super) fn spec(&self, run: &Run) -> Option<&Arc<DagSpec>> {
        self.specs.get(&run.version)
    }

    /// The instances of each run, by its position.
    pub(super) fn instances_by_run(&self) -> impl Iterator<Item = (&Run, &[Instance])> {
        let mut rest = self.instances.as_slice();
        self.runs.iter().enumerate().map(move |(position, run)| {
            let n = rest.partition_point(|instance| instance.run <= position);
            let (these, others) = rest.split_at(n);
            rest = others;
            (run, these)
        })
    }

    /// Position of an instance.
    pub(super) fn instance_of(&self, run: usize, task_idx: i32, map_index: i32) -> Option<usize> {
        self.instances
            .binary_search_by_key(&(run, task_idx, map_index), |instance| {
                (instance.run, instance.task_idx, instance.map_index)
            })
            .ok()
    }

    pub(super) fn attempts_of(&self, instance: &Instance) -> &[Attempt] {
        &self.attempts[instance.attempts.clone()]
    }

    /// `dag/run task[map]`
    pub(super) fn name(&self, instance: &Instance) -> String {
        let run = &self.runs[instance.run];
        let task = self.task_id(instance);
        match instance.map_index {
            index if index < 0 => format!("{run} {task}"),
            index => format!("{run} {task}[{index}]"),
        }
    }

    pub(super) fn task_id(&self, instance: &Instance) -> &str {
        self.spec(&self.runs[instance.run])
            .and_then(|spec| spec.task(instance.task_idx))
            .map_or("?", |task| task.task_id.as_str())
    }
}

fn int(row: &PgRow, at: usize) -> Result<i64, CheckError> {
    Ok(row.try_get::<i32, _>(at)?.into())
}

fn parsed<T: FromStr<Err: fmt::Display>>(row: &PgRow, at: usize) -> Result<T, CheckError> {
    let text: &str = row.try_get(at)?;
    text.parse()
        .map_err(|error: T::Err| CheckError::Strange(error.to_string()))
}
