//! Safe faces of the Linux calls that std has no word for. All `unsafe` code of the crate is below this module.
//!
//! The guardian and its shims are single-threaded (checked at start), so what is written here about `fork` holds: the
//! child has the whole program state, no lock is held by a thread that is not there.

mod descriptors;
mod exec;
mod process;
mod signals;
mod socket;
mod users;

pub(crate) use descriptors::{
    Poll, boottime_timer, close_all_except, poll, set_nonblocking, set_timer, take_stdio,
    to_high_fd, write,
};
pub(crate) use exec::{ExecError, ExecPlan, Stage, spawn_exec};
pub(crate) use process::{
    Fork, Pid, Reaped, Usage, exit_now, fork, kill, kill_group, parent_pid, pidfd, reap_any,
    self_pid, set_child_subreaper, set_name, set_parent_death_signal, start_session,
};
pub(crate) use signals::{block_all_and_reset, read_signal, rt_signal, signal_fd};
pub(crate) use socket::{MAX_FDS, packet_socket_pair, receive, send_with_fds};
pub(crate) use users::user_by_name;

use std::io;

/// `CLOCK_BOOTTIME` in nanoseconds: the clock of leases, which also runs while the host is suspended.
pub(crate) fn boottime_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid timespec that the call only writes to.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    assert_eq!(failed, 0, "CLOCK_BOOTTIME exists since Linux 2.6.39");
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Turns the -1 of a libc call into the errno behind it.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
