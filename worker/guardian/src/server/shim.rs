//! The shim of one task: starts it, watches it, empties its tree, reports its ending.

use super::memory::MemoryWatch;
use super::tree::Sweeper;
use super::{Common, GUARDIAN_DIED, ORDER_KILL, ORDER_TERMINATE, launch, oom};
use crate::event::{ExitStatus, Exited, KilledBy, MemoryHit, Report, SpawnFailure};
use crate::request::SpawnSpec;
use crate::sys::{self, Pid, Poll, Reaped};
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// What the guardian hands over to a new shim.
pub(super) struct Assignment {
    pub(super) id: u64,
    pub(super) spec: SpawnSpec,
    pub(super) streams: [Option<OwnedFd>; 3],
    /// `oom::kills` before the start.
    pub(super) oom_kills: u64,
}

/// Runs the shim in a freshly forked process.
pub(super) fn run(common: &Common, assignment: Assignment) -> ! {
    // A panic must not unwind into the guardian's loop. Its exit code makes the guardian kill what is left.
    let ended =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| start(common, assignment)));
    sys::exit_now(if ended.is_ok() { 0 } else { 70 })
}

fn start(common: &Common, assignment: Assignment) {
    let Assignment {
        id,
        spec,
        streams,
        oom_kills,
    } = assignment;
    sys::set_name(c"gm-shim");
    sys::start_session();
    let mut keep: Vec<_> = common
        .descriptors()
        .chain(streams.iter().flatten().map(AsRawFd::as_raw_fd))
        .collect();
    let mut shim = Shim {
        common,
        id,
        oom_kills,
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
    };
    let ready = sys::close_all_except(&mut keep)
        .and_then(|()| sys::set_child_subreaper())
        .and_then(|()| sys::set_parent_death_signal(sys::rt_signal(GUARDIAN_DIED)));
    if sys::parent_pid() != common.guardian {
        return;
    }
    let started = match ready {
        Ok(()) => {
            let null = common.null.as_raw_fd();
            launch::launch(
                &spec,
                streams
                    .each_ref()
                    .map(|fd| fd.as_ref().map_or(null, AsRawFd::as_raw_fd)),
            )
        }
        Err(error) => Err(SpawnFailure {
            kind: crate::event::SpawnFailureKind::Other,
            errno: error.raw_os_error().unwrap_or(0),
            detail: format!("{:?} (step: its shim)", spec.argv[0]),
        }),
    };
    // The task alone holds its streams, so that their readers see the end of the tree as the end of the stream.
    drop(streams);
    shim.memory = spec.limits.memory_bytes.map(MemoryWatch::new);
    drop(spec);
    match started {
        Ok(pid) => {
            shim.main = pid;
            shim.send(&Report::Spawned {
                id,
                pid: pid as u32,
            });
            shim.watch();
        }
        Err(failure) => shim.send(&Report::SpawnFailed { id, failure }),
    }
    shim.send_rest();
}

struct Shim<'a> {
    common: &'a Common,
    id: u64,
    oom_kills: u64,
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

impl Shim<'_> {
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
            let mut list = [
                Poll::readable(self.common.signals.as_fd()),
                deadline,
                reports,
            ];
            sys::poll(&mut list, timeout);
            if list[1].is_readable() {
                self.kill(KilledBy::Deadline);
            }
            if list[2].is_broken() {
                self.lose_guardian();
            }
            self.flush();
            if list[0].is_readable() {
                self.take_signals();
            }
        }
        let usage = sys::children_usage();
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
            user_cpu_ms: usage.user_ms,
            system_cpu_ms: usage.system_ms,
        }));
    }

    /// Reaps all that has ended; false when there is no child left.
    fn reap(&mut self) -> bool {
        loop {
            match sys::reap_any() {
                Reaped::NoneEnded => return true,
                Reaped::NoChildren => return false,
                Reaped::Child { pid, status, .. } if pid == self.main && self.status.is_none() => {
                    self.status = Some(exit_status(status));
                    // During a grace what the main process leaves keeps the rest of it: a shell dies of the SIGTERM
                    // at once, while its child may still be tidying up.
                    if self.terminate_until.is_none() {
                        self.sweeper.get_or_insert_with(Sweeper::new);
                    }
                }
                Reaped::Child { status, .. } => {
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
        while let Some(received) = sys::read_signal(self.common.signals.as_fd()) {
            if received.signal == libc::SIGCHLD {
                continue;
            }
            if sys::parent_pid() != self.common.guardian {
                self.lose_guardian();
            } else if received.sender != self.common.guardian {
                // Not an order: any process of the same user could send it.
            } else if received.signal == sys::rt_signal(ORDER_TERMINATE) {
                self.terminate(Duration::from_millis(received.value.max(0) as u64));
            } else if received.signal == sys::rt_signal(ORDER_KILL) {
                let reason = u8::try_from(received.value)
                    .ok()
                    .and_then(KilledBy::from_number);
                self.kill(reason.unwrap_or(KilledBy::Kill));
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
