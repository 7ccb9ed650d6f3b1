//! Publishing in pipelined, confirmed batches, each under a deadline.
//!
//! A batch has a confirm-mode channel to itself, so that what is returned on the channel belongs to the batch: the client library
//! attaches a returned message to whichever confirm it happens to settle next, so only the message id says which message it was.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::error::PublishFailure;
use crate::message::{Publication, PublishOutcome};
use crate::names::check_publication;
use crate::rabbitmq::codec;
use crate::rabbitmq::link::{Link, Session};

/// Batches that are published at the same time; more wait their turn.
const MAX_CONCURRENT: usize = 16;
/// Unconfirmed messages on one channel.
const WINDOW_MESSAGES: usize = 1000;
/// Unconfirmed body bytes on one channel.
const WINDOW_BYTES: usize = 8 * 1024 * 1024;

/// Publishes over a connection of its own.
#[derive(Debug)]
pub(super) struct Publisher {
    link: Arc<Link>,
    event_shards: u32,
    deadline: Duration,
    turns: Semaphore,
    next_message_id: AtomicU64,
}

/// A message on its way, and where its outcome belongs.
struct InFlight<'a> {
    slot: usize,
    confirm: Pin<Box<dyn Future<Output = lapin::Result<Confirmation>> + Send + 'a>>,
}

/// Why publishing stopped before every message was settled.
enum Stop {
    Deadline,
    Blocked(String),
    Lost(String),
}

impl Publisher {
    pub(super) fn new(link: Arc<Link>, event_shards: u32, deadline: Duration) -> Self {
        Self {
            link,
            event_shards,
            deadline,
            turns: Semaphore::new(MAX_CONCURRENT),
            next_message_id: AtomicU64::new(0),
        }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) async fn publish(&self, batch: Vec<Publication>) -> Vec<PublishOutcome> {
        let until = Instant::now() + self.deadline;
        let mut outcomes: Vec<Option<PublishOutcome>> = batch
            .iter()
            .map(|publication| {
                check_publication(publication, self.event_shards)
                    .err()
                    .map(PublishOutcome::unpublished)
            })
            .collect();
        let accepted: Vec<usize> = (0..batch.len())
            .filter(|&slot| outcomes[slot].is_none())
            .collect();
        if !accepted.is_empty()
            && let Err(stop) = self
                .publish_accepted(&batch, &accepted, &mut outcomes, until)
                .await
        {
            // What has no outcome yet was never handed to the connection.
            let reason = self.failure(stop);
            for &slot in &accepted {
                outcomes[slot].get_or_insert_with(|| PublishOutcome::unpublished(reason.clone()));
            }
        }
        outcomes
            .into_iter()
            .map(|outcome| {
                // Every slot was refused, settled or stopped above.
                outcome.unwrap_or(PublishOutcome::Failed {
                    reason: PublishFailure::Deadline(self.deadline),
                    maybe_published: true,
                })
            })
            .collect()
    }

    async fn publish_accepted(
        &self,
        batch: &[Publication],
        accepted: &[usize],
        outcomes: &mut [Option<PublishOutcome>],
        until: Instant,
    ) -> Result<(), Stop> {
        let Ok(Ok(_turn)) = timeout_at(until, self.turns.acquire()).await else {
            return Err(Stop::Deadline);
        };
        let Ok(session) = timeout_at(until, self.link.session()).await else {
            return Err(Stop::Lost(self.link.last_error()));
        };
        if let Some(reason) = session.blocked() {
            return Err(Stop::Blocked(reason));
        }
        let channel = match timeout_at(until, confirming_channel(&session)).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(Stop::Lost(error.to_string())),
            Err(_) => {
                session.condemn();
                return Err(Stop::Deadline);
            }
        };
        for window in windows(batch, accepted) {
            self.publish_window(&session, &channel, batch, window, outcomes, until)
                .await?;
        }
        session
            .idle_channels()
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(channel);
        Ok(())
    }

    /// Publishes one window and settles all of it: on an error, too, each of its messages has an outcome.
    async fn publish_window(
        &self,
        session: &Arc<Session>,
        channel: &Channel,
        batch: &[Publication],
        window: &[usize],
        outcomes: &mut [Option<PublishOutcome>],
        until: Instant,
    ) -> Result<(), Stop> {
        let first_id = self
            .next_message_id
            .fetch_add(window.len() as u64, Ordering::Relaxed);
        let mut returns = Returns {
            first_id,
            window,
            found: Vec::new(),
        };
        let mut pending = Vec::with_capacity(window.len());
        for (&slot, id) in window.iter().zip(first_id..) {
            let mut confirm = Box::pin(publish_one(channel, &batch[slot], id));
            // The first poll queues the frames; waiting for them to be written before the next message would
            // cost a turn of the I/O thread each.
            match futures::poll!(confirm.as_mut()) {
                std::task::Poll::Ready(Ok(confirmation)) => {
                    outcomes[slot] = Some(returns.settle(confirmation));
                }
                std::task::Poll::Ready(Err(error)) => {
                    outcomes[slot] = Some(lost(&error));
                }
                std::task::Poll::Pending => pending.push(InFlight { slot, confirm }),
            }
        }

        let mut settled = 0;
        let stop = {
            let settle_all = async {
                while settled < pending.len() {
                    let InFlight { slot, confirm } = &mut pending[settled];
                    outcomes[*slot] = Some(match confirm.as_mut().await {
                        Ok(confirmation) => returns.settle(confirmation),
                        Err(error) => lost(&error),
                    });
                    settled += 1;
                }
            };
            tokio::select! {
                biased;
                () = settle_all => None,
                reason = session.wait_blocked() => Some(Stop::Blocked(reason)),
                reason = self.link.wait_lost(session) => Some(Stop::Lost(reason)),
                () = sleep_until(until) => Some(Stop::Deadline),
            }
        };
        if let Some(stop) = &stop {
            // A confirm may carry the return of another message that came with it, so take all that is there.
            tokio::task::yield_now().await;
            let mut any_confirm = settled > 0;
            for InFlight { slot, confirm } in &mut pending[settled..] {
                outcomes[*slot] = Some(match confirm.as_mut().now_or_never() {
                    Some(Ok(confirmation)) => {
                        any_confirm = true;
                        returns.settle(confirmation)
                    }
                    Some(Err(error)) => lost(&error),
                    None => PublishOutcome::Failed {
                        reason: self.failure_of(stop),
                        maybe_published: true,
                    },
                });
            }
            // No sign of life for the whole of the deadline: the connection is dead, or as good as.
            // Its unsent frames must not pile up either.
            if matches!(stop, Stop::Deadline) && !any_confirm {
                session.condemn();
            }
        }
        returns.apply(outcomes);
        if let Some(stop) = stop {
            return Err(stop);
        }
        if !channel.status().connected() {
            return Err(Stop::Lost("the channel was closed".to_owned()));
        }
        Ok(())
    }

    fn failure_of(&self, stop: &Stop) -> PublishFailure {
        match stop {
            Stop::Deadline => PublishFailure::Deadline(self.deadline),
            Stop::Blocked(reason) => PublishFailure::Blocked(reason.clone()),
            Stop::Lost(reason) => PublishFailure::ConnectionLost(reason.clone()),
        }
    }

    /// The reason given for messages that were never handed over.
    fn failure(&self, stop: Stop) -> PublishFailure {
        match stop {
            Stop::Lost(reason) => PublishFailure::NotConnected(reason),
            other => self.failure_of(&other),
        }
    }
}

/// Messages that the broker returned, by their ids.
struct Returns<'a> {
    first_id: u64,
    window: &'a [usize],
    found: Vec<(usize, String)>,
}

impl Returns<'_> {
    fn settle(&mut self, confirmation: Confirmation) -> PublishOutcome {
        let outcome = if confirmation.is_nack() {
            PublishOutcome::Failed {
                reason: PublishFailure::Nacked,
                maybe_published: false,
            }
        } else {
            PublishOutcome::Confirmed
        };
        if let Some(message) = confirmation.take_message() {
            let slot = codec::message_id(&message.properties)
                .and_then(|id| id.checked_sub(self.first_id))
                .and_then(|offset| self.window.get(usize::try_from(offset).ok()?));
            if let Some(&slot) = slot {
                self.found.push((slot, message.reply_text.to_string()));
            }
        }
        outcome
    }

    fn apply(self, outcomes: &mut [Option<PublishOutcome>]) {
        for (slot, reason) in self.found {
            outcomes[slot] = Some(PublishOutcome::Returned { reason });
        }
    }
}

async fn publish_one(
    channel: &Channel,
    publication: &Publication,
    id: u64,
) -> lapin::Result<Confirmation> {
    let (exchange, routing_key) = codec::route(&publication.target);
    let options = BasicPublishOptions {
        mandatory: true,
        immediate: false,
    };
    channel
        .basic_publish(
            exchange,
            routing_key,
            options,
            &publication.body,
            codec::properties(publication, id),
        )
        .await?
        .await
}

/// A message that was handed to the connection and then met an error may have been written in part or in whole.
fn lost(error: &lapin::Error) -> PublishOutcome {
    PublishOutcome::Failed {
        reason: PublishFailure::ConnectionLost(error.to_string()),
        maybe_published: true,
    }
}

/// A free channel of this session, or a new one in confirm mode.
async fn confirming_channel(session: &Session) -> lapin::Result<Channel> {
    loop {
        let idle = session
            .idle_channels()
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        match idle {
            Some(channel) if channel.status().connected() => return Ok(channel),
            Some(_) => {}
            None => break,
        }
    }
    let channel = session.open_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(channel)
}

/// Splits the accepted messages into runs within the limits of a window.
fn windows<'a>(
    batch: &'a [Publication],
    accepted: &'a [usize],
) -> impl Iterator<Item = &'a [usize]> {
    let mut rest = accepted;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let count = rest
            .iter()
            .take(WINDOW_MESSAGES)
            .take_while(|&&slot| {
                let fits = bytes == 0 || bytes + batch[slot].body.len() <= WINDOW_BYTES;
                bytes += batch[slot].body.len();
                fits
            })
            .count();
        let (window, others) = rest.split_at(count);
        rest = others;
        (!window.is_empty()).then_some(window)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Target;

    #[test]
    fn windows_cover_every_message_once_and_keep_their_limits() {
        let small = Publication::new(Target::Dead, "x");
        let large = Publication::new(Target::Dead, vec![0; WINDOW_BYTES]);
        let mut batch = vec![small.clone(); WINDOW_MESSAGES + 1];
        batch.extend([large.clone(), large, small]);
        let accepted: Vec<usize> = (0..batch.len()).collect();
        let windows: Vec<&[usize]> = windows(&batch, &accepted).collect();
        assert_eq!(windows.concat(), accepted);
        let sizes: Vec<usize> = windows.iter().map(|window| window.len()).collect();
        assert_eq!(sizes, [WINDOW_MESSAGES, 1, 1, 1, 1]);
    }
}
