//! Signals: everything blocked, what matters read from a descriptor.

use super::check;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A real-time signal that is free for use. libc says where they begin, since threading libraries keep some.
pub(crate) fn rt_signal(offset: libc::c_int) -> libc::c_int {
    libc::SIGRTMIN() + offset
}

/// Blocks every signal and puts all dispositions back to default, SIGCHLD and an inherited nohup included.
///
/// Shims inherit both, and so a task needs only an empty mask to start like one that a login shell started.
pub(crate) fn block_all_and_reset() -> io::Result<()> {
    // SAFETY: sigset_t is plain data; sigfillset initialises it before it is read.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        check(libc::sigprocmask(
            libc::SIG_SETMASK,
            &all,
            std::ptr::null_mut(),
        ))?;
    }
    // The kernel's sigaction (handler, flags, restorer where there is one, mask) is smaller than this; zero is SIG_DFL.
    let default = [0u64; 8];
    for signal in 1..=64 {
        // SAFETY: `default` is a valid action that is only read. Made raw, since libc refuses the two signals that it
        // keeps to itself, and a parent may have had those ignored too. KILL and STOP fail without effect.
        unsafe {
            let none = std::ptr::null_mut::<u64>();
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                none,
                size_of::<u64>(),
            );
        }
    }
    Ok(())
}

/// A descriptor that delivers the given (blocked) signals of whichever process polls and reads it: forked children may
/// share it.
pub(crate) fn signal_fd(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before use; the new descriptor has no other owner.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        let fd = check(libc::signalfd(
            -1,
            &set,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The number of the next pending signal, if any.
pub(crate) fn read_signal(fd: BorrowedFd<'_>) -> Option<libc::c_int> {
    // SAFETY: signalfd_siginfo is plain data; the kernel writes whole records of exactly this size.
    unsafe {
        let mut info: libc::signalfd_siginfo = std::mem::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        let read = libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size);
        (read == size as isize).then_some(info.ssi_signo as libc::c_int)
    }
}
