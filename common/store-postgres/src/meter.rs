//! Counts what is sent, for benchmarks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub(crate) struct Meter {
    statements: AtomicU64,
    transactions: AtomicU64,
}

impl Meter {
    /// A statement inside a transaction (BEGIN and COMMIT do not count).
    pub(crate) fn statement(&self) {
        self.statements.fetch_add(1, Relaxed);
    }

    pub(crate) fn transaction(&self) {
        self.transactions.fetch_add(1, Relaxed);
    }

    /// A statement that is its own transaction.
    pub(crate) fn standalone(&self) {
        self.statement();
        self.transaction();
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        (
            self.statements.load(Relaxed),
            self.transactions.load(Relaxed),
        )
    }
}
