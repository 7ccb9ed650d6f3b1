//! The few system calls that std does not offer, and the thread that starts children.
#![allow(
    unsafe_code,
    reason = "prctl before exec and kill(2) have no safe form in std"
)]

use std::{
    fs, io,
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::{Mutex, OnceLock, PoisonError, mpsc},
    thread,
};

/// A signal number of `kill(2)`.
pub type Signal = libc::c_int;

/// Sends `signal` to one process. A process that is already gone is not an error.
pub fn send_signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: kill takes two integers and touches no memory of ours.
    if unsafe { libc::kill(pid, signal) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        e if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        e => Err(e),
    }
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Process ids of all descendants of `root`, parents before children, without `root` itself.
pub fn descendants(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent_of(pid)?)))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|p| p.1 == parent).map(|p| p.0));
        next += 1;
    }
    found.remove(0);
    found
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself hold spaces and parentheses.
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

/// Kills `root` and all its descendants with SIGKILL; gives the ids of the descendants.
pub fn kill_tree(root: u32) -> io::Result<Vec<u32>> {
    // Stopped first: it starts no child while we look, and it still is the parent of those it has.
    send_signal(root, libc::SIGSTOP)?;
    let descendants = descendants(root);
    send_signal(root, libc::SIGKILL)?;
    for &pid in &descendants {
        send_signal(pid, libc::SIGKILL)?;
    }
    Ok(descendants)
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(
        |stat| !matches!(stat.rsplit_once(") "), Some((_, rest)) if rest.starts_with(['Z', 'X'])),
    )
}

struct Job {
    command: Command,
    reply: mpsc::Sender<io::Result<Child>>,
}

/// Starts `command` in a process group of its own, to get `death_signal` when this process dies, however it dies.
///
/// Linux sends the parent-death signal when the *thread* that forked ends, and test threads end with their test;
/// so one thread that lives as long as the process forks every child.
pub(crate) fn spawn(mut command: Command, death_signal: Signal) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let parent = std::process::id();
    command.process_group(0);
    // SAFETY: the closure calls only async-signal-safe functions and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            // After std has changed the user id, which would clear the setting.
            if libc::prctl(libc::PR_SET_PDEATHSIG, death_signal) != 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid().cast_unsigned() != parent {
                libc::_exit(1); // The parent died before the setting was made.
            }
            Ok(())
        });
    }
    let (reply, answer) = mpsc::channel();
    SPAWNER
        .get_or_init(|| {
            let (sender, jobs) = mpsc::channel::<Job>();
            thread::spawn(move || {
                for mut job in jobs {
                    // A caller that no longer listens drops the child's handle; the child lives on until we die.
                    let _ = job.reply.send(job.command.spawn());
                }
            });
            Mutex::new(sender)
        })
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send(Job { command, reply })
        .map_err(io::Error::other)?;
    answer.recv().map_err(io::Error::other)?
}
