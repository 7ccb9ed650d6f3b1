//! Memory of our own processes in a tree, without what tasks themselves use.

use super::processes::pss_kib;
use gristmill_testkit::sys;
use std::{fs, iter};

/// Proportional set size, in bytes, of `root` and those of its descendants that run the same program: a worker with its
/// guardian and what that forked to watch over tasks, but not the tasks' own programs.
pub fn own_pss(root: u32) -> u64 {
    let program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let ours = program(root);
    iter::once(root)
        .chain(sys::descendants(root))
        .filter(|&pid| ours.is_some() && program(pid) == ours)
        .filter_map(pss_kib)
        .sum::<u64>()
        * 1024
}

/// Whether `pid`, or a process that it started, was called with `text` among its arguments.
pub fn runs(root: u32, text: &str) -> bool {
    sys::descendants(root).into_iter().any(|pid| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
    })
}

#[cfg(test)]
mod tests {
    use super::{own_pss, runs};
    use std::process::Command;

    #[test]
    fn other_programs_are_not_counted() {
        let mut other = Command::new("sleep").arg("4711.5").spawn().unwrap();
        // The child runs our own program until it has executed another.
        while !runs(std::process::id(), "4711.5") {
            std::thread::yield_now();
        }
        let alone = own_pss(std::process::id());
        assert!(alone > 100 * 1024, "{alone}");
        assert!(!runs(std::process::id(), "4711.6"));
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(own_pss(u32::MAX), 0);
    }
}
