//! Makes way for ready instances whose shared limit is full, and that do not just wait (`concurrency.strategy` of a task).

use crate::{SchedulerHandle, effects, repeat};
use std::sync::Arc;

pub(super) async fn run(handle: Arc<SchedulerHandle>) {
    loop {
        handle.wait_for_look(|to_do| to_do.pushing).await;
        let context = handle.context();
        let push = || handle.store.push(&context);
        match repeat::until_answered("making way for instances of one key", push).await {
            Ok(applied) => effects::carry_out(&handle, applied),
            Err(error) => tracing::error!(%error, "cannot make way for instances of one key"),
        }
    }
}
