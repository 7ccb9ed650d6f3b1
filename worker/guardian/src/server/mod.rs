//! The guardian process.

mod guardian;
mod launch;
mod memory;
mod oom;
mod orders;
mod shim;
mod shims;
mod tree;

use crate::sys;
use guardian::Guardian;
use std::fs;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Sent by the kernel to each shim when the guardian dies: an offset from the first real-time signal.
const GUARDIAN_DIED: libc::c_int = 0;

/// What the shims use too, each through the copies of the descriptors that its fork gave it.
struct Common {
    guardian: sys::Pid,
    /// SIGCHLD and the guardian's death; delivers the signals of the process that reads it.
    signals: OwnedFd,
    /// Readable from the lease deadline on. Only the guardian sets it; nobody reads it.
    deadline: OwnedFd,
    /// Where all shims write their reports, each by one atomic write.
    reports: OwnedFd,
    null: OwnedFd,
    /// What the worker wants kept open until the last of us is gone; `/dev/null` if nothing.
    hold: OwnedFd,
}

impl Common {
    fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        [
            &self.signals,
            &self.deadline,
            &self.reports,
            &self.null,
            &self.hold,
        ]
        .into_iter()
        .map(AsRawFd::as_raw_fd)
    }
}

/// Runs the guardian in this process and never returns: the end is exit code 0 when the worker is gone (or asked for it)
/// and everything is dead, 70 with a message on stderr when it cannot start or go on (then the shims kill everything).
///
/// Call it before any thread is started. Its stdin must be the socket that [`GuardianClient`](crate::GuardianClient) made.
pub fn run_guardian() -> ! {
    // A panic must end this process too, and not unwind into whatever the caller does next.
    let ended =
        std::panic::catch_unwind(|| set_up().and_then(|(guardian, reports)| guardian.run(reports)));
    match ended {
        Ok(Ok(())) => sys::exit_now(0),
        Ok(Err(error)) => eprintln!("gristmill guardian: {error}"),
        Err(_) => eprintln!("gristmill guardian: a bug ended it, see the panic above"),
    }
    sys::exit_now(70)
}

fn set_up() -> io::Result<(Guardian, PipeReader)> {
    sys::set_name(c"gm-guardian");
    only_thread()?;
    sys::start_session();
    sys::block_all_and_reset()?;
    sys::set_child_subreaper().map_err(|error| explain("PR_SET_CHILD_SUBREAPER", error))?;
    // Should memory run out, rather a task than what watches the tasks. Only root may ask for that; others stay at 0,
    // and tasks are raised above it in any case.
    let _ = fs::write("/proc/self/oom_score_adj", "-500");

    let null = {
        // Moved up in case the worker had a standard descriptor closed, whose number this then got.
        let opened = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        sys::to_high_fd(opened.as_fd())?
    };
    let worker = sys::take_stdio(0, null.as_fd())
        .map_err(|error| explain("the worker's socket on stdin", error))?;
    let hold = sys::take_stdio(1, null.as_fd())?;
    let pidfd = sys::pidfd(sys::parent_pid())
        .map_err(|error| explain("pidfd_open (Linux 5.3 or later)", error))?;
    let keep = [
        null.as_raw_fd(),
        worker.as_raw_fd(),
        hold.as_raw_fd(),
        pidfd.as_raw_fd(),
    ];
    sys::close_all_except(&mut keep.to_vec())
        .map_err(|error| explain("close_range (Linux 5.9 or later)", error))?;

    let wanted = [libc::SIGCHLD, sys::rt_signal(GUARDIAN_DIED)];
    let (reader, writer) = io::pipe()?;
    sys::set_nonblocking(reader.as_fd())?;
    sys::set_nonblocking(writer.as_fd())?;
    let common = Common {
        guardian: sys::self_pid(),
        signals: sys::signal_fd(&wanted)?,
        deadline: sys::boottime_timer()?,
        reports: writer.into(),
        null,
        hold,
    };
    let socket = UnixStream::from(worker);
    socket.set_nonblocking(true)?;
    Ok((Guardian::new(common, socket, pidfd), reader))
}

fn explain(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Forking with threads around would leave their locks locked in the shims. It also shows that /proc is there.
fn only_thread() -> io::Result<()> {
    let threads = fs::read_dir("/proc/self/task")
        .map_err(|error| explain("/proc is needed", error))?
        .count();
    match threads {
        1 => Ok(()),
        _ => Err(io::Error::other(format!(
            "it must start before any other thread, and there are {threads}"
        ))),
    }
}
