//! The guardian's loop: requests in, shims out, reports back.

use super::Common;
use super::oom::RecentKills;
use super::orders::{Order, Start};
use super::shim;
use super::shims::Shims;
use super::tree::{self, Sweeper};
use crate::event::{ExitStatus, Exited, KilledBy, Report, SpawnFailure, SpawnFailureKind};
use crate::request::{Incoming, Request};
use crate::sys::{self, Fork, Pid, Poll, Reaped, Usage};
use crate::wire::{FrameBuffer, Reader, WireError};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long shims may take to empty their trees at the deadline or the worker's end, before they are taken for stopped and
/// killed themselves. Short, since a scheduler may count on the deadline.
const URGENT: u64 = 500_000_000;
/// The same for a single task that is to end.
const PATIENT: u64 = 5_000_000_000;
/// No request is read while more than this waits to be read by the worker.
const MAX_UNSENT: usize = 1024 * 1024;
const CHUNK: usize = 16 * 1024;

struct Task {
    shim: Pid,
    spawned: bool,
    /// Why it was last told to kill its tree, and from when on (`CLOCK_BOOTTIME`) the shim is killed for not having done it.
    ordered: Option<(KilledBy, u64)>,
}

/// A task whose shim was killed.
struct Lost {
    id: u64,
    task: Task,
    usage: Usage,
}

pub(super) struct Guardian {
    common: Common,
    socket: UnixStream,
    worker: OwnedFd,
    requests: FrameBuffer,
    descriptors: VecDeque<OwnedFd>,
    unsent: Vec<u8>,
    reports: FrameBuffer,
    tasks: BTreeMap<u64, Task>,
    shims: Shims,
    lost: Vec<Lost>,
    sweeper: Option<Sweeper>,
    /// `CLOCK_BOOTTIME`; 0 is none.
    deadline: u64,
    expired: bool,
    /// The worker is gone or wants the end.
    closing: bool,
    oom: RecentKills,
}

impl Guardian {
    pub(super) fn new(common: Common, socket: UnixStream, worker: OwnedFd) -> Self {
        Guardian {
            common,
            socket,
            worker,
            requests: FrameBuffer::default(),
            descriptors: VecDeque::new(),
            unsent: Report::Ready.encode(),
            reports: FrameBuffer::default(),
            tasks: BTreeMap::new(),
            shims: Shims::default(),
            lost: Vec::new(),
            sweeper: None,
            deadline: 0,
            expired: false,
            closing: false,
            oom: RecentKills::new(),
        }
    }

    /// Returns when the worker is gone or has asked for the end, and everything is dead.
    pub(super) fn run(mut self, mut reports: PipeReader) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        self.flush();
        while !(self.closing && self.shims.is_empty() && self.lost.is_empty()) {
            let thin_out = self.shims.thin_out(self.closing);
            let timeout = self.timeout().into_iter().chain(thin_out).min();
            let listening = !self.closing && self.unsent.len() < MAX_UNSENT;
            let mut list = [
                match listening {
                    true => Poll::readable(self.socket.as_fd()),
                    false if self.unsent.is_empty() => Poll::nothing(),
                    false => Poll::hangup(self.socket.as_fd()),
                }
                .also_writable(!self.unsent.is_empty()),
                Poll::readable(self.common.signals.as_fd()),
                Poll::readable(reports.as_fd()),
                if self.expired {
                    Poll::nothing()
                } else {
                    Poll::readable(self.common.deadline.as_fd())
                },
                if self.closing {
                    Poll::nothing()
                } else {
                    Poll::readable(self.worker.as_fd())
                },
            ];
            sys::poll(&mut list, timeout);
            let [from_worker, signals, reported, _, worker_ended] =
                list.map(|polled| polled.is_readable());
            self.check_deadline()?;
            if signals {
                while sys::read_signal(self.common.signals.as_fd()).is_some() {}
                self.reap(&mut reports, &mut chunk)?;
            } else if reported {
                self.take_reports(&mut reports, &mut chunk)?;
            }
            if worker_ended {
                self.close();
            }
            if from_worker && listening {
                self.take_requests(&mut chunk)?;
            }
            self.finish_lost(&mut reports, &mut chunk)?;
            self.escalate();
            self.flush();
        }
        // The last endings may still wait for the worker to read; it is not waited for if it is gone.
        while !self.unsent.is_empty() {
            let mut list = [
                Poll::writable(self.socket.as_fd()),
                Poll::readable(self.worker.as_fd()),
            ];
            sys::poll(&mut list, None);
            if list[0].is_broken() || list[1].is_readable() {
                break;
            }
            self.flush();
        }
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.lost.is_empty() {
            return Some(Duration::from_millis(5));
        }
        let due = self
            .tasks
            .values()
            .filter_map(|task| task.ordered.map(|(_, at)| at))
            .min()?;
        Some(Duration::from_nanos(due.saturating_sub(sys::boottime_ns())))
    }

    // ---- the worker's requests

    fn take_requests(&mut self, chunk: &mut [u8]) -> io::Result<()> {
        loop {
            let mut fds = Vec::with_capacity(sys::MAX_FDS);
            match sys::receive(self.socket.as_fd(), chunk, &mut fds) {
                Ok(0) => {
                    self.close();
                    return Ok(());
                }
                Ok(count) => {
                    self.requests.extend(&chunk[..count]);
                    self.descriptors.extend(fds);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    self.close();
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            while let Some(request) = self
                .requests
                .next(Incoming::decode)
                .map_err(io::Error::other)?
            {
                self.take(request)?;
                if self.closing {
                    return Ok(());
                }
            }
            // A flood of requests must not keep endings or the deadline waiting.
            self.check_deadline()?;
            self.flush();
            if self.unsent.len() >= MAX_UNSENT {
                return Ok(());
            }
        }
    }

    fn take(&mut self, incoming: Incoming) -> io::Result<()> {
        match incoming {
            Incoming::Spawn {
                id,
                descriptors,
                request,
            } => {
                if self.descriptors.len() < descriptors {
                    return Err(io::Error::other(WireError::MissingDescriptor));
                }
                let start = Start {
                    id,
                    request,
                    streams: self.descriptors.drain(..descriptors).collect(),
                    oom_kills: self.oom.get(),
                };
                self.spawn(start)
            }
            Incoming::Other(request) => self.handle(request),
        }
    }

    fn handle(&mut self, request: Request) -> io::Result<()> {
        match request {
            Request::Spawn { id, .. } => {
                return Err(io::Error::other(format!("the start of {id} was decoded")));
            }
            Request::Terminate { id, grace_ms } => {
                if let Some(task) = self.tasks.get_mut(&id) {
                    let until = sys::boottime_ns() + u64::from(grace_ms) * 1_000_000 + PATIENT;
                    order(&self.shims, task, &Order::Terminate { id, grace_ms });
                    task.ordered.get_or_insert((KilledBy::Terminate, until));
                }
            }
            Request::Kill { id } => {
                if let Some(task) = self.tasks.get_mut(&id) {
                    let until = sys::boottime_ns() + PATIENT;
                    order_kill(&self.shims, id, task, KilledBy::Kill, until);
                }
            }
            Request::Deadline { boottime_ns } => {
                self.check_deadline()?;
                if boottime_ns > self.deadline {
                    self.deadline = boottime_ns;
                    self.expired = false;
                    sys::set_timer(self.common.deadline.as_fd(), boottime_ns)?;
                    self.check_deadline()?;
                }
            }
            Request::Shutdown => self.close(),
        }
        Ok(())
    }

    fn spawn(&mut self, start: Start) -> io::Result<()> {
        let id = start.id;
        self.check_deadline()?;
        if self.closing {
            self.refuse(id, SpawnFailureKind::ShuttingDown, 0, String::new());
            return Ok(());
        }
        if self.expired {
            self.refuse(id, SpawnFailureKind::DeadlinePassed, 0, String::new());
            return Ok(());
        }
        if self.tasks.contains_key(&id) || self.lost.iter().any(|lost| lost.id == id) {
            // The client refuses it; here the two ends disagree on what runs.
            return Err(io::Error::other(format!(
                "the worker started task {id} twice"
            )));
        }
        let shim = match self.shims.reuse(start) {
            Ok(shim) => shim,
            Err(start) => match self.fork(start) {
                Ok(shim) => shim,
                Err((error, program)) => {
                    let errno = error.raw_os_error().unwrap_or(0);
                    self.refuse(id, SpawnFailureKind::NoResources, errno, program);
                    return Ok(());
                }
            },
        };
        let task = Task {
            shim,
            spawned: false,
            ordered: None,
        };
        self.tasks.insert(id, task);
        Ok(())
    }

    /// Makes a shim, with this as its first task. An error comes with the task's program.
    fn fork(&mut self, start: Start) -> Result<Pid, (io::Error, String)> {
        let forked = sys::packet_socket_pair().and_then(|pair| Ok((pair, sys::fork()?)));
        match forked {
            Ok(((_, theirs), Fork::Child)) => shim::run(&self.common, theirs, start),
            Ok(((ours, _), Fork::Parent(pid))) => {
                self.shims.forked(pid, ours, start.id);
                Ok(pid)
            }
            Err(error) => {
                let program = match Request::decode(&mut Reader(&start.request)) {
                    Ok(Request::Spawn { spec, .. }) => format!("{:?}", spec.argv[0]),
                    _ => String::new(),
                };
                Err((error, program))
            }
        }
    }

    fn refuse(&mut self, id: u64, kind: SpawnFailureKind, errno: i32, detail: String) {
        let failure = SpawnFailure {
            kind,
            errno,
            detail,
        };
        self.tell(&Report::SpawnFailed { id, failure });
    }

    /// Begins the end: everything is killed, no request is read any more.
    fn close(&mut self) {
        if !self.closing {
            self.closing = true;
            self.kill_all(KilledBy::Shutdown);
        }
    }

    fn kill_all(&mut self, reason: KilledBy) {
        let until = sys::boottime_ns() + URGENT;
        for (id, task) in &mut self.tasks {
            order_kill(&self.shims, *id, task, reason, until);
        }
    }

    fn check_deadline(&mut self) -> io::Result<()> {
        if self.deadline != 0 && !self.expired && sys::boottime_ns() >= self.deadline {
            self.expired = true;
            self.kill_all(KilledBy::Deadline);
            let tasks = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
            self.tell(&Report::DeadlinePassed {
                deadline_boottime_ns: self.deadline,
                tasks,
            });
        }
        Ok(())
    }

    /// Kills the shims that have not done what they were told, being stopped or starved. Their orphans come to us.
    fn escalate(&mut self) {
        let now = sys::boottime_ns();
        for task in self.tasks.values_mut() {
            if let Some((_, due)) = &mut task.ordered
                && *due <= now
            {
                sys::kill(task.shim, libc::SIGKILL);
                *due = now + PATIENT;
            }
        }
    }

    // ---- the shims' reports and deaths

    /// Takes every report that is in the pipe.
    fn take_reports(&mut self, pipe: &mut PipeReader, chunk: &mut [u8]) -> io::Result<()> {
        loop {
            match pipe.read(chunk) {
                Ok(count) => self.reports.extend(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            while let Some(report) = self
                .reports
                .next(Report::decode)
                .map_err(io::Error::other)?
            {
                match &report {
                    Report::Spawned { id, .. } => {
                        if let Some(task) = self.tasks.get_mut(id) {
                            task.spawned = true;
                        }
                    }
                    Report::SpawnFailed { id, .. } | Report::Exited(Exited { id, .. }) => {
                        if let Some(task) = self.tasks.remove(id) {
                            self.shims.done(task.shim, *id);
                        }
                    }
                    Report::Ready | Report::DeadlinePassed { .. } => continue,
                }
                self.tell(&report);
            }
        }
    }

    /// Reaps shims and orphans; true if an orphan, or a shim that left some, was among them. A shim that ends before it
    /// has reported an ending was killed.
    fn reap(&mut self, pipe: &mut PipeReader, chunk: &mut [u8]) -> io::Result<bool> {
        let mut ended = Vec::new();
        let mut any = false;
        while let Reaped::Child { pid, usage, .. } = sys::reap_any() {
            match self.shims.reaped(pid) {
                Some(Some(id)) => ended.push((pid, id, usage)),
                Some(None) => {}
                None => any = true,
            }
        }
        // What a dead shim wrote is in the pipe by now.
        self.take_reports(pipe, chunk)?;
        for (pid, id, usage) in ended {
            // The id may be in use again, by a task that was started as soon as this one's ending was reported.
            if self.tasks.get(&id).is_some_and(|task| task.shim == pid)
                && let Some(task) = self.tasks.remove(&id)
            {
                any = true;
                self.lost.push(Lost { id, task, usage });
                self.sweeper.get_or_insert_with(Sweeper::new);
            }
        }
        Ok(any)
    }

    /// Kills the orphans of killed shims, and reports their tasks once no orphan is left.
    ///
    /// Orphans do not say whose they were, so tasks whose shims die at the same time are reported together.
    fn finish_lost(&mut self, pipe: &mut PipeReader, chunk: &mut [u8]) -> io::Result<()> {
        let Some(sweeper) = &mut self.sweeper else {
            return Ok(());
        };
        let shims = &self.shims;
        sweeper.pass(|pid| shims.contains(pid));
        // The kernel only says when there is no child at all, and the shims are children. So: no process on the host has an
        // orphan as its ancestor, and none has ended meanwhile, by which others could have moved up unseen.
        if !tree::scan(self.common.guardian, |pid| shims.contains(pid)).is_empty()
            || self.reap(pipe, chunk)?
        {
            return Ok(());
        }
        self.sweeper = None;
        for Lost { id, task, usage } in std::mem::take(&mut self.lost) {
            let killed_by = task
                .ordered
                .map_or(KilledBy::ShimLost, |(reason, _)| reason);
            let report = match task.spawned {
                false => {
                    let detail = "its shim was killed".to_owned();
                    let failure = SpawnFailure {
                        kind: SpawnFailureKind::Killed,
                        errno: 0,
                        detail,
                    };
                    Report::SpawnFailed { id, failure }
                }
                true => Report::Exited(Exited {
                    id,
                    status: ExitStatus::Unknown,
                    killed_by,
                    oom: false,
                    memory_limit_hit: None,
                    leftovers: 0,
                    max_rss_kb: usage.max_rss_kb,
                    user_cpu_ms: usage.user_ms(),
                    system_cpu_ms: usage.system_ms(),
                }),
            };
            self.tell(&report);
        }
        Ok(())
    }

    // ---- the way back

    fn tell(&mut self, report: &Report) {
        self.unsent.extend_from_slice(&report.encode());
    }

    /// Sends what the socket has room for.
    fn flush(&mut self) {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match self.socket.write(&self.unsent[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.unsent.clear();
                    self.close();
                    return;
                }
            }
        }
        self.unsent.drain(..sent);
        if self.unsent.is_empty() {
            self.unsent.shrink_to(CHUNK);
        }
    }
}

fn order_kill(shims: &Shims, id: u64, task: &mut Task, reason: KilledBy, until: u64) {
    order(shims, task, &Order::Kill { id, reason });
    // A terminate that is still in its grace stays the reason, but has no more time.
    let (_, due) = task.ordered.get_or_insert((reason, until));
    *due = (*due).min(until);
}

/// Sends an order. A shim that cannot take it (or has just ended) is killed, and its orphans come to us.
fn order(shims: &Shims, task: &Task, order: &Order) {
    if shims.order(task.shim, order).is_err() {
        sys::kill(task.shim, libc::SIGKILL);
    }
}
