//! A shim: starts a task, watches it, empties its tree, reports its ending, and waits for the next.

use super::memory::MemoryWatch;
use super::orders::{self, Order, Received, Start};
use super::tree::Sweeper;
use super::{Common, GUARDIAN_DIED, launch, oom};
use crate::event::{
    ExitStatus, Exited, KilledBy, MemoryHit, Report, SpawnFailure, SpawnFailureKind,
};
use crate::request::{Request, SpawnSpec};
use crate::sys::{self, Pid, Poll, Reaped, Usage};
use crate::wire::{Reader, WireError};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Runs the shim in a freshly forked process: first this task, then those that the guardian hands over.
pub(super) fn run(common: &Common, orders: OwnedFd, first: Start) -> ! {
    // A panic must not unwind into the guardian's loop. Its exit code makes the guardian kill what is left.
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        live(common, &orders, first);
    }));
    sys::exit_now(if ended.is_ok() { 0 } else { 70 })
}

fn live(common: &Common, orders: &OwnedFd, first: Start) {
    sys::set_name(c"gm-shim");
    sys::start_session();
    let mut keep: Vec<_> = common
        .descriptors()
        .chain([orders.as_raw_fd()])
        .chain(first.streams.iter().map(AsRawFd::as_raw_fd))
        .collect();
    let mut ready = sys::close_all_except(&mut keep)
        .and_then(|()| sys::set_child_subreaper())
        .and_then(|()| sys::set_parent_death_signal(sys::rt_signal(GUARDIAN_DIED)));
    if sys::parent_pid() != common.guardian {
        return;
    }
    let mut next = Some(first);
    while let Some(start) = next {
        let failed = ready.is_err();
        let guardian_gone = Shim::new(common, orders, &start).run(start, ready);
        if guardian_gone || failed {
            return;
        }
        ready = Ok(());
        next = wait(common, orders);
    }
}

/// Waits for the next task; `None` when there is none to come.
fn wait(common: &Common, orders: &OwnedFd) -> Option<Start> {
    loop {
        let mut list = [
            Poll::readable(orders.as_fd()),
            Poll::readable(common.signals.as_fd()),
            Poll::hangup(common.reports.as_fd()),
        ];
        sys::poll(&mut list, None);
        while sys::read_signal(common.signals.as_fd()).is_some() {}
        if list[2].is_broken() || sys::parent_pid() != common.guardian {
            return None;
        }
        match orders::receive(orders.as_fd()) {
            Received::Order(Order::Start(start)) => return Some(start),
            // For the task before: it had just ended.
            Received::Order(Order::Terminate { .. } | Order::Kill { .. }) | Received::Nothing => {}
            Received::End => return None,
        }
    }
}

/// A start in full.
struct Task {
    spec: SpawnSpec,
    streams: [Option<OwnedFd>; 3],
}

impl Task {
    fn decode(start: Start) -> Result<Self, WireError> {
        let mut descriptors = start.streams.into_iter();
        match Request::decode(&mut Reader(&start.request))? {
            Request::Spawn { spec, streams, .. } => Ok(Task {
                spec,
                streams: streams.map(|given| if given { descriptors.next() } else { None }),
            }),
            _ => Err(WireError::Truncated),
        }
    }
}

/// A shim with one task.
struct Shim<'a> {
    common: &'a Common,
    orders: &'a OwnedFd,
    id: u64,
    oom_kills: u64,
    /// Of all processes of the task that were reaped.
    usage: Usage,
    main: Pid,
    /// Of the main process, once reaped.
    status: Option<ExitStatus>,
    killed_by: KilledBy,
    memory_limit_hit: Option<MemoryHit>,
    leftovers: u32,
    /// SIGTERM was sent; what is alive then is killed.
    terminate_until: Option<Instant>,
    /// Set when the tree is to be killed.
    sweeper: Option<Sweeper>,
    memory: Option<MemoryWatch>,
    /// Reports that the pipe had no room for: waiting for room must not keep from killing.
    unsent: VecDeque<Vec<u8>>,
    guardian_gone: bool,
}

impl<'a> Shim<'a> {
    fn new(common: &'a Common, orders: &'a OwnedFd, start: &Start) -> Self {
        Shim {
            common,
            orders,
            id: start.id,
            oom_kills: start.oom_kills,
            usage: Usage::default(),
            main: 0,
            status: None,
            killed_by: KilledBy::None,
            memory_limit_hit: None,
            leftovers: 0,
            terminate_until: None,
            sweeper: None,
            memory: None,
            unsent: VecDeque::new(),
            guardian_gone: false,
        }
    }

    /// Runs the task to the end of its tree and reports it, or why it did not start. `ready`: what became of the shim's
    /// own preparations. True if the guardian is gone.
    fn run(mut self, start: Start, ready: io::Result<()>) -> bool {
        let id = self.id;
        match self.launch(start, ready) {
            Ok(pid) => {
                self.main = pid;
                self.send(&Report::Spawned {
                    id,
                    pid: pid as u32,
                });
                self.watch();
            }
            Err(failure) => self.send(&Report::SpawnFailed { id, failure }),
        }
        self.send_rest();
        self.guardian_gone
    }

    /// The task alone holds its streams afterwards, so that their readers see the end of the tree as the end of the
    /// stream.
    fn launch(&mut self, start: Start, ready: io::Result<()>) -> Result<Pid, SpawnFailure> {
        let bad = |detail: String, errno| SpawnFailure {
            kind: SpawnFailureKind::Other,
            errno,
            detail,
        };
        let Task { spec, streams } =
            Task::decode(start).map_err(|error| bad(format!("its request: {error}"), 0))?;
        ready.map_err(|error| {
            let detail = format!("{:?} (step: its shim)", spec.argv[0]);
            bad(detail, error.raw_os_error().unwrap_or(0))
        })?;
        self.memory = spec.limits.memory_bytes.map(MemoryWatch::new);
        let null = self.common.null.as_raw_fd();
        let stdio = streams
            .each_ref()
            .map(|fd| fd.as_ref().map_or(null, AsRawFd::as_raw_fd));
        launch::launch(&spec, stdio)
    }

    /// Returns when the tree is empty, with the ending reported.
    fn watch(&mut self) {
        while self.reap() {
            let timeout = self.act();
            let deadline = match &self.sweeper {
                // It stays readable; once is enough.
                Some(_) => Poll::nothing(),
                None => Poll::readable(self.common.deadline.as_fd()),
            };
            let reports = match (self.guardian_gone, self.unsent.is_empty()) {
                (true, _) => Poll::nothing(),
                (false, true) => Poll::hangup(self.common.reports.as_fd()),
                (false, false) => Poll::writable(self.common.reports.as_fd()),
            };
            let orders = match self.guardian_gone {
                true => Poll::nothing(),
                false => Poll::readable(self.orders.as_fd()),
            };
            let mut list = [
                Poll::readable(self.common.signals.as_fd()),
                deadline,
                reports,
                orders,
            ];
            sys::poll(&mut list, timeout);
            if list[1].is_readable() {
                self.kill(KilledBy::Deadline);
            }
            if list[2].is_broken() {
                self.lose_guardian();
            }
            self.flush();
            if list[3].is_readable() {
                self.take_orders();
            }
            if list[0].is_readable() {
                self.take_signals();
            }
        }
        let usage = self.usage;
        let status = self.status.unwrap_or(ExitStatus::Unknown);
        let killed =
            status == ExitStatus::Signal(libc::SIGKILL) && self.killed_by == KilledBy::None;
        self.send(&Report::Exited(Exited {
            id: self.id,
            status,
            killed_by: self.killed_by,
            oom: killed && oom::kills() > self.oom_kills,
            memory_limit_hit: self.memory_limit_hit,
            leftovers: self.leftovers,
            max_rss_kb: usage.max_rss_kb,
            user_cpu_ms: usage.user_ms(),
            system_cpu_ms: usage.system_ms(),
        }));
    }

    /// Reaps all that has ended; false when there is no child left.
    fn reap(&mut self) -> bool {
        loop {
            match sys::reap_any() {
                Reaped::NoneEnded => return true,
                Reaped::NoChildren => return false,
                Reaped::Child { pid, status, usage }
                    if pid == self.main && self.status.is_none() =>
                {
                    self.usage.add(usage);
                    self.status = Some(exit_status(status));
                    // During a grace what the main process leaves keeps the rest of it: a shell dies of the SIGTERM
                    // at once, while its child may still be tidying up.
                    if self.terminate_until.is_none() {
                        self.sweeper.get_or_insert_with(Sweeper::new);
                    }
                }
                Reaped::Child { status, usage, .. } => {
                    self.usage.add(usage);
                    let killed = exit_status(status) == ExitStatus::Signal(libc::SIGKILL);
                    if killed && self.status.is_some() && self.killed_by == KilledBy::None {
                        self.leftovers += 1;
                    }
                }
            }
        }
    }

    /// Does what is due; returns how long to wait for the next.
    fn act(&mut self) -> Option<Duration> {
        if let Some(hit) = self.memory.as_mut().and_then(MemoryWatch::check) {
            self.kill(KilledBy::Memory);
            self.memory_limit_hit = (self.killed_by == KilledBy::Memory).then_some(hit);
        }
        if self
            .terminate_until
            .is_some_and(|until| until <= Instant::now())
        {
            self.kill(KilledBy::Terminate);
        }
        if let Some(sweeper) = &mut self.sweeper {
            return Some(sweeper.pass(|_| false));
        }
        let grace = self
            .terminate_until
            .map(|until| until.saturating_duration_since(Instant::now()));
        let sample = self.memory.as_ref().map(MemoryWatch::wait);
        grace.into_iter().chain(sample).min()
    }

    fn take_signals(&mut self) {
        while let Some(signal) = sys::read_signal(self.common.signals.as_fd()) {
            if signal != libc::SIGCHLD && sys::parent_pid() != self.common.guardian {
                self.lose_guardian();
            }
        }
    }

    fn take_orders(&mut self) {
        loop {
            match orders::receive(self.orders.as_fd()) {
                Received::Order(Order::Terminate { id, grace_ms }) if id == self.id => {
                    self.terminate(Duration::from_millis(u64::from(grace_ms)));
                }
                Received::Order(Order::Kill { id, reason }) if id == self.id => self.kill(reason),
                // Of the task before: it had just ended.
                Received::Order(Order::Terminate { .. } | Order::Kill { .. }) => {}
                Received::Nothing => return,
                // A shim that is busy is given nothing: the two ends disagree.
                Received::Order(Order::Start(_)) | Received::End => return self.lose_guardian(),
            }
        }
    }

    fn terminate(&mut self, grace: Duration) {
        if self.sweeper.is_some() {
            return;
        }
        self.blame(KilledBy::Terminate);
        // Until it is reaped its number, and so that of its group, cannot be anybody else's.
        if self.status.is_none() {
            sys::kill_group(self.main, libc::SIGTERM);
            // A stopped process would not see it.
            sys::kill_group(self.main, libc::SIGCONT);
        }
        let until = Instant::now() + grace;
        self.terminate_until = Some(
            self.terminate_until
                .map_or(until, |earlier| earlier.min(until)),
        );
    }

    fn kill(&mut self, reason: KilledBy) {
        self.blame(reason);
        self.terminate_until = None;
        self.memory = None;
        self.sweeper.get_or_insert_with(Sweeper::new);
    }

    fn lose_guardian(&mut self) {
        self.guardian_gone = true;
        self.kill(KilledBy::Shutdown);
    }

    /// The first reason stands. What happens after the main process ended by itself did not end the task.
    fn blame(&mut self, reason: KilledBy) {
        if self.killed_by == KilledBy::None && self.status.is_none() {
            self.killed_by = reason;
        }
    }

    fn send(&mut self, report: &Report) {
        self.unsent.push_back(report.encode());
        self.flush();
    }

    /// Writes what the pipe has room for, each report whole.
    fn flush(&mut self) {
        while let Some(report) = self.unsent.front() {
            // Whole or not at all, since it is shorter than PIPE_BUF.
            if !sys::write(self.common.reports.as_fd(), report) {
                return;
            }
            self.unsent.pop_front();
        }
    }

    /// Waits until all is written or nobody is there to read it.
    fn send_rest(&mut self) {
        while !self.unsent.is_empty() && !self.guardian_gone {
            let mut list = [Poll::writable(self.common.reports.as_fd())];
            sys::poll(&mut list, None);
            self.flush();
            self.guardian_gone |= list[0].is_broken();
        }
    }
}

fn exit_status(raw: libc::c_int) -> ExitStatus {
    if libc::WIFSIGNALED(raw) {
        ExitStatus::Signal(libc::WTERMSIG(raw))
    } else {
        ExitStatus::Code(libc::WEXITSTATUS(raw))
    }
}
