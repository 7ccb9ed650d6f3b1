//! Starts of attempts.

use crate::{
    codec::{Flag, Micros, encode},
    session::{Session, args},
};
use gristmill_common::{
    ids::{Fence, RunPk, TiPk},
    message::Started,
    transition::START,
};
use gristmill_store::{Starts, StoreResult};
use serde::Serialize;
use std::collections::BTreeMap;

impl Session {
    pub(crate) async fn record_starts(&mut self, starts: &[&Started]) -> StoreResult<Starts> {
        const START_ROWS: &str = "
            UPDATE task_instances AS t SET
                state = ?2, started_at = s.value ->> 'started_at', worker = s.value ->> 'worker',
                hostname = s.value ->> 'hostname', pid = s.value ->> 'pid'
            FROM jsonb_each(?1) AS s
            WHERE t.pk = s.value ->> 'ti' AND t.run = s.value ->> 'run' AND t.fence = s.value ->> 'fence'
                AND t.state IN (SELECT value FROM jsonb_each(?3))
            RETURNING json_array(queue)";
        const FREE: &str = "
            UPDATE limits AS l SET used = used - (q.value ->> 1)
            FROM jsonb_each(?1) AS q
            WHERE l.kind = 'queue' AND l.name = q.value ->> 0
            RETURNING json_array(cap >= 0 AND used + (SELECT value ->> 1 FROM jsonb_each(?1) WHERE value ->> 0 = name) >= cap)";
        #[derive(Serialize)]
        struct Json<'a> {
            run: RunPk,
            ti: TiPk,
            fence: Fence,
            started_at: Micros,
            worker: &'a str,
            hostname: &'a str,
            pid: Option<i32>,
        }
        let rows: Vec<_> = starts
            .iter()
            .map(|start| Json {
                run: start.run,
                ti: start.dispatch.ti,
                fence: start.dispatch.fence,
                started_at: Micros(start.at),
                worker: &start.worker,
                hostname: &start.hostname,
                pid: start.pid,
            })
            .collect();
        let from: Vec<&str> = START.from.iter().map(|state| state.as_str()).collect();
        let to = START.to.first().map(|state| state.as_str());
        let started: Vec<(String,)> = self
            .rows(START_ROWS, args![encode(&rows)?, to, encode(&from)?])
            .await?;
        let written = started.len();
        let mut queues: BTreeMap<String, i64> = BTreeMap::new();
        for (queue,) in started {
            *queues.entry(queue).or_default() += 1;
        }
        if queues.is_empty() {
            return Ok(Starts::default());
        }
        let queues: Vec<_> = queues.into_iter().collect();
        let freed: Vec<(Flag,)> = self.rows(FREE, args![encode(&queues)?]).await?;
        Ok(Starts {
            written,
            made_room: freed.iter().any(|(was_full,)| was_full.0),
        })
    }
}
