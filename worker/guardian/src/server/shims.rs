//! The guardian's shims: forked when there is none that waits, kept for the next task when theirs has ended.
//!
//! A fork copies the page tables of this program and every page that is then written to, and an exit gives it all back:
//! together more than what a short task costs by itself. So a shim whose tree is empty waits for another task.

use super::orders::{MAX_PACKET, Order, Start};
use crate::sys::{self, Pid};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// A shim that has waited this long ends, but for the last one: a worker that idles should take no memory.
const LONGEST_IDLE: Duration = Duration::from_secs(5);
/// More do not wait at one time.
const MOST_IDLE: usize = 64;

struct Shim {
    /// `None` once it was told to end.
    orders: Option<OwnedFd>,
    task: Option<u64>,
}

/// All shims that are not reaped.
#[derive(Default)]
pub(super) struct Shims {
    all: BTreeMap<Pid, Shim>,
    /// Those without a task, and since when; the one that worked last is at the end.
    idle: Vec<(Pid, Instant)>,
}

impl Shims {
    /// Gives a task to a shim that waits; hands it back if there is none, or it has to be forked for.
    pub(super) fn reuse(&mut self, start: Start) -> Result<Pid, Start> {
        let packet = start.encode();
        if packet.len() > MAX_PACKET {
            return Err(start);
        }
        while let Some((pid, _)) = self.idle.pop() {
            let Some(shim) = self.all.get_mut(&pid) else {
                continue;
            };
            let Some(socket) = &shim.orders else { continue };
            let fds: Vec<_> = start.streams.iter().map(AsFd::as_fd).collect();
            match sys::send_with_fds(socket.as_fd(), &packet, &fds) {
                Ok(_) => {
                    shim.task = Some(start.id);
                    return Ok(pid);
                }
                // It was killed while it waited.
                Err(_) => shim.orders = None,
            }
        }
        Err(start)
    }

    /// Takes in a shim that was forked for a task.
    pub(super) fn forked(&mut self, pid: Pid, orders: OwnedFd, task: u64) {
        let shim = Shim {
            orders: Some(orders),
            task: Some(task),
        };
        self.all.insert(pid, shim);
    }

    /// Tells a shim about its task. An error is a shim that is dead, or stopped and has not read many earlier ones.
    pub(super) fn order(&self, pid: Pid, order: &Order) -> io::Result<()> {
        let socket = self.all.get(&pid).and_then(|shim| shim.orders.as_ref());
        let socket = socket.ok_or(io::ErrorKind::NotConnected)?;
        sys::send_with_fds(socket.as_fd(), &order.encode(), &[]).map(drop)
    }

    /// The shim has reported the end of this task, and with it that its tree is empty.
    pub(super) fn done(&mut self, pid: Pid, task: u64) {
        // Not there if it was killed since and is reaped.
        if let Some(shim) = self.all.get_mut(&pid)
            && shim.task == Some(task)
        {
            shim.task = None;
            match self.idle.len() < MOST_IDLE {
                true => self.idle.push((pid, Instant::now())),
                false => shim.orders = None,
            }
        }
    }

    /// Lets go of those that have waited long, or of all; returns when to come again.
    pub(super) fn thin_out(&mut self, all: bool) -> Option<Duration> {
        let keep = if all { 0 } else { 1 };
        while self.idle.len() > keep {
            let (pid, since) = self.idle[0];
            let left = LONGEST_IDLE.saturating_sub(since.elapsed());
            if !all && !left.is_zero() {
                return Some(left);
            }
            self.idle.remove(0);
            if let Some(shim) = self.all.get_mut(&pid) {
                shim.orders = None;
            }
        }
        None
    }

    /// Forgets a process that was reaped: `None` if it was no shim, else the task that it had.
    pub(super) fn reaped(&mut self, pid: Pid) -> Option<Option<u64>> {
        let shim = self.all.remove(&pid)?;
        self.idle.retain(|(idle, _)| *idle != pid);
        Some(shim.task)
    }

    pub(super) fn contains(&self, pid: Pid) -> bool {
        self.all.contains_key(&pid)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
