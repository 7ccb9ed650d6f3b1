//! A part of a process on a thread of its own.

use std::io;
use tokio::sync::oneshot;

/// Runs a future to its end on a runtime with one thread of its own, so that it shares the processors with the rest of the
/// process by the system's scheduler, which is fair, instead of waiting behind the rest's work in a queue.
///
/// Dropping the answer does not end it; tell the future by other means.
pub(super) async fn apart<F>(
    name: &str,
    make: impl FnOnce() -> F + Send + 'static,
) -> io::Result<()>
where
    F: Future<Output = io::Result<()>>,
{
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let ended = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .and_then(|runtime| runtime.block_on(make()));
            // Nobody waits any more: the process ends.
            let _ = tell.send(ended);
        })?;
    told.await
        .unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
}
