//! What tasks wrote down while they ran.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// One task instance: run id, task id, map index.
pub(crate) type Instance = (String, String, i32);

/// One dispatch of a task instance that really started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) fence: i64,
    pub(crate) try_number: i32,
    pub(crate) pid: u32,
    /// Nanoseconds since the Unix epoch.
    pub(crate) start: u64,
    /// `None`: it was killed.
    pub(crate) end: Option<u64>,
}

/// The file to which tasks append.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) file: PathBuf,
}

impl Ledger {
    /// All attempts, by instance, in the order of their starts.
    pub(crate) fn attempts(&self) -> BTreeMap<Instance, Vec<Attempt>> {
        let text = std::fs::read_to_string(&self.file).unwrap();
        let mut found: BTreeMap<Instance, Vec<Attempt>> = BTreeMap::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [kind, run, task, map, fence, try_number, pid, at, extra] = words[..] else {
                panic!("a strange line in the ledger: {line:?}");
            };
            let attempts = found
                .entry((run.to_owned(), task.to_owned(), map.parse().unwrap()))
                .or_default();
            let (fence, pid, at) = (
                fence.parse().unwrap(),
                pid.parse().unwrap(),
                at.parse().unwrap(),
            );
            match kind {
                "S" => {
                    assert!(
                        attempts.iter().all(|a| a.fence != fence),
                        "a dispatch was started twice: {line}\n{text}"
                    );
                    attempts.push(Attempt {
                        fence,
                        try_number: try_number.parse().unwrap(),
                        pid,
                        start: at,
                        end: None,
                    });
                }
                "E" => {
                    let attempt = attempts
                        .iter_mut()
                        .find(|a| a.fence == fence && a.end.is_none());
                    attempt
                        .unwrap_or_else(|| panic!("an end without its start: {line}\n{text}"))
                        .end = Some(at);
                }
                "X" => panic!(
                    "{line}: process {extra} of an earlier attempt was alive when this one started\n{text}"
                ),
                _ => panic!("a strange line in the ledger: {line:?}"),
            }
        }
        found
    }

    /// Attempts of one task, over all of its instances.
    pub(crate) fn of_task(&self, task: &str) -> Vec<Attempt> {
        let all = self.attempts().into_iter();
        all.filter(|((_, of, _), _)| of == task)
            .flat_map(|(_, attempts)| attempts)
            .collect()
    }

    /// No two attempts of one task instance overlap in time, and fences and try numbers rise.
    pub(crate) fn check(&self) {
        for (instance, attempts) in self.attempts() {
            for pair in attempts.windows(2) {
                let (before, after) = (&pair[0], &pair[1]);
                assert!(
                    before.fence < after.fence,
                    "{instance:?}: the fence does not rise: {attempts:?}"
                );
                assert!(
                    before.start < after.start,
                    "{instance:?}: started out of order: {attempts:?}"
                );
                assert!(
                    before.end.is_none_or(|end| end <= after.start),
                    "{instance:?}: two attempts at once: {attempts:?}"
                );
            }
            let tries: BTreeSet<i32> = attempts.iter().map(|a| a.try_number).collect();
            assert_eq!(
                tries.len(),
                attempts.len(),
                "{instance:?}: two attempts with one number: {attempts:?}"
            );
        }
    }

    /// The largest number of tasks that ran at one instant, of those that `chosen` picks by task id. Attempts that were
    /// killed are left out.
    pub(crate) fn most_at_once(&self, chosen: impl Fn(&str) -> bool) -> usize {
        let mut changes: Vec<(u64, i32)> = Vec::new();
        for ((_, task, _), attempts) in self.attempts() {
            if chosen(&task) {
                let ended = attempts.iter().filter_map(|a| Some((a.start, a.end?)));
                changes.extend(ended.flat_map(|(start, end)| [(start, 1), (end, -1)]));
            }
        }
        // At one nanosecond ends come first.
        changes.sort_unstable();
        let mut now = 0;
        let most = changes.iter().map(|(_, change)| {
            now += change;
            now
        });
        most.max().map_or(0, |most| usize::try_from(most).unwrap())
    }

    /// Whether a task has started (any instance of it).
    pub(crate) fn has_started(&self, task: &str) -> bool {
        !self.of_task(task).is_empty()
    }

    /// Lines of orderly ends so far.
    pub(crate) fn ends(&self) -> usize {
        let text = std::fs::read_to_string(&self.file).unwrap();
        text.lines().filter(|line| line.starts_with("E ")).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_testkit::DataDir;

    /// A ledger of these lines, each without the run, task and map index, the try number and the pid.
    fn ledger(lines: &[(&str, i64, u64)]) -> (Ledger, DataDir) {
        let dir = DataDir::new("ledger").unwrap();
        let file = dir.path().join("ledger");
        let lines: String = lines
            .iter()
            .map(|(kind, fence, at)| format!("{kind} r t -1 {fence} {fence} {fence} {at} -\n"))
            .collect();
        std::fs::write(&file, lines).unwrap();
        (Ledger { file }, dir)
    }

    #[test]
    fn attempts_one_after_the_other_are_fine() {
        let (ledger, _dir) = ledger(&[
            ("S", 1, 10),
            ("S", 2, 20),
            ("E", 2, 30),
            ("S", 3, 30),
            ("E", 3, 40),
        ]);
        ledger.check();
        assert_eq!(ledger.of_task("t").len(), 3);
        assert_eq!(ledger.ends(), 2);
    }

    #[test]
    #[should_panic(expected = "two attempts at once")]
    fn an_overlap_is_found() {
        let (ledger, _dir) = ledger(&[("S", 1, 10), ("S", 2, 20), ("E", 1, 25), ("E", 2, 30)]);
        ledger.check();
    }

    #[test]
    #[should_panic(expected = "was alive when this one started")]
    fn a_live_process_of_an_earlier_attempt_is_found() {
        let (ledger, _dir) = ledger(&[("S", 1, 10), ("S", 2, 20), ("X", 2, 21)]);
        ledger.check();
    }

    #[test]
    #[should_panic(expected = "started twice")]
    fn a_dispatch_that_ran_twice_is_found() {
        let (ledger, _dir) = ledger(&[("S", 1, 10), ("E", 1, 20), ("S", 1, 30)]);
        ledger.check();
    }

    #[test]
    fn the_most_at_once_are_counted() {
        let (ledger, _dir) = ledger(&[
            ("S", 1, 10),
            ("E", 1, 20),
            ("S", 2, 20),
            ("S", 3, 25),
            ("E", 2, 30),
            ("E", 3, 40),
        ]);
        assert_eq!(ledger.most_at_once(|task| task == "t"), 2);
        assert_eq!(ledger.most_at_once(|task| task == "other"), 0);
    }
}
