//! The message of a dispatch.

use super::WorkingSet;
use crate::{
    ids::{Fence, TaskIdx, TiPk, valid_name},
    message::{self, MAX_BODY, MAX_XCOM_REFS, RunContext, Sealed, WorkMessage, XcomRef, XcomRefs},
    row::OutboxRow,
};

/// An accepted XCom of an upstream, as the store lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct XcomPull {
    pub task_idx: TaskIdx,
    pub map_index: i32,
    pub ti: TiPk,
    pub fence: Fence,
    pub key: String,
    /// Key in the object store; absent: the value is in Redis, and in the database.
    pub object: Option<String>,
}

/// Why a message could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    #[error("task instance {0} is not dispatched, or its run is not loaded")]
    NotDispatched(TiPk),
    #[error(
        "the message would be {size} bytes, at most {MAX_BODY} are allowed: make conf, params, env or the mapped value smaller"
    )]
    TooLarge { size: usize },
    #[error(
        "{0:?} cannot be a queue's name (letters, digits, '_', '-' and '.', at most {MAX_QUEUE_NAME}): look at what the task's queue template gives"
    )]
    QueueName(String),
}

/// Bytes of a queue's name at most; what the broker adds to it has to fit as well.
const MAX_QUEUE_NAME: usize = 200;

/// The outbox row of an instance that has just been dispatched.
pub fn compose(
    ws: &WorkingSet,
    ti: TiPk,
    xcoms: &[XcomPull],
    sealed: Sealed,
    token: String,
) -> Result<OutboxRow, ComposeError> {
    let missing = || ComposeError::NotDispatched(ti);
    let row = ws.ti(ti).ok_or_else(missing)?;
    let run = ws.run(row.run).ok_or_else(missing)?;
    let plan = ws.plan_of(row.run).ok_or_else(missing)?;
    let task = plan.task_to_send(row.task_idx).ok_or_else(missing)?;
    if !valid_name(&row.queue) || row.queue.len() > MAX_QUEUE_NAME {
        return Err(ComposeError::QueueName(row.queue.clone()));
    }
    let mut refs = XcomRefs::default();
    // Of members of the same mapped group an instance sees its own index.
    let is_seen =
        |x: &&XcomPull| x.map_index == row.map_index || !plan.share_map(row.task_idx, x.task_idx);
    let xcoms: Vec<&XcomPull> = xcoms.iter().filter(is_seen).collect();
    if xcoms.len() > MAX_XCOM_REFS {
        refs.by_api = true;
    } else {
        for x in xcoms {
            let Some(task) = plan.task(x.task_idx) else {
                continue;
            };
            refs.by_task
                .entry(task.task_id.clone())
                .or_default()
                .push(XcomRef {
                    ti: x.ti,
                    fence: x.fence,
                    map_index: x.map_index,
                    key: x.key.clone(),
                    object: x.object.clone(),
                });
        }
    }
    let mut message = WorkMessage {
        v: message::VERSION,
        dispatch: row.dispatch(),
        attempt: row.attempt.ok_or_else(missing)?,
        try_number: row.try_number,
        max_tries: row.max_tries,
        map_index: row.map_index,
        map: row.map_values.clone(),
        run: RunContext {
            pk: run.pk,
            dag_id: run.dag_id.clone(),
            run_id: run.run_id.clone(),
            run_type: run.run_type.as_str().to_owned(),
            logical_date: run.logical_date,
            data_interval_start: run.data_interval_start,
            data_interval_end: run.data_interval_end,
            run_after: run.run_after,
            started_at: run.started_at,
            conf: run.conf.clone(),
            params: run.params.clone(),
            asset_events: ws.events_of(run.pk),
        },
        task: task.clone(),
        xcoms: refs,
        sealed,
        bundle: plan.bundle.clone(),
        token,
    };
    let mut body = serde_json::to_string(&message).unwrap_or_default();
    if body.len() > MAX_BODY && !message.xcoms.by_task.is_empty() {
        // The references are what it can do without: the worker asks the API instead.
        message.xcoms = XcomRefs {
            by_api: true,
            ..XcomRefs::default()
        };
        body = serde_json::to_string(&message).unwrap_or_default();
    }
    if body.len() > MAX_BODY {
        return Err(ComposeError::TooLarge { size: body.len() });
    }
    Ok(OutboxRow {
        dispatch: message.dispatch,
        run: row.run,
        queue: row.queue.clone(),
        body,
        epoch: row.epoch,
        claim_by: row.claim_by.ok_or_else(missing)?,
        priority: row.priority_weight,
    })
}
