//! The start of a host that was the only one: whatever was out before is dead.

use gristmill_common::{engine::Command, state::TaskState};
use gristmill_store::{DispatchContext, Store, StoreResult};
use std::sync::Arc;

/// Gives up every dispatch that was out when the one process of a standalone ended. The caller has proof that all its
/// task processes are dead (their guardian's lock is free), and that no other worker exists.
pub async fn adopt_dead_host(store: &dyn Store, context: &DispatchContext) -> StoreResult<usize> {
    let commands: Vec<Command> = store
        .out_dispatches(None)
        .await?
        .into_iter()
        .map(|out| match out.state {
            TaskState::Running => Command::Lost {
                run: out.run,
                dispatch: out.dispatch,
                reason: "the process that ran it ended".to_owned(),
            },
            // It may have run all the same: that it started was said to nobody but the process that ended. So it counts as
            // a try, which has a log of its own, but costs none.
            _ => Command::Requeued {
                run: out.run,
                dispatch: out.dispatch,
                reason: "the process that was to run it ended".to_owned(),
            },
        })
        .collect();
    // Without an epoch nothing is dispatched by this transaction: the loops do that once they run.
    let context = DispatchContext {
        epoch: None,
        plans: Arc::clone(&context.plans),
        ..context.clone()
    };
    store.apply(&commands, &[], &context).await?;
    Ok(commands.len())
}
