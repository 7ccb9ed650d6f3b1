//! CPU time and memory of process trees, from `/proc`.

use gristmill_testkit::sys;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
};

/// Named groups of processes, each a tree by its root.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    roots: Vec<Group>,
    /// Servers that run elsewhere or under an account whose processes we cannot see: their CPU time is not counted.
    pub unseen: Vec<&'static str>,
}

#[derive(Debug, Clone)]
struct Group {
    name: &'static str,
    root: u32,
    /// Whether it is a process of ours and not a server.
    ours: bool,
}

impl Groups {
    /// Adds one of our processes, with all that it starts.
    pub fn add(&mut self, name: &'static str, root: Option<u32>) {
        self.put(name, root, true);
    }

    /// Adds a server, if it was found.
    pub fn add_server(&mut self, name: &'static str, root: Option<u32>) {
        self.put(name, root, false);
    }

    fn put(&mut self, name: &'static str, root: Option<u32>, ours: bool) {
        match root {
            Some(root) => self.roots.push(Group { name, root, ours }),
            None => self.unseen.push(name),
        }
    }

    /// CPU seconds of each group since its start: of the processes that live, and of those that ended and were waited for.
    pub fn cpu_seconds(&self) -> BTreeMap<&'static str, f64> {
        let table = process_table();
        let children = children_of(&table);
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        let mut used = BTreeMap::new();
        for group in &self.roots {
            let mut ticks = 0;
            let mut open = vec![group.root];
            while let Some(pid) = open.pop() {
                ticks += table.get(&pid).map_or(0, |process| process.ticks);
                open.extend(children.get(&pid).into_iter().flatten());
            }
            *used.entry(group.name).or_default() += ticks as f64 / ticks_per_second;
        }
        used
    }

    /// The first process of a group, as it was when the deployment started.
    pub fn root(&self, name: &str) -> Option<u32> {
        self.roots
            .iter()
            .find(|group| group.name == name)
            .map(|group| group.root)
    }

    /// Names of the groups that are ours.
    pub fn ours(&self) -> BTreeSet<&'static str> {
        self.roots
            .iter()
            .filter(|group| group.ours)
            .map(|group| group.name)
            .collect()
    }

    /// Proportional set size of our own processes, in MiB: shared pages are divided among those that share them.
    pub fn our_pss_mib(&self) -> f64 {
        let kib: u64 = self
            .roots
            .iter()
            .filter(|group| group.ours)
            .flat_map(|group| std::iter::once(group.root).chain(sys::descendants(group.root)))
            .filter_map(pss_kib)
            .sum();
        kib as f64 / 1024.0
    }
}

pub(super) fn pss_kib(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[derive(Debug, PartialEq)]
struct Process {
    parent: u32,
    /// User and system time, its own and that of children it has waited for.
    ticks: u64,
}

fn process_table() -> HashMap<u32, Process> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parse(&stat)?))
        })
        .collect()
}

fn children_of(table: &HashMap<u32, Process>) -> HashMap<u32, Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (&pid, process) in table {
        children.entry(process.parent).or_default().push(pid);
    }
    children
}

/// Reads a line of `/proc/PID/stat` (see proc(5)).
fn parse(stat: &str) -> Option<Process> {
    // The name in parentheses may itself hold spaces and parentheses.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // Counted from the state: 1 ppid; 11 utime, 12 stime, 13 cutime, 14 cstime.
    let ticks = fields
        .get(11..15)?
        .iter()
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        ticks,
    })
}

#[cfg(test)]
mod tests {
    use super::{Groups, Process, parse};
    use std::process::Command;

    #[test]
    fn reads_a_line_of_stat() {
        let line = "42 (a) b) S 7 42 42 0 -1 4194304 1 2 3 4 100 20 3 4 20 0 1 0 99 1 2";
        let expected = Process {
            parent: 7,
            ticks: 127,
        };
        assert_eq!(parse(line), Some(expected));
    }

    #[test]
    fn counts_the_time_of_children_that_ended() {
        let mut groups = Groups::default();
        groups.add("us", Some(std::process::id()));
        let before = groups.cpu_seconds()["us"];
        let loops = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        assert!(
            Command::new("sh")
                .args(["-c", loops])
                .status()
                .unwrap()
                .success()
        );
        let after = groups.cpu_seconds()["us"];
        assert!(after - before >= 0.05, "{before} to {after}");
        assert!(groups.our_pss_mib() > 0.1);
    }
}
