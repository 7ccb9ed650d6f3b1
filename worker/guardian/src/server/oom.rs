//! Whether the kernel's out-of-memory killer was at work.

use std::fs;
use std::time::{Duration, Instant};

/// How many processes it has killed on this host since boot, cgroup limits included (`oom_kill`, Linux 4.13).
pub(super) fn kills() -> u64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let counts = text
        .lines()
        .filter_map(|line| line.strip_prefix("oom_kill "));
    counts
        .filter_map(|count| count.trim().parse::<u64>().ok())
        .sum()
}

/// The count as of about now: read at most once a second, since a busy worker starts many tasks in one.
pub(super) struct RecentKills {
    count: u64,
    read: Instant,
}

impl RecentKills {
    pub(super) fn new() -> Self {
        RecentKills {
            count: kills(),
            read: Instant::now(),
        }
    }

    pub(super) fn get(&mut self) -> u64 {
        if self.read.elapsed() > Duration::from_secs(1) {
            *self = Self::new();
        }
        self.count
    }
}
