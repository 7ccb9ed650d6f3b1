//! The outbox.

use crate::{
    codec::{Micros, encode},
    session::{Session, args},
};
use chrono::{DateTime, Utc};
use gristmill_common::{
    ids::{Dispatch, Fence, RunPk, TiPk},
    row::OutboxRow,
};
use gristmill_store::StoreResult;
use serde::{Deserialize, Serialize};

impl Session {
    pub(crate) async fn insert_outbox(&mut self, rows: &[OutboxRow]) -> StoreResult<()> {
        const SQL: &str = "
            INSERT INTO outbox (run, ti, fence, queue, body, epoch, claim_by, priority, written_at)
            SELECT value ->> 'run', value ->> 'ti', value ->> 'fence', value ->> 'queue', value ->> 'body', value ->> 'epoch',
                value ->> 'claim_by', value ->> 'priority', ?2
            FROM jsonb_each(?1)";
        #[derive(Serialize)]
        struct Json<'a> {
            run: RunPk,
            ti: TiPk,
            fence: Fence,
            queue: &'a str,
            epoch: i64,
            claim_by: Micros,
            priority: i32,
            body: &'a str,
        }
        if rows.is_empty() {
            return Ok(());
        }
        let json: Vec<_> = rows
            .iter()
            .map(|row| Json {
                run: row.run,
                ti: row.dispatch.ti,
                fence: row.dispatch.fence,
                queue: &row.queue,
                epoch: row.epoch,
                claim_by: Micros(row.claim_by),
                priority: row.priority,
                body: &row.body,
            })
            .collect();
        self.execute(SQL, args![encode(&json)?, self.now]).await?;
        Ok(())
    }

    pub(crate) async fn delete_outbox(&mut self, confirmed: &[Dispatch]) -> StoreResult<()> {
        const SQL: &str = "
            DELETE FROM outbox
            WHERE (ti, fence) IN (SELECT value ->> 'ti', value ->> 'fence' FROM jsonb_each(?1))";
        if confirmed.is_empty() {
            return Ok(());
        }
        self.execute(SQL, args![encode(confirmed)?]).await?;
        Ok(())
    }

    pub(crate) async fn unpublished(
        &mut self,
        written_before: DateTime<Utc>,
        max: i64,
    ) -> StoreResult<Vec<OutboxRow>> {
        const SQL: &str = "
            SELECT json_array(run, ti, fence, queue, body, epoch, claim_by, priority) FROM outbox
            WHERE written_at <= ?1 ORDER BY written_at, ti LIMIT ?2";
        #[derive(Deserialize)]
        struct Record {
            run: RunPk,
            ti: TiPk,
            fence: Fence,
            queue: String,
            body: String,
            epoch: i64,
            claim_by: Micros,
            priority: i32,
        }
        let records: Vec<Record> = self.rows(SQL, args![written_before, max]).await?;
        Ok(records
            .into_iter()
            .map(|r| OutboxRow {
                run: r.run,
                dispatch: Dispatch {
                    ti: r.ti,
                    fence: r.fence,
                },
                queue: r.queue,
                body: r.body,
                epoch: r.epoch,
                claim_by: r.claim_by.0,
                priority: r.priority,
            })
            .collect())
    }

    pub(crate) async fn outbox_oldest(&mut self) -> StoreResult<Option<DateTime<Utc>>> {
        let (oldest,): (Option<Micros>,) = self
            .one("SELECT json_array(min(written_at)) FROM outbox", args![])
            .await?;
        Ok(oldest.map(|m| m.0))
    }
}
