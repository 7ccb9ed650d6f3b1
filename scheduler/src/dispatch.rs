//! Dispatches ready instances of all runs whenever a limit may have given room.

use crate::{SchedulerHandle, effects, repeat};
use std::{sync::Arc, time::Duration};

/// Behind the bells: room that another scheduler's transaction or a user's change has made.
const AT_LEAST_EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn run(handle: Arc<SchedulerHandle>) {
    loop {
        // Woken or not, it is time to look.
        let _ = tokio::time::timeout(AT_LEAST_EVERY, handle.wake_dispatch.notified()).await;
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
