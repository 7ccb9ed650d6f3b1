//! Many callers, one call: what is asked while a call is under way goes out together in the next. Nobody waits for a
//! timer, and a burst of requests costs a few statements instead of a few each.

use crate::error::ApiError;
use futures::future::BoxFuture;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::oneshot;

/// Items of one call at most.
const MOST: usize = 500;

/// Answers items in the order in which they were given.
type Call<I, O> = Box<dyn Fn(Vec<I>) -> BoxFuture<'static, Vec<O>> + Send + Sync>;

/// One kind of call.
pub(crate) struct Gather<I, O> {
    call: Call<I, O>,
    waiting: Mutex<Waiting<I, O>>,
}

struct Waiting<I, O> {
    items: Vec<(I, oneshot::Sender<O>)>,
    /// A call is under way; whoever made it takes care of those who wait.
    busy: bool,
}

impl<I, O> fmt::Debug for Gather<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather").finish_non_exhaustive()
    }
}

impl<I: Send + 'static, O: Send + 'static> Gather<I, O> {
    pub(crate) fn new<F>(call: impl Fn(Vec<I>) -> F + Send + Sync + 'static) -> Arc<Self>
    where
        F: Future<Output = Vec<O>> + Send + 'static,
    {
        Arc::new(Self {
            call: Box::new(move |items| Box::pin(call(items))),
            waiting: Mutex::new(Waiting {
                items: Vec::new(),
                busy: false,
            }),
        })
    }

    /// The answer of a call that began after this one was made. An error only if the call panicked.
    pub(crate) async fn ask(self: &Arc<Self>, item: I) -> Result<O, ApiError> {
        let (tell, told) = oneshot::channel();
        let idle = {
            let mut waiting = self.lock();
            waiting.items.push((item, tell));
            !std::mem::replace(&mut waiting.busy, true)
        };
        if idle {
            // Apart from this request, which may be dropped when its caller goes away.
            tokio::spawn(self.clone().work());
        }
        told.await
            .map_err(|_| ApiError::Internal("the call that was shared has failed".to_owned()))
    }

    async fn work(self: Arc<Self>) {
        let _idle_again = Idle(&self);
        loop {
            let taken = {
                let mut waiting = self.lock();
                if waiting.items.is_empty() {
                    waiting.busy = false;
                    return;
                }
                let most = waiting.items.len().min(MOST);
                waiting.items.drain(..most).collect::<Vec<_>>()
            };
            let (items, callers): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
            for (caller, answer) in callers.into_iter().zip((self.call)(items).await) {
                // Nobody there any more: the request was dropped.
                let _ = caller.send(answer);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting<I, O>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those who wait when a call panics are told so, and the next one is made as if nothing had been.
struct Idle<'a, I: Send + 'static, O: Send + 'static>(&'a Gather<I, O>);

impl<I: Send + 'static, O: Send + 'static> Drop for Idle<'_, I, O> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut waiting = self.0.lock();
            waiting.items.clear();
            waiting.busy = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    /// How many were asked for in each call.
    type Calls = Arc<Mutex<Vec<usize>>>;

    /// Doubles numbers, one call a permit; panics over 13.
    fn doubling(permits: &Arc<Semaphore>) -> (Arc<Gather<u32, u32>>, Calls) {
        let calls = Calls::default();
        let (permits, counted) = (permits.clone(), calls.clone());
        let gather = Gather::new(move |items: Vec<u32>| {
            let (permits, counted) = (permits.clone(), counted.clone());
            async move {
                permits.acquire().await.unwrap().forget();
                counted.lock().unwrap().push(items.len());
                assert!(!items.contains(&13));
                items.iter().map(|n| n * 2).collect()
            }
        });
        (gather, calls)
    }

    async fn asked(gather: &Gather<u32, u32>, n: usize) {
        while gather.lock().items.len() < n {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_waits_goes_out_together() {
        let permits = Arc::new(Semaphore::new(0));
        let (gather, calls) = doubling(&permits);
        let ask = |n| {
            let gather = gather.clone();
            tokio::spawn(async move { gather.ask(n).await.unwrap() })
        };
        let first = ask(1);
        while !gather.lock().busy || !gather.lock().items.is_empty() {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (2..=10).map(ask).collect();
        asked(&gather, 9).await;
        permits.add_permits(2);
        assert_eq!(first.await.unwrap(), 2);
        for (n, other) in (2..=10).zip(others) {
            assert_eq!(other.await.unwrap(), n * 2);
        }
        assert_eq!(*calls.lock().unwrap(), [1, 9]);
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_holds_nobody_up() {
        let permits = Arc::new(Semaphore::new(0));
        let (gather, _) = doubling(&permits);
        let gone = {
            let gather = gather.clone();
            tokio::spawn(async move { gather.ask(1).await })
        };
        while !gather.lock().busy {
            tokio::task::yield_now().await;
        }
        gone.abort();
        permits.add_permits(2);
        assert_eq!(gather.ask(4).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn a_call_that_panics_is_told_and_over() {
        let permits = Arc::new(Semaphore::new(9));
        let (gather, _) = doubling(&permits);
        gather.ask(13).await.unwrap_err();
        assert_eq!(gather.ask(1).await.unwrap(), 2);
    }
}
