//! What only clears and marks need.

use super::task_instances::{SharedJson, ti_row};
use crate::{
    codec::{Document, Micros, Named, encode},
    session::{Session, args},
};
use gristmill_common::{
    engine::Tally,
    ids::{RunPk, TaskIdx, TiPk},
    row::{RunRow, TiRow},
    state::TaskState,
};
use gristmill_store::StoreResult;
use serde::Serialize;
use serde_json::{Map, Value};

impl Session {
    pub(crate) async fn load_tasks(
        &mut self,
        run: RunPk,
        tasks: &[TaskIdx],
        states: &[TaskState],
    ) -> StoreResult<Vec<TiRow>> {
        const SQL: &str = concat!(
            "SELECT ",
            ti_row!(),
            " FROM task_instances AS t
              WHERE t.run = ?1 AND t.task_idx IN (SELECT value FROM jsonb_each(?2))
                AND (?3 = '[]' OR t.state IN (SELECT value FROM jsonb_each(?3)))
              ORDER BY t.pk"
        );
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
        self.ti_rows(SQL, args![run.0, encode(tasks)?, encode(&states)?])
            .await
    }

    pub(crate) async fn tally(&mut self, run: RunPk) -> StoreResult<Tally> {
        const SQL: &str = "
            SELECT json_array(task_idx, state, count(*)) FROM task_instances
            WHERE run = ?1 AND state <> 'removed' AND (map_index >= 0 OR coalesce(expanded_len, 0) = 0)
            GROUP BY task_idx, state";
        let rows: Vec<(TaskIdx, Named<TaskState>, i32)> = self.rows(SQL, args![run.0]).await?;
        let counted = rows
            .into_iter()
            .map(|(task, state, n)| ((task, state.0), n));
        Ok(Tally(counted.collect()))
    }

    pub(crate) async fn remake_tis(&mut self, rows: &[&TiRow]) -> StoreResult<()> {
        const SQL: &str = "
            UPDATE task_instances AS t SET queue = w.value ->> 'queue', map_values = w.value ->> 'map_values',
                then_state = w.value ->> 'then_state', map_name = w.value ->> 'map_name',
                concurrency_key = w.value ->> 'concurrency_key', concurrency_limit = w.value ->> 'concurrency_limit',
                concurrency_strategy = w.value ->> 'concurrency_strategy'
            FROM jsonb_each(?1) AS w
            WHERE t.pk = w.value ->> 'pk'";
        #[derive(Serialize)]
        struct Json<'a> {
            pk: TiPk,
            queue: &'a str,
            map_values: Option<Document<&'a Map<String, Value>>>,
            then_state: Option<&'static str>,
            map_name: Option<&'a str>,
            #[serde(flatten)]
            shared: SharedJson<'a>,
        }
        let rows: Vec<_> = rows
            .iter()
            .map(|row| Json {
                pk: row.pk,
                queue: &row.queue,
                map_values: row.map_values.as_ref().map(Document),
                then_state: row.then.map(TaskState::as_str),
                map_name: row.map_name.as_deref(),
                shared: SharedJson::of(row),
            })
            .collect();
        self.execute(SQL, args![encode(&rows)?]).await?;
        Ok(())
    }

    pub(crate) async fn delete_xcoms(&mut self, run: RunPk, of: &[TiPk]) -> StoreResult<()> {
        const SQL: &str =
            "DELETE FROM xcoms WHERE run = ?1 AND ti IN (SELECT value FROM jsonb_each(?2))";
        self.execute(SQL, args![run.0, encode(of)?]).await?;
        Ok(())
    }

    pub(crate) async fn announce_run(&mut self, run: &RunRow) -> StoreResult<()> {
        const SQL: &str = "UPDATE dag_runs SET queued_at = ?2 WHERE pk = ?1";
        self.execute(SQL, args![run.pk.0, Micros(run.queued_at).0])
            .await?;
        self.announces = true;
        Ok(())
    }
}
