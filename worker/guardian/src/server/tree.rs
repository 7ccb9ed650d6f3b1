//! Who descends from whom, read from /proc.
//!
//! Nothing here is a snapshot: processes fork and die meanwhile. It is used to find whom to kill and to measure; that a
//! tree is empty is only ever believed to the kernel (`wait` without children).

use crate::sys::{self, Pid};
use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

/// All living or zombie descendants of `root`, without those (and theirs) that `skip` names.
pub(super) fn descendants(root: Pid, skip: impl Fn(Pid) -> bool) -> Vec<Pid> {
    if fs::exists(format!("/proc/{root}/task/{root}/children")).unwrap_or(false) {
        walk(root, skip, children)
    } else {
        // Kernels without CONFIG_PROC_CHILDREN.
        scan(root, skip)
    }
}

/// As [`descendants`], from the parent of every process on the host: dearer, and misses no process that exists throughout.
pub(super) fn scan(root: Pid, skip: impl Fn(Pid) -> bool) -> Vec<Pid> {
    let mut by_parent: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if let Some(parent) = parent_of(pid) {
            by_parent.entry(parent).or_default().push(pid);
        }
    }
    walk(root, skip, |pid| by_parent.remove(&pid).unwrap_or_default())
}

fn walk(
    root: Pid,
    skip: impl Fn(Pid) -> bool,
    mut children: impl FnMut(Pid) -> Vec<Pid>,
) -> Vec<Pid> {
    let mut found: Vec<Pid> = Vec::new();
    let mut next = children(root);
    while let Some(pid) = next.pop() {
        // The bound keeps a process that is reparented during the walk from being followed for ever.
        if !skip(pid) && !found.contains(&pid) {
            found.push(pid);
            next.extend(children(pid));
        }
    }
    found
}

/// The children of all threads of a process; empty if it is gone.
fn children(pid: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_ascii_whitespace()
                .flat_map(str::parse)
                .collect::<Vec<_>>()
        })
        .collect()
}

fn parent_of(pid: Pid) -> Option<Pid> {
    // "pid (name) state ppid …", where the name may contain anything.
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    str::from_utf8(&stat[after_name..])
        .ok()?
        .split_ascii_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// Kills a tree again and again until its owner finds that it is empty.
pub(super) struct Sweeper {
    next: Instant,
}

impl Sweeper {
    pub(super) fn new() -> Self {
        Sweeper {
            next: Instant::now(),
        }
    }

    /// Kills all descendants of this process that `skip` does not name, unless the last time was just now; returns how
    /// long to wait for the next time if nothing else happens. A killed process cannot fork any more, so each pass leaves
    /// at most what was forked during it.
    pub(super) fn pass(&mut self, skip: impl Fn(Pid) -> bool) -> Duration {
        let start = Instant::now();
        if start >= self.next {
            let victims = descendants(sys::self_pid(), skip);
            for pid in &victims {
                sys::kill(*pid, libc::SIGKILL);
            }
            // Victims need a moment to die, large trees and busy hosts a longer one.
            let end = Instant::now();
            self.next = end
                + (4 * (end - start)).clamp(Duration::from_millis(1), Duration::from_millis(50));
        }
        self.next.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    #[test]
    fn both_ways_find_a_grandchild() {
        let script = "sh -c 'sleep 1000 & echo $!; wait' & wait";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("a pid");
        let grandchild: Pid = line.trim().parse().expect("a pid");
        let root = child.id() as Pid;
        let mut walked = descendants(root, |_| false);
        let mut scanned = scan(root, |_| false);
        let skipped = descendants(sys::self_pid(), |pid| pid == root);
        for pid in walked.iter().chain([&root]) {
            sys::kill(*pid, libc::SIGKILL);
        }
        child.wait().expect("killed");
        walked.sort_unstable();
        scanned.sort_unstable();
        assert_eq!(walked.len(), 2, "{walked:?}");
        assert_eq!(walked, scanned);
        assert!(walked.contains(&grandchild) && !skipped.contains(&grandchild));
    }
}
