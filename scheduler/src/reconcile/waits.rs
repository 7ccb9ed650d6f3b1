//! Looks at what waits without a worker: sensors whose next look is due, runs that others wait for, answers of people.

use crate::{SchedulerHandle, effects, repeat};
use std::sync::Arc;

pub(super) async fn run(handle: Arc<SchedulerHandle>) {
    loop {
        let context = handle.context();
        let look = || handle.store.look_at_waits(&context);
        match repeat::until_answered("looking at what waits", look).await {
            // What rings its own bell is looked at in the next turn.
            Ok(applied) => effects::carry_out(&handle, applied),
            Err(error) => tracing::error!(%error, "cannot look at what waits"),
        }
        handle
            .wait_for(&handle.wake_waits, |to_do| to_do.waits)
            .await;
    }
}
