//! Wishes to stop: SIGTERM or SIGINT asks for an orderly end, a second one for a quick one.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The two wishes.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    pub(super) orderly: CancellationToken,
    pub(super) at_once: CancellationToken,
}

/// Listens to signals from now on.
pub(super) fn listen() -> std::io::Result<Stop> {
    let stop = Stop {
        orderly: CancellationToken::new(),
        at_once: CancellationToken::new(),
    };
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let wishes = stop.clone();
    tokio::spawn(async move {
        for wish in [wishes.orderly, wishes.at_once] {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            wish.cancel();
        }
    });
    Ok(stop)
}
