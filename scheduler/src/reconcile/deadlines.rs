//! Looks at deadlines that have come: what was missed is noted, and its callbacks are called.

use crate::{SchedulerHandle, effects, repeat};
use std::sync::Arc;
use tokio::sync::Notify;

pub(super) async fn run(handle: Arc<SchedulerHandle>) {
    // Time alone brings a deadline: nothing rings for it.
    let bell = Notify::new();
    loop {
        let context = handle.context();
        let look = || handle.store.look_at_deadlines(&context);
        match repeat::until_answered("looking at deadlines", look).await {
            Ok(applied) if applied.touched > 0 => {
                effects::carry_out(&handle, applied);
                continue;
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "cannot look at deadlines"),
        }
        handle.wait_for(&bell, |to_do| to_do.deadlines).await;
    }
}
