//! Descriptors: polling, timers, and closing everything that must not be inherited.

use super::check;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// One descriptor to wait for, and what poll found.
#[repr(transparent)]
pub(crate) struct Poll(libc::pollfd);

impl Poll {
    pub(crate) fn readable(fd: BorrowedFd<'_>) -> Self {
        Poll(libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
    }

    pub(crate) fn writable(fd: BorrowedFd<'_>) -> Self {
        Poll(libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLOUT,
            revents: 0,
        })
    }

    /// Waits for the other side's end only.
    pub(crate) fn hangup(fd: BorrowedFd<'_>) -> Self {
        Poll(libc::pollfd {
            fd: fd.as_raw_fd(),
            events: 0,
            revents: 0,
        })
    }

    /// Keeps its place in the list without being waited for.
    pub(crate) fn nothing() -> Self {
        Poll(libc::pollfd {
            fd: -1,
            events: 0,
            revents: 0,
        })
    }

    pub(crate) fn also_writable(mut self, wanted: bool) -> Self {
        if wanted {
            self.0.events |= libc::POLLOUT;
        }
        self
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.0.revents & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) != 0
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.0.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
    }
}

/// Waits until one of the descriptors is ready or the timeout (rounded up to milliseconds) is over.
pub(crate) fn poll(list: &mut [Poll], timeout: Option<Duration>) {
    let ms = match timeout {
        None => -1,
        Some(timeout) => timeout.as_micros().div_ceil(1000).min(i32::MAX as u128) as libc::c_int,
    };
    // SAFETY: Poll is one pollfd (the pointer is taken through it), the length is the slice's. Errors (EINTR, ENOMEM)
    // leave revents at 0, and the caller comes back.
    unsafe { libc::poll(list.as_mut_ptr().cast(), list.len() as libc::nfds_t, ms) };
}

/// An unarmed timer on `CLOCK_BOOTTIME`, readable from its expiry until it is set anew.
pub(crate) fn boottime_timer() -> io::Result<OwnedFd> {
    // SAFETY: no memory preconditions; the new descriptor has no other owner.
    unsafe {
        let fd = check(libc::timerfd_create(
            libc::CLOCK_BOOTTIME,
            libc::TFD_CLOEXEC | libc::TFD_NONBLOCK,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Sets the timer to a moment (nanoseconds, not 0), which also makes it unreadable until then.
pub(crate) fn set_timer(fd: BorrowedFd<'_>, at_ns: u64) -> io::Result<()> {
    let at = libc::timespec {
        tv_sec: (at_ns / 1_000_000_000) as i64,
        tv_nsec: (at_ns % 1_000_000_000) as i64,
    };
    let spec = libc::itimerspec {
        it_interval: libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: at,
    };
    // SAFETY: `spec` is valid and only read; a null old value is allowed.
    check(unsafe {
        libc::timerfd_settime(
            fd.as_raw_fd(),
            libc::TFD_TIMER_ABSTIME,
            &spec,
            std::ptr::null_mut(),
        )
    })
    .map(drop)
}

/// Writes to a pipe; false if it has no room or no reader. For at most `PIPE_BUF` bytes, which go whole or not at all.
pub(crate) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> bool {
    // SAFETY: the pointer and length are those of a slice, which is only read.
    unsafe {
        libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) == bytes.len() as isize
    }
}

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: these fcntls take numbers only.
    unsafe {
        let flags = check(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
        check(libc::fcntl(
            fd.as_raw_fd(),
            libc::F_SETFL,
            flags | libc::O_NONBLOCK,
        ))
        .map(drop)
    }
}

/// A close-on-exec copy above the standard descriptors.
pub(crate) fn to_high_fd(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only; the new descriptor has no other owner.
    unsafe {
        Ok(OwnedFd::from_raw_fd(check(libc::fcntl(
            fd.as_raw_fd(),
            libc::F_DUPFD_CLOEXEC,
            3,
        ))?))
    }
}

/// Moves a standard descriptor (0 or 1) away and puts `/dev/null` in its place.
pub(crate) fn take_stdio(fd: RawFd, null: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is only borrowed for the call, and a closed one gives EBADF.
    let moved = to_high_fd(unsafe { BorrowedFd::borrow_raw(fd) })?;
    // SAFETY: takes numbers only; nothing in this process owns 0 and 1.
    check(unsafe { libc::dup2(null.as_raw_fd(), fd) })?;
    Ok(moved)
}

/// Closes every descriptor above 2 that is not listed.
///
/// For a fresh shim: what it closes are its copies of things that the guardian owns, and the values that own them there
/// are never dropped in the shim (it ends by `exit_now`).
pub(crate) fn close_all_except(keep: &mut [RawFd]) -> io::Result<()> {
    keep.sort_unstable();
    let mut from: libc::c_uint = 3;
    let close = |first: libc::c_uint, last: libc::c_uint| -> io::Result<()> {
        if first > last {
            return Ok(());
        }
        // SAFETY: takes numbers only. See above for who might still own what is closed.
        check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } as libc::c_int)
            .map(drop)
    };
    for fd in keep
        .iter()
        .map(|fd| *fd as libc::c_uint)
        .filter(|fd| *fd >= 3)
    {
        close(from, fd.saturating_sub(1))?;
        from = fd + 1;
    }
    close(from, libc::c_uint::MAX)
}
