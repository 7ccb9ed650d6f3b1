//! What the twin remembers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use uuid::Uuid;

use super::claims::Record;
use super::leases::Lease;
use super::tails::Tail;
use crate::{TiFence, XComKey};

/// How many calls pass between two sweeps of what has expired.
const SWEEP_EVERY: u32 = 1024;

/// The whole state. Times are Unix milliseconds; what has expired is absent to every reader, swept or not.
#[derive(Debug)]
pub(super) struct State {
    pub(super) epoch: i64,
    pub(super) away: bool,
    pub(super) leases: BTreeMap<String, Lease>,
    pub(super) held: HashMap<String, BTreeSet<TiFence>>,
    pub(super) cancelled: HashMap<String, BTreeSet<TiFence>>,
    pub(super) records: HashMap<TiFence, Record>,
    pub(super) xcoms: BTreeMap<XComKey, (Bytes, i64)>,
    pub(super) logs: HashMap<Uuid, Tail>,
    calls: u32,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            epoch: rand::random_range(1..=i64::MAX),
            away: false,
            leases: BTreeMap::new(),
            held: HashMap::new(),
            cancelled: HashMap::new(),
            records: HashMap::new(),
            xcoms: BTreeMap::new(),
            logs: HashMap::new(),
            calls: 0,
        }
    }

    pub(super) fn change_epoch(&mut self) {
        self.epoch = rand::random_range(1..=i64::MAX);
    }

    pub(super) fn collect_garbage(&mut self, now: i64) {
        self.calls += 1;
        if self.calls < SWEEP_EVERY {
            return;
        }
        self.calls = 0;
        self.leases.retain(|_, lease| lease.expires > now);
        self.records.retain(|_, record| record.expires > now);
        self.xcoms.retain(|_, (_, expires)| *expires > now);
        self.logs.retain(|_, tail| tail.expires > now);
        let records = &self.records;
        for sets in [&mut self.held, &mut self.cancelled] {
            sets.retain(|_, set| {
                set.retain(|dispatch| records.contains_key(dispatch));
                !set.is_empty()
            });
        }
    }

    pub(super) fn delete_xcoms(&mut self, run: i64) {
        let of = |run| XComKey {
            run,
            ti: i64::MIN,
            fence: i64::MIN,
            key: String::new(),
        };
        let mut later = self.xcoms.split_off(&of(run));
        if let Some(next) = run.checked_add(1) {
            self.xcoms.append(&mut later.split_off(&of(next)));
        }
    }
}
