//! Preloaded into a process (`LD_PRELOAD`), moves its wall clock by what a file says, at any instant.
//!
//! `GRISTMILL_CLOCK_FILE` names a file of eight bytes: the offset in nanoseconds, a native `i64`. It is mapped, so that a
//! write to it is a step of the clock. Monotonic clocks stay as they are, as they do when an operator sets the time.
//! It stands in for a clock that is set: time namespaces move only the monotonic clocks, and `libfaketime` neither starts
//! Redis with its own allocator nor leaves sleeps alone.
#![allow(
    unsafe_code,
    reason = "replacing functions of the C library has no safe form"
)]

use libc::{c_int, c_void, clockid_t, time_t, timespec, timeval};
use std::{
    mem::size_of,
    ptr,
    sync::atomic::{AtomicI64, AtomicPtr, Ordering},
};

const NANOS: i64 = 1_000_000_000;

/// The mapped file; null without one.
static OFFSET: AtomicPtr<AtomicI64> = AtomicPtr::new(ptr::null_mut());

/// Runs before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = map_file;

extern "C" fn map_file() {
    // SAFETY: C strings that end in NUL; the mapping is as long as what is read from it, aligned to a page, and stays.
    unsafe {
        let name = libc::getenv(c"GRISTMILL_CLOCK_FILE".as_ptr());
        if name.is_null() {
            return;
        }
        let file = libc::open(name, libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return;
        }
        let mapped = libc::mmap(
            ptr::null_mut(),
            size_of::<i64>(),
            libc::PROT_READ,
            libc::MAP_SHARED,
            file,
            0,
        );
        libc::close(file);
        if mapped != libc::MAP_FAILED {
            OFFSET.store(mapped.cast(), Ordering::Release);
        }
    }
}

fn offset() -> i64 {
    let mapped = OFFSET.load(Ordering::Acquire);
    // SAFETY: either null or the mapping, which is never taken back.
    unsafe { mapped.as_ref() }.map_or(0, |offset| offset.load(Ordering::Relaxed))
}

/// Asks the kernel itself: the C library's function is this one.
fn kernel_time(clock: clockid_t) -> Result<timespec, c_int> {
    let mut now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec.
    let answer = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, &raw mut now) };
    if answer == 0 { Ok(now) } else { Err(-1) }
}

fn wall_clock() -> timespec {
    let now = kernel_time(libc::CLOCK_REALTIME).unwrap_or(timespec {
        tv_sec: 0,
        tv_nsec: 0,
    });
    moved(now)
}

fn moved(time: timespec) -> timespec {
    let offset = offset();
    let nanos = time.tv_nsec + offset.rem_euclid(NANOS);
    timespec {
        tv_sec: time.tv_sec + offset.div_euclid(NANOS) + nanos / NANOS,
        tv_nsec: nanos % NANOS,
    }
}

/// See `clock_gettime(2)`.
///
/// # Safety
///
/// `to` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, to: *mut timespec) -> c_int {
    match kernel_time(clock) {
        Ok(now) => {
            let wall = matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE);
            // SAFETY: the caller's promise.
            if let Some(to) = unsafe { to.as_mut() } {
                *to = if wall { moved(now) } else { now };
            }
            0
        }
        Err(error) => error,
    }
}

/// See `gettimeofday(2)`. The time zone, which nobody may use, is left as it is.
///
/// # Safety
///
/// `to` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(to: *mut timeval, _zone: *mut c_void) -> c_int {
    let now = wall_clock();
    // SAFETY: the caller's promise.
    if let Some(to) = unsafe { to.as_mut() } {
        *to = timeval {
            tv_sec: now.tv_sec,
            tv_usec: now.tv_nsec / 1_000,
        };
    }
    0
}

/// See `time(2)`.
///
/// # Safety
///
/// `to` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(to: *mut time_t) -> time_t {
    let now = wall_clock().tv_sec;
    // SAFETY: the caller's promise.
    if let Some(to) = unsafe { to.as_mut() } {
        *to = now;
    }
    now
}
