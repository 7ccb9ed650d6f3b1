//! What the guardian tells its shims, one packet each, over a socket that every shim has of its own.
//!
//! Packets come in the order in which they were sent, and each names its task: an order that meets the next task of the
//! same shim, since the one it was meant for has just ended, is known as such.

use crate::event::KilledBy;
use crate::sys;
use crate::wire::{Reader, WireError, Writer};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// The longest packet. A start that is longer is not handed to a shim that waits: a new shim is forked, which has it in
/// its memory.
pub(super) const MAX_PACKET: usize = 8 * 1024;

/// A task to start.
pub(super) struct Start {
    pub(super) id: u64,
    /// The body of the worker's request, not decoded.
    pub(super) request: Vec<u8>,
    /// Those of the standard streams that the request says come as descriptors.
    pub(super) streams: Vec<OwnedFd>,
    /// `oom::kills` before the start.
    pub(super) oom_kills: u64,
}

pub(super) enum Order {
    Start(Start),
    /// SIGTERM to the group now, SIGKILL to the tree after the grace.
    Terminate {
        id: u64,
        grace_ms: u32,
    },
    Kill {
        id: u64,
        reason: KilledBy,
    },
}

impl Start {
    /// The packet, without the descriptors.
    pub(super) fn encode(&self) -> Vec<u8> {
        Writer::new(1)
            .u64(self.id)
            .u64(self.oom_kills)
            .bytes(&self.request)
            .finish()
    }
}

impl Order {
    /// The packet, without the descriptors of a start.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Order::Start(start) => start.encode(),
            Order::Terminate { id, grace_ms } => Writer::new(2).u64(*id).u32(*grace_ms).finish(),
            Order::Kill { id, reason } => Writer::new(3).u64(*id).u8(reason.number()).finish(),
        }
    }

    fn decode(packet: &[u8], streams: Vec<OwnedFd>) -> Result<Self, WireError> {
        // A packet has its length by itself; the frame's is left out.
        let mut reader = Reader(packet.get(4..).ok_or(WireError::Truncated)?);
        Ok(match reader.u8()? {
            1 => Order::Start(Start {
                id: reader.u64()?,
                oom_kills: reader.u64()?,
                request: reader.bytes()?.to_vec(),
                streams,
            }),
            2 => Order::Terminate {
                id: reader.u64()?,
                grace_ms: reader.u32()?,
            },
            3 => Order::Kill {
                id: reader.u64()?,
                reason: KilledBy::from_number(reader.u8()?).unwrap_or(KilledBy::Kill),
            },
            value => {
                return Err(WireError::Unknown {
                    what: "order",
                    value,
                });
            }
        })
    }
}

/// What a shim finds on its socket.
pub(super) enum Received {
    Order(Order),
    Nothing,
    /// The guardian is gone, or needs this shim no more.
    End,
}

/// Takes the next order, without waiting.
pub(super) fn receive(socket: BorrowedFd<'_>) -> Received {
    let mut packet = [0; MAX_PACKET];
    let mut streams = Vec::with_capacity(sys::MAX_FDS);
    match sys::receive(socket, &mut packet, &mut streams) {
        Ok(0) => Received::End,
        // What cannot be read is as good as a guardian that is gone: the tree dies and so does the shim.
        Ok(count) => {
            Order::decode(&packet[..count], streams).map_or(Received::End, Received::Order)
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Received::Nothing
        }
        Err(_) => Received::End,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn orders_survive_the_packet() {
        let (ours, theirs) = sys::packet_socket_pair().expect("a pair");
        let send = |order: &Order| {
            let packet = order.encode();
            assert_eq!(
                sys::send_with_fds(ours.as_fd(), &packet, &[]).expect("sent"),
                packet.len()
            );
        };
        send(&Order::Start(Start {
            id: 5,
            request: b"abc".to_vec(),
            streams: Vec::new(),
            oom_kills: 7,
        }));
        send(&Order::Terminate {
            id: 1,
            grace_ms: u32::MAX,
        });
        send(&Order::Kill {
            id: 2,
            reason: KilledBy::Deadline,
        });
        assert!(matches!(
            receive(theirs.as_fd()),
            Received::Order(Order::Start(Start { id: 5, request, oom_kills: 7, .. })) if request == b"abc"
        ));
        assert!(matches!(
            receive(theirs.as_fd()),
            Received::Order(Order::Terminate {
                id: 1,
                grace_ms: u32::MAX
            })
        ));
        assert!(matches!(
            receive(theirs.as_fd()),
            Received::Order(Order::Kill {
                id: 2,
                reason: KilledBy::Deadline
            })
        ));
        assert!(matches!(receive(theirs.as_fd()), Received::Nothing));
        drop(ours);
        assert!(matches!(receive(theirs.as_fd()), Received::End));
    }
}
