//! Reads what the tasks wrote. The order of the records is the order of events, see [`crate::workload::ledger`].

use super::CheckError;
use std::{collections::HashMap, fmt, path::Path};

/// A task instance by its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) dag_id: String,
    pub(super) run_id: String,
    pub(super) task_id: String,
    pub(super) map_index: i32,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.dag_id, self.run_id, self.task_id)?;
        match self.map_index {
            index if index < 0 => Ok(()),
            index => write!(f, "[{index}]"),
        }
    }
}

/// One start of a dispatch, and what is known of its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Live {
    /// Position in [`Ledger::names`].
    pub(super) instance: usize,
    pub(super) fence: i64,
    pub(super) try_number: i32,
    pub(super) pid: i32,
    /// Position of the record of its start.
    pub(super) start: usize,
    /// Position of its last record: it was alive until then at least.
    pub(super) last: usize,
    /// Exit code, if it came to its end. Without one it was killed.
    pub(super) code: Option<i32>,
    /// Processes of earlier attempts that were alive when it started.
    pub(super) met: Vec<i32>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) names: Vec<Name>,
    /// In the order of their starts.
    pub(super) lives: Vec<Live>,
    /// Of each instance, positions in `lives`.
    pub(super) by_instance: Vec<Vec<usize>>,
    /// The latest time up to each record, hundredths of a second of the boot clock. (A time is read a little before its record
    /// is written, so the times themselves rise only nearly.)
    pub(super) times: Vec<u64>,
    /// Records that were cut off by a kill, or belong to a start that was.
    pub(super) torn: usize,
}

impl Ledger {
    pub(super) fn read(path: &Path) -> Result<Self, CheckError> {
        let text = std::fs::read(path).map_err(|error| CheckError::Read {
            path: path.to_owned(),
            error,
        })?;
        Ok(Self::parse(&String::from_utf8_lossy(&text)))
    }

    pub(super) fn parse(text: &str) -> Self {
        let mut ledger = Self::default();
        let mut known: HashMap<&str, usize> = HashMap::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let read = Record::parse(line).and_then(|record| {
                let instance = match known.get(record.name) {
                    Some(instance) => *instance,
                    None => {
                        ledger.names.push(name(record.name)?);
                        ledger.by_instance.push(Vec::new());
                        known.insert(record.name, ledger.names.len() - 1);
                        ledger.names.len() - 1
                    }
                };
                ledger.add(instance, &record)
            });
            if read.is_none() {
                ledger.torn += 1;
            }
        }
        ledger
    }

    fn add(&mut self, instance: usize, record: &Record<'_>) -> Option<()> {
        let at = self.times.len();
        let time = self
            .times
            .last()
            .map_or(record.time, |last| record.time.max(*last));
        if record.kind == "S" {
            self.times.push(time);
            self.by_instance[instance].push(self.lives.len());
            self.lives.push(Live {
                instance,
                fence: record.fence,
                try_number: record.try_number,
                pid: record.pid,
                start: at,
                last: at,
                code: None,
                met: Vec::new(),
            });
            return Some(());
        }
        // Of two starts with one fence, the one with this process; a daemon (process 0) belongs to the last.
        let lives = self.by_instance[instance].iter().rev().copied();
        let same_fence = |life: &usize| self.lives[*life].fence == record.fence;
        let life = lives
            .clone()
            .filter(same_fence)
            .find(|life| self.lives[*life].pid == record.pid)
            .or_else(|| lives.clone().find(same_fence))?;
        self.times.push(time);
        let life = &mut self.lives[life];
        life.last = at;
        match record.kind {
            "E" => life.code = Some(record.extra.parse().ok()?),
            "X" => life.met.push(record.extra.parse().ok()?),
            _ => {}
        }
        Some(())
    }

    pub(super) fn name_of(&self, life: &Live) -> &Name {
        &self.names[life.instance]
    }

    /// Position of the first record whose time is not before this one (hundredths of a second of the boot clock).
    pub(super) fn first_not_before(&self, time: u64) -> usize {
        self.times.partition_point(|at| *at < time)
    }
}

struct Record<'a> {
    kind: &'a str,
    /// `dag run task map`
    name: &'a str,
    fence: i64,
    try_number: i32,
    pid: i32,
    time: u64,
    extra: &'a str,
}

impl<'a> Record<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (kind, rest) = line.strip_suffix(" .")?.split_once(' ')?;
        let end = rest.match_indices(' ').nth(3)?.0;
        let (name, rest) = (&rest[..end], &rest[end + 1..]);
        let mut words = rest.split(' ');
        let mut word = || words.next();
        let record = Self {
            kind,
            name,
            fence: word()?.parse().ok()?,
            try_number: word()?.parse().ok()?,
            pid: word()?.parse().ok()?,
            time: hundredths(word()?)?,
            extra: word()?,
        };
        let whole = matches!(kind, "S" | "A" | "X" | "E") && words.next().is_none();
        whole.then_some(record)
    }
}

/// `12345.67`
fn hundredths(text: &str) -> Option<u64> {
    let (seconds, part) = text.split_once('.')?;
    let (seconds, part): (u64, u64) = (seconds.parse().ok()?, part.parse().ok()?);
    Some(seconds * 100 + part)
}

fn name(text: &str) -> Option<Name> {
    let mut words = text.split(' ');
    Some(Name {
        dag_id: words.next()?.to_owned(),
        run_id: words.next()?.to_owned(),
        task_id: words.next()?.to_owned(),
        map_index: words.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_become_lives() {
        let ledger = Ledger::parse(
            "\nS d r t -1 1 1 100 5.00 - .\nS d r t 3 2 1 101 5.01 - .\nA d r t -1 1 1 0 5.05 - .\
             \nE d r t -1 1 1 100 5.06 99 .\nX d r t 3 2 1 101 5.07 42 .",
        );
        assert_eq!(ledger.torn, 0);
        assert_eq!(ledger.names[1].to_string(), "d/r t[3]");
        let [first, second] = &ledger.lives[..] else {
            panic!("{ledger:?}");
        };
        assert_eq!((first.start, first.last, first.code), (0, 3, Some(99)));
        assert_eq!((second.start, second.last, second.code), (1, 4, None));
        assert_eq!(second.met, [42]);
        assert_eq!(ledger.first_not_before(505), 2);
        assert_eq!(ledger.first_not_before(900), 5);
    }

    #[test]
    fn a_torn_record_spoils_no_other() {
        let ledger = Ledger::parse("\nS d r t -1 1 1 10\nS d r u -1 1 1 101 5.01 - .\nE d r u -1");
        assert_eq!((ledger.lives.len(), ledger.torn), (1, 2));
        assert_eq!(ledger.lives[0].code, None);
    }
}
