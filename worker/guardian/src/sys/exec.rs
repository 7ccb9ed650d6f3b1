//! Starting a program exactly as planned: the way of `posix_spawn`, with the limits, user and death signal that it lacks.

use super::{Pid, check};
use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// Everything about the new process. Whatever is not here is default: signals, mask, no descriptor above 2.
pub(crate) struct ExecPlan<'a> {
    /// Tried in order while they are missing, as execvp does.
    pub(crate) programs: &'a [CString],
    pub(crate) argv: &'a [CString],
    /// `NAME=value`, exact.
    pub(crate) env: &'a [CString],
    pub(crate) cwd: &'a CString,
    /// What becomes 0, 1 and 2; all above 2.
    pub(crate) stdio: [RawFd; 3],
    /// Resource (`RLIMIT_…`), soft and hard limit.
    pub(crate) limits: &'a [(u32, u64, u64)],
    /// Uid, gid, supplementary groups.
    pub(crate) user: Option<(u32, u32, &'a [u32])>,
    /// Text for `/proc/self/oom_score_adj`.
    pub(crate) oom_score_adj: &'a [u8],
}

/// The step at which starting a program failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Process,
    Streams,
    Limits,
    User,
    Cwd,
    Exec,
}

#[derive(Debug)]
pub(crate) struct ExecError {
    pub(crate) stage: Stage,
    pub(crate) error: io::Error,
}

/// What the child works with: prepared before it exists, since between clone and exec nothing may be allocated.
struct Child<'a> {
    plan: &'a ExecPlan<'a>,
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    parent: Pid,
    /// Written by the child, which shares our memory until its exec.
    failed: Option<(Stage, c_int)>,
}

/// The stack of the child until its exec, a few small frames deep.
const STACK: usize = 12 * 1024;

/// Starts the program; returns when it runs (after exec) or has failed to.
///
/// All signals must be blocked, so that no handler runs in the child on shared memory.
pub(crate) fn spawn_exec(plan: &ExecPlan<'_>) -> Result<Pid, ExecError> {
    let pointers = |list: &[CString]| {
        list.iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let mut child = Child {
        plan,
        argv: pointers(plan.argv),
        env: pointers(plan.env),
        parent: super::self_pid(),
        failed: None,
    };
    let mut stack = [MaybeUninit::<u8>::uninit(); STACK];
    // Stacks grow downward on all that Linux and Rust share; 16 bytes is the strictest alignment.
    // SAFETY: the end of the array, rounded down, is inside it. CLONE_VFORK suspends this thread until the child has
    // called exec or exit, so `child` and `stack` stay alive and are not touched by both at once; CLONE_VM lets the
    // child leave its error in `child`. It has its own descriptors and signal state, as CLONE_FILES and CLONE_SIGHAND
    // are not set.
    let result = unsafe {
        let end = stack.as_mut_ptr().add(STACK);
        let top = end.sub(end as usize % 16).cast::<c_void>();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        check(libc::clone(child_main, top, flags, (&raw mut child).cast()))
    };
    let pid = result.map_err(|error| ExecError {
        stage: Stage::Process,
        error,
    })?;
    // SAFETY: `child` is valid; the volatile read keeps the compiler from assuming it is still as we built it.
    match unsafe { (&raw const child.failed).read_volatile() } {
        None => Ok(pid),
        Some((stage, errno)) => {
            // SAFETY: takes numbers and a null pointer; the child has called _exit.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) };
            Err(ExecError {
                stage,
                error: io::Error::from_raw_os_error(errno),
            })
        }
    }
}

extern "C" fn child_main(argument: *mut c_void) -> c_int {
    // SAFETY: the argument is the `Child` of `spawn_exec`, whose thread stands still meanwhile.
    let child = unsafe { &mut *argument.cast::<Child<'_>>() };
    // SAFETY: this is the child of a clone whose parent prepared `child` as the function wants it.
    if let Err(failed) = unsafe { become_program(child) } {
        child.failed = Some(failed);
    }
    super::exit_now(127)
}

/// Turns this process into the program; returns only on failure.
///
/// # Safety
/// Only for the child of `spawn_exec`: system calls only, no allocation, no lock, no panic. The calls that libc spreads
/// over all threads (setuid and its like) are made raw, since there is one thread and its libc state is the parent's.
unsafe fn become_program(child: &Child<'_>) -> Result<(), (Stage, c_int)> {
    let plan = child.plan;
    let at = |stage: Stage| move |error: io::Error| (stage, error.raw_os_error().unwrap_or(0));
    // SAFETY: all pointers are to NUL-terminated strings or plain values prepared by the parent; null-terminated lists
    // where execve wants them.
    unsafe {
        libc::setsid();
        for (target, source) in plan.stdio.iter().enumerate() {
            check(libc::dup2(*source, target as c_int)).map_err(at(Stage::Streams))?;
        }
        // Everything is close-on-exec already; this also covers what a library may have opened carelessly.
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);

        for (resource, soft, hard) in plan.limits {
            let mut now = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            check(libc::getrlimit(*resource as _, &mut now)).map_err(at(Stage::Limits))?;
            // A limit that is stricter already stays: raising it would need a privilege.
            let wanted = libc::rlimit {
                rlim_cur: now.rlim_max.min(*soft),
                rlim_max: now.rlim_max.min(*hard),
            };
            check(libc::setrlimit(*resource as _, &wanted)).map_err(at(Stage::Limits))?;
        }
        let adj = libc::open(
            c"/proc/self/oom_score_adj".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        );
        if adj >= 0 {
            libc::write(
                adj,
                plan.oom_score_adj.as_ptr().cast(),
                plan.oom_score_adj.len(),
            );
            libc::close(adj);
        }

        if let Some((uid, gid, groups)) = plan.user {
            let user = at(Stage::User);
            check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) as c_int)
                .map_err(user)?;
            check(libc::syscall(libc::SYS_setresgid, gid, gid, gid) as c_int).map_err(user)?;
            check(libc::syscall(libc::SYS_setresuid, uid, uid, uid) as c_int).map_err(user)?;
        }
        check(libc::chdir(plan.cwd.as_ptr())).map_err(at(Stage::Cwd))?;
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)).map_err(at(Stage::Process))?;
        // After the change of user, which resets it. A shim that is killed cannot kill; then this does, for the main process.
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)).map_err(at(Stage::Process))?;
        if libc::getppid() != child.parent {
            return Err((Stage::Process, libc::ESRCH));
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());

        let mut denied = false;
        let mut last = libc::ENOENT;
        for program in plan.programs {
            libc::execve(program.as_ptr(), child.argv.as_ptr(), child.env.as_ptr());
            last = io::Error::last_os_error().raw_os_error().unwrap_or(0);
            match last {
                libc::EACCES => denied = true,
                libc::ENOENT | libc::ENOTDIR => {}
                _ => return Err((Stage::Exec, last)),
            }
        }
        Err((Stage::Exec, if denied { libc::EACCES } else { last }))
    }
}
