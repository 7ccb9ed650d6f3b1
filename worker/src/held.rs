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

    /// Takes a granted dispatch in; what is wished of it can be watched. `None` for one that was taken before: it runs
    /// only once.
    pub(crate) fn take(&self, dispatch: Dispatch) -> Option<watch::Receiver<Wish>> {
        let mut inner = self.lock();
        if inner.held.contains_key(&dispatch) || !inner.granted.insert(dispatch) {
            return None;
        }
        if inner.order.len() >= REMEMBERED
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.granted.remove(&oldest);
        }
        inner.order.push_back(dispatch);
        let wish = watch::Sender::new(Wish::GoOn);
        let receiver = wish.subscribe();
        inner.held.insert(dispatch, wish);
        Some(receiver)
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

#[cfg(test)]
mod tests {
    use super::*;

    const D: Dispatch = Dispatch {
        ti: TiPk(1),
        fence: Fence(1),
    };

    #[test]
    fn a_dispatch_is_taken_once_even_after_its_end() {
        let held = Held::default();
        let wish = held.take(D).unwrap();
        assert!(held.take(D).is_none());
        held.wish([(1, 1)], Wish::Cancel);
        assert_eq!(*wish.borrow(), Wish::Cancel);
        held.remove(&[D]);
        assert!(held.all().is_empty());
        assert!(held.take(D).is_none());
    }

    #[test]
    fn one_that_is_held_is_not_taken_again_when_it_is_forgotten() {
        let held = Held::default();
        let _wish = held.take(D).unwrap();
        for ti in 2..=REMEMBERED as i64 + 2 {
            let other = Dispatch { ti: TiPk(ti), ..D };
            assert!(held.take(other).is_some());
            held.remove(&[other]);
        }
        assert!(held.take(D).is_none());
        assert_eq!(held.all(), [(1, 1)]);
    }
}
