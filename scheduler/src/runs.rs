//! Runs: starts queued ones, makes scheduled ones, stops those that were cancelled or whose time is over.

use crate::{SchedulerHandle, effects, repeat};
use std::{sync::Arc, time::Duration};

/// Behind the database's notifications, and the resolution of schedules and timeouts.
const AT_LEAST_EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn run(handle: Arc<SchedulerHandle>) {
    let store = &handle.store;
    loop {
        let seen = store.run_changes();
        if let Err(error) =
            repeat::until_answered("making scheduled runs", || store.create_due_runs()).await
        {
            tracing::error!(%error, "cannot make scheduled runs");
        }
        loop {
            let context = handle.context();
            match repeat::until_answered("starting runs", || store.start_runs(&context)).await {
                Ok(applied) => {
                    let started = applied.touched;
                    effects::carry_out(&handle, applied);
                    if started == 0 {
                        break;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "cannot start runs");
                    break;
                }
            }
        }
        let context = handle.context();
        match repeat::until_answered("stopping runs", || store.stop_due_runs(&context)).await {
            Ok(applied) => effects::carry_out(&handle, applied),
            Err(error) => tracing::error!(%error, "cannot stop runs"),
        }
        tokio::select! {
            () = store.run_changed(seen, AT_LEAST_EVERY) => {}
            () = handle.wake_runs.notified() => {}
        }
    }
}
