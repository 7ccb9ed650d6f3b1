//! Processes: forking, killing, reaping, and who learns of whose death.

use super::check;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

pub(crate) type Pid = libc::pid_t;

pub(crate) enum Fork {
    Parent(Pid),
    Child,
}

/// Forks this single-threaded process.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: the process has one thread, so the child starts with consistent memory and no lock held by others.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Ends the process at once: a forked child must not run the destructors or exit handlers of its parent.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

pub(crate) fn self_pid() -> Pid {
    std::process::id() as Pid
}

pub(crate) fn parent_pid() -> Pid {
    std::os::unix::process::parent_id() as Pid
}

/// Signals one process. Not an error if it is gone or is not ours: whoever counts on the death looks for it.
pub(crate) fn kill(pid: Pid, signal: libc::c_int) {
    // 0 and negative numbers would address groups, 1 is init.
    if pid > 1 {
        // SAFETY: kill has no memory preconditions.
        unsafe { libc::kill(pid, signal) };
    }
}

/// Signals a process group; true if it had a member.
pub(crate) fn kill_group(group: Pid, signal: libc::c_int) -> bool {
    // SAFETY: kill has no memory preconditions.
    group > 1 && unsafe { libc::kill(-group, signal) } == 0
}

/// What a process and the descendants it waited for have used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) max_rss_kb: u64,
    user_us: u64,
    system_us: u64,
}

impl Usage {
    /// Adds what another process has used.
    pub(crate) fn add(&mut self, other: Usage) {
        self.max_rss_kb = self.max_rss_kb.max(other.max_rss_kb);
        self.user_us += other.user_us;
        self.system_us += other.system_us;
    }

    pub(crate) fn user_ms(&self) -> u64 {
        self.user_us / 1000
    }

    pub(crate) fn system_ms(&self) -> u64 {
        self.system_us / 1000
    }
}

impl From<libc::rusage> for Usage {
    fn from(raw: libc::rusage) -> Self {
        let us = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
        Usage {
            max_rss_kb: raw.ru_maxrss as u64,
            user_us: us(raw.ru_utime),
            system_us: us(raw.ru_stime),
        }
    }
}

pub(crate) enum Reaped {
    /// The child is gone; `status` as wait(2) gives it.
    Child {
        pid: Pid,
        status: libc::c_int,
        usage: Usage,
    },
    /// There are children, all alive.
    NoneEnded,
    /// There is no child at all: the tree below this process is empty.
    NoChildren,
}

/// Reaps one ended child without waiting.
pub(crate) fn reap_any() -> Reaped {
    // SAFETY: rusage is plain data, for which zeroes are valid.
    let mut raw: libc::rusage = unsafe { std::mem::zeroed() };
    let mut status = 0;
    // SAFETY: both pointers are to valid values that the call only writes to.
    match unsafe { libc::wait4(-1, &mut status, libc::WNOHANG | libc::__WALL, &mut raw) } {
        0 => Reaped::NoneEnded,
        pid if pid > 0 => Reaped::Child {
            pid,
            status,
            usage: raw.into(),
        },
        // ECHILD is the only error there can be: WNOHANG is not interrupted, the options are valid.
        _ => Reaped::NoChildren,
    }
}

/// A descriptor that becomes readable when the process ends.
pub(crate) fn pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open has no memory preconditions.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as libc::c_int)?;
    // SAFETY: the descriptor is fresh and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Orphans below this process become its children from now on. Forked children do not inherit this.
pub(crate) fn set_child_subreaper() -> io::Result<()> {
    // SAFETY: this prctl takes a number only.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }).map(drop)
}

/// The signal that this process gets when its parent dies.
pub(crate) fn set_parent_death_signal(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: this prctl takes a number only.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) }).map(drop)
}

/// The name in ps and killall, at most 15 bytes.
pub(crate) fn set_name(name: &std::ffi::CStr) {
    // SAFETY: the name is NUL-terminated and only read; the kernel truncates it.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Leaves the session and process group, so that a Ctrl-C or a group kill meant for the parent misses this process.
pub(crate) fn start_session() {
    // SAFETY: setsid has no preconditions; it fails only for a group leader, who is out of the parent's group already.
    unsafe { libc::setsid() };
}
