//! The memory limit of a task: its tree is measured about ten times a second.

use super::tree;
use crate::event::MemoryHit;
use crate::sys::{self, Pid};
use std::fs;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(100);
/// When more than three quarters are used.
const CLOSE_INTERVAL: Duration = Duration::from_millis(25);
/// Measuring may take one part in this many of a core, so that large trees are measured less often.
const SHARE: u32 = 20;

/// Measures the tree of this shim against a limit.
pub(super) struct MemoryWatch {
    limit: u64,
    next: Instant,
}

impl MemoryWatch {
    pub(super) fn new(limit: u64) -> Self {
        MemoryWatch {
            limit,
            next: Instant::now() + INTERVAL,
        }
    }

    /// Measures if it is time to; says what was used if it is above the limit.
    pub(super) fn check(&mut self) -> Option<MemoryHit> {
        let start = Instant::now();
        if start < self.next {
            return None;
        }
        let pids = tree::descendants(sys::self_pid(), |_| false);
        let mut used: u64 = pids.iter().map(|pid| resident(*pid)).sum();
        if used > self.limit {
            // Pages that processes share since a fork were counted for each; now exactly, which costs more.
            used = pids
                .iter()
                .map(|pid| proportional(*pid).unwrap_or_else(|| resident(*pid)))
                .sum();
        }
        let interval = if used > self.limit / 4 * 3 {
            CLOSE_INTERVAL
        } else {
            INTERVAL
        };
        self.next = start + interval.max(start.elapsed() * SHARE);
        (used > self.limit).then_some(MemoryHit {
            used_bytes: used,
            limit_bytes: self.limit,
        })
    }

    pub(super) fn wait(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }
}

/// Resident bytes that are not the pages of files, which the kernel can take back at any time. 0 if the process is gone.
fn resident(pid: Pid) -> u64 {
    sum_kib(&format!("/proc/{pid}/status"), &["RssAnon:", "RssShmem:"]).unwrap_or(0)
}

/// The same with each page divided by the number of processes that share it; `None` where it may not be read.
fn proportional(pid: Pid) -> Option<u64> {
    sum_kib(
        &format!("/proc/{pid}/smaps_rollup"),
        &["Pss_Anon:", "Pss_Shmem:"],
    )
}

/// Sums lines like `RssAnon:   120 kB`; `None` if there is no such line.
fn sum_kib(path: &str, names: &[&str]) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let mut found = None;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next().is_some_and(|name| names.contains(&name)) {
            let kib: u64 = words.next()?.parse().ok()?;
            *found.get_or_insert(0) += kib * 1024;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_measures_see_what_a_process_touches() {
        let me = sys::self_pid();
        let (rss, pss) = (resident(me), proportional(me).expect("own smaps_rollup"));
        let touched = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(resident(me) >= rss + (32 << 20));
        assert!(proportional(me).expect("still there") >= pss + (32 << 20));
        drop(touched);
        assert_eq!(resident(Pid::MAX), 0);
        assert_eq!(proportional(Pid::MAX), None);
    }
}
