//! Dispatches ready instances of all runs whenever a limit may have given room.

use crate::{SchedulerHandle, effects, repeat};
use std::sync::Arc;

pub(crate) async fn run(handle: Arc<SchedulerHandle>) {
    loop {
        // A look finds what waits for room that another scheduler's transaction or a user's change has made.
        handle
            .wait_for(&handle.wake_dispatch, |to_do| to_do.ready)
            .await;
        loop {
            let context = handle.context();
            match repeat::until_answered("dispatching", || handle.store.dispatch_ready(&context))
                .await
            {
                Ok(mut applied) => {
                    let again = std::mem::take(&mut applied.more_ready);
                    effects::carry_out(&handle, applied);
                    if !again {
                        break;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "cannot dispatch");
                    break;
                }
            }
        }
    }
}
