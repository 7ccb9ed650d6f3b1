//! Prepared DAG versions, kept in memory: bounded, and only a cache (versions never change).

use gristmill_common::{engine::Plan, ids::VersionPk};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Versions kept at most.
const CAPACITY: usize = 256;

#[derive(Debug, Default)]
struct Kept {
    plans: HashMap<VersionPk, (Arc<Plan>, u64)>,
    uses: u64,
}

/// Plans by version; the least recently used goes first.
#[derive(Debug, Default)]
pub struct PlanCache(Mutex<Kept>);

impl PlanCache {
    pub fn get(&self, version: VersionPk) -> Option<Arc<Plan>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let uses = kept.uses;
        kept.plans.get_mut(&version).map(|(plan, used)| {
            *used = uses;
            plan.clone()
        })
    }

    pub fn put(&self, plan: Arc<Plan>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.plans.len() >= CAPACITY {
            let oldest = kept
                .plans
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(version, _)| *version);
            if let Some(oldest) = oldest {
                kept.plans.remove(&oldest);
            }
        }
        kept.uses += 1;
        let uses = kept.uses;
        kept.plans.insert(plan.version, (plan, uses));
    }
}
