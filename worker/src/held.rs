//! The dispatches that this incarnation holds: claimed, and their ending not confirmed yet.

use gristmill_common::ids::{Dispatch, Fence, TiPk};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, watch};

/// Granted dispatches remembered, so that a redelivery of one that is over is not run again.
const REMEMBERED: usize = 100_000;

/// What has been asked of a running dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Wish {
    #[default]
    GoOn,
    /// Its run is being stopped.
    Cancel,
    /// The worker drains, or has lost its lease: end it and say that it did not run.
    Interrupt,
}

#[derive(Debug, Default)]
struct Inner {
    held: HashMap<Dispatch, watch::Sender<Wish>>,
    granted: HashSet<Dispatch>,
    order: VecDeque<Dispatch>,
}

/// All that an incarnation holds.
#[derive(Debug, Default)]
pub(crate) struct Held {
    inner: Mutex<Inner>,
    changed: Notify,
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a granted dispatch in; what is wished of it can be watched.
    pub(crate) fn take(&self, dispatch: Dispatch) -> watch::Receiver<Wish> {
        let mut inner = self.lock();
        if inner.order.len() >= REMEMBERED
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.granted.remove(&oldest);
        }
        if inner.granted.insert(dispatch) {
            inner.order.push_back(dispatch);
        }
        let wish = watch::Sender::new(Wish::GoOn);
        let receiver = wish.subscribe();
        inner.held.insert(dispatch, wish);
        receiver
    }

    /// Whether the dispatch was granted to this incarnation before.
    pub(crate) fn was_granted(&self, dispatch: Dispatch) -> bool {
        self.lock().granted.contains(&dispatch)
    }

    /// Its ending is confirmed.
    pub(crate) fn remove(&self, dispatches: &[Dispatch]) {
        let mut inner = self.lock();
        for dispatch in dispatches {
            inner.held.remove(dispatch);
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    pub(crate) fn all(&self) -> Vec<(i64, i64)> {
        self.lock()
            .held
            .keys()
            .map(|d| (d.ti.0, d.fence.0))
            .collect()
    }

    /// Asks something of dispatches, if they are held.
    pub(crate) fn wish(&self, dispatches: impl IntoIterator<Item = (i64, i64)>, wish: Wish) {
        let inner = self.lock();
        for (ti, fence) in dispatches {
            let dispatch = Dispatch {
                ti: TiPk(ti),
                fence: Fence(fence),
            };
            if let Some(sender) = inner.held.get(&dispatch) {
                sender.send_replace(wish);
            }
        }
    }

    pub(crate) fn wish_all(&self, wish: Wish) {
        self.lock().held.values().for_each(|sender| {
            sender.send_if_modified(|now| {
                *now == Wish::GoOn && {
                    *now = wish;
                    true
                }
            });
        });
    }

    /// Waits until nothing is held.
    pub(crate) async fn empty(&self) {
        loop {
            let changed = self.changed.notified();
            if self.lock().held.is_empty() {
                return;
            }
            changed.await;
        }
    }
}
