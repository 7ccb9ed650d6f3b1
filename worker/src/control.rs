//! Listens to what schedulers tell this worker directly.

use crate::{
    held::{Held, Wish},
    lease::{Lease, granted},
};
use gristmill_broker::{Broker, ControlEvent};
use gristmill_common::message::Control;
use std::sync::Arc;

/// Follows control messages until one says that this incarnation was judged lost. A lost one is no harm: the next renewal says the same.
pub(crate) async fn listen(broker: Arc<dyn Broker>, lease: Arc<Lease>, held: Arc<Held>) {
    let mut stream = match broker.subscribe_control(&lease.info.incarnation).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::error!(%error, "cannot listen to control messages");
            return std::future::pending().await;
        }
    };
    loop {
        let message = match stream.next().await {
            ControlEvent::Message(message) => message,
            ControlEvent::Reset { .. } => {
                lease.look_now();
                continue;
            }
        };
        match serde_json::from_slice(&message.body) {
            Ok(Control::Cancel { dispatches }) => {
                held.wish(dispatches.iter().map(|d| (d.ti.0, d.fence.0)), Wish::Cancel);
            }
            Ok(Control::Granted { sent_at }) => granted(&lease, sent_at),
            Ok(Control::Check { dispatches }) => lease.check(dispatches),
            // Final, whatever presence knows of it.
            Ok(Control::Revoked) => return,
            Err(error) => tracing::warn!(%error, "a control message that this build cannot read"),
        }
    }
}
