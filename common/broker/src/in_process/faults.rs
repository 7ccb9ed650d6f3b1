//! Makes the in-process broker do what a real one does on a bad day.

use std::fmt;
use std::sync::Arc;

use crate::in_process::Core;
use crate::message::Source;

/// Switches of an [`InProcess`](crate::InProcess) broker. Each takes effect at once.
#[derive(Clone)]
pub struct Faults {
    core: Arc<Core>,
}

impl Faults {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// The channels of all consumers of this queue are lost: each sees a reset, and what it held is delivered again.
    pub fn redeliver(&self, source: &Source) {
        self.core
            .lock()
            .redeliver(source, "fault: the channel was lost");
    }

    /// The next `count` messages published to this queue are stored twice.
    pub fn duplicate_next(&self, source: &Source, count: usize) {
        self.core
            .lock()
            .with_shared(source, |queue| queue.duplicate = count);
    }

    /// The next `count` messages published to this queue are held back until all are there, then stored in reverse order.
    pub fn reorder_next(&self, source: &Source, count: usize) {
        self.core
            .lock()
            .with_shared(source, |queue| queue.reorder = count);
    }

    /// The next `count` messages are stored, but the publisher is told that the connection broke before the confirm.
    pub fn lose_confirms(&self, count: usize) {
        self.core.lock().lost_confirms = count;
    }

    /// All connections are lost, until [`Faults::reconnect`]: consumers see a reset and are not registered, every call fails.
    /// Stored messages stay, except those of control subscriptions.
    pub fn disconnect(&self) {
        self.core.lock().disconnect("fault: the broker is away");
    }

    /// Ends [`Faults::disconnect`]: consumers register again in the order in which they were made.
    pub fn reconnect(&self) {
        self.core.lock().reconnect();
    }

    /// Blocks publishing with this reason, or unblocks it.
    pub fn set_blocked(&self, reason: Option<&str>) {
        self.core.lock().blocked = reason.map(str::to_owned);
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}
