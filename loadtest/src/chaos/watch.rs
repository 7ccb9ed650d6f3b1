//! How far the work has come, by the database.

use super::stage::Stage;
use crate::error::Result;
use sqlx::{Connection, PgConnection, Row};
use std::time::{Duration, Instant};
use tokio::sync::watch;

const EVERY: Duration = Duration::from_millis(500);
/// The database may be down or frozen.
const PATIENCE: Duration = Duration::from_secs(5);

/// What has ended so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Attempts that have ended, in whatever way.
    pub(crate) attempts: i64,
    pub(crate) ended_runs: i64,
    pub(crate) open_runs: i64,
}

/// Looks again and again. Never returns.
pub(crate) async fn keep(stage: &Stage, progress: watch::Sender<Progress>) -> Result<()> {
    let url = stage.servers()?.database_url();
    let mut connection = None;
    loop {
        match tokio::time::timeout(PATIENCE, look(url, &mut connection)).await {
            Ok(Ok(now)) => {
                progress.send_if_modified(|last| std::mem::replace(last, now) != now);
            }
            // It is looked again over a new connection.
            Ok(Err(_)) | Err(_) => connection = None,
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn look(url: &str, connection: &mut Option<PgConnection>) -> Result<Progress, sqlx::Error> {
    let connection = match connection {
        Some(open) => open,
        None => connection.insert(PgConnection::connect(url).await?),
    };
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM task_attempts),
                count(*) FILTER (WHERE ended_at IS NOT NULL), count(*) FILTER (WHERE ended_at IS NULL)
         FROM dag_runs",
    )
    .fetch_one(connection)
    .await?;
    Ok(Progress {
        attempts: row.try_get(0)?,
        ended_runs: row.try_get(1)?,
        open_runs: row.try_get(2)?,
    })
}

/// Waits until no run is open. `false`: nothing has moved for so long that nothing will.
pub(crate) async fn all_ended(
    mut progress: watch::Receiver<Progress>,
    runs: usize,
    stuck_after: Duration,
) -> bool {
    let runs = i64::try_from(runs).unwrap_or(i64::MAX);
    let mut moved = Instant::now();
    loop {
        let now = *progress.borrow_and_update();
        if now.open_runs == 0 && now.ended_runs >= runs {
            return true;
        }
        let left = stuck_after.saturating_sub(moved.elapsed());
        match tokio::time::timeout(left, progress.changed()).await {
            Ok(Ok(())) => moved = Instant::now(),
            Ok(Err(_)) | Err(_) => return false,
        }
    }
}

/// What has not ended, for people: states of task instances, limits in use, what is in the outbox.
pub(crate) async fn leftovers(stage: &Stage) -> String {
    let query = "SELECT r.dag_id || ' ' || r.run_id || ' ' || r.state || ' ' || coalesce(t.task_id, '') || '[' || coalesce(t.map_index, -1)
            || '] ' || coalesce(t.state, 'none') || ' fence ' || coalesce(t.fence, 0)
        FROM dag_runs r LEFT JOIN task_instances t ON t.run_pk = r.pk AND t.state IN ('scheduled', 'queued', 'running', 'up_for_retry')
        WHERE r.ended_at IS NULL ORDER BY 1 LIMIT 40";
    let limits =
        "SELECT kind || ' ' || name || ' used ' || used FROM limits WHERE used <> 0 LIMIT 20";
    let mut text = String::new();
    for query in [query, limits, "SELECT 'outbox ' || count(*) FROM outbox"] {
        let rows = match stage.servers() {
            Ok(servers) => servers.sql(query).await,
            Err(error) => Err(error),
        };
        text.push_str(&rows.unwrap_or_else(|error| format!("{error}\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(attempts: i64, ended_runs: i64, open_runs: i64) -> Progress {
        Progress {
            attempts,
            ended_runs,
            open_runs,
        }
    }

    #[tokio::test]
    async fn moving_work_is_waited_for() {
        let (sender, receiver) = watch::channel(at(0, 0, 2));
        let waiting = all_ended(receiver, 2, Duration::from_secs(600));
        let working = async {
            for step in 1..5 {
                tokio::task::yield_now().await;
                sender.send_replace(at(step, step / 2, 2 - step / 2));
            }
        };
        let (ended, ()) = tokio::join!(waiting, working);
        assert!(ended);
    }

    #[tokio::test]
    async fn stuck_work_is_not_waited_for() {
        let (_sender, receiver) = watch::channel(at(4, 2, 1));
        assert!(!all_ended(receiver, 3, Duration::from_millis(20)).await);
    }
}
