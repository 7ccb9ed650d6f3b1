//! Runs: starts queued ones, makes scheduled ones, stops those that were cancelled or whose time is over.

use crate::{SchedulerHandle, effects, repeat};
use gristmill_store::ToDo;
use std::{sync::Arc, time::Duration};

/// Behind the database's notifications; looks come more often.
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);

pub(crate) async fn run(handle: Arc<SchedulerHandle>) {
    loop {
        let seen = handle.store.run_changes();
        // Woken, there is most likely a run to start, and somebody waits for it: whatever else there is can wait for a look.
        start(&handle).await;
        while let Ok(to_do) = handle.look().await {
            if !attend(&handle, to_do).await {
                break;
            }
        }
        tokio::select! {
            () = handle.store.run_changed(seen, AT_LEAST_EVERY) => {}
            _ = handle.wait_for(&handle.wake_runs, |to_do| {
                to_do.queued_runs || to_do.due_dags || to_do.runs_to_stop || to_do.overlaps || to_do.asset_events
            }) => {}
        }
    }
}

/// Does what a look found; answers whether there may be more.
async fn attend(handle: &Arc<SchedulerHandle>, to_do: ToDo) -> bool {
    let store = &handle.store;
    if to_do.runs_to_stop {
        let context = handle.context();
        match repeat::until_answered("stopping runs", || store.stop_due_runs(&context)).await {
            Ok(applied) => effects::carry_out(handle, applied),
            Err(error) => tracing::error!(%error, "cannot stop runs"),
        }
    }
    if to_do.overlaps {
        let context = handle.context();
        let stop = || store.stop_overlapped_runs(&context);
        match repeat::until_answered("cancelling overlapped runs", stop).await {
            Ok(applied) => effects::carry_out(handle, applied),
            Err(error) => tracing::error!(%error, "cannot cancel overlapped runs"),
        }
    }
    // What a user cleared or marked was told to this loop only.
    if to_do.restarting {
        handle.wake_restarting.notify_one();
    }
    if to_do.ready {
        handle.wake_dispatch.notify_one();
    }
    let mut made = 0;
    if to_do.due_dags {
        match repeat::until_answered("making scheduled runs", || store.create_due_runs()).await {
            Ok(runs) => made = runs,
            Err(error) => tracing::error!(%error, "cannot make scheduled runs"),
        }
    }
    if to_do.asset_events {
        match repeat::until_answered("making runs for assets", || store.create_asset_runs()).await {
            Ok(dags) => made += dags,
            Err(error) => tracing::error!(%error, "cannot make runs for assets"),
        }
    }
    let more = (to_do.queued_runs || made > 0) && start(handle).await > 0;
    more || made > 0
}

/// Starts queued runs, as many as one transaction takes; answers how many.
async fn start(handle: &Arc<SchedulerHandle>) -> usize {
    let context = handle.context();
    match repeat::until_answered("starting runs", || handle.store.start_runs(&context)).await {
        Ok(applied) => {
            let started = applied.touched;
            effects::carry_out(handle, applied);
            started
        }
        Err(error) => {
            tracing::error!(%error, "cannot start runs");
            0
        }
    }
}
