//! Serving, and an orderly end.

use axum::Router;
use std::{future::IntoFuture, time::Duration};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long requests in flight may go on after the wish to stop; long polls and followed logs would go on for ever.
const GRACE: Duration = Duration::from_secs(10);

/// Serves until `stop`, then lets what is in flight finish, for 10 s at most.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let stopping = stop.clone();
    let serving = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stopping.cancelled().await })
        .into_future();
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = serving => ended,
        () = overdue => Ok(()),
    }
}
