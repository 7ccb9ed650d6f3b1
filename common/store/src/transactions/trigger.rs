//! Accepts runs, as many as asked for them at once.

use crate::{
    Backend, StoreError, StoreResult, Tx,
    records::{NewRun, Trigger},
    store::Triggered,
};
use gristmill_common::{fault, ids::RunPk};
use std::collections::{BTreeMap, BTreeSet};

/// What becomes of one of the runs asked for.
enum Fate {
    /// The run of an earlier request with the same key, or the refusal.
    Known(StoreResult<Triggered>),
    /// To be inserted; its place among those.
    Insert(usize),
}

/// One transaction for all of them. What is wrong with one is its own answer and keeps none of the others back.
pub(crate) async fn trigger<B: Backend>(
    store: &B,
    triggers: &[Trigger],
) -> StoreResult<Vec<StoreResult<Triggered>>> {
    let mut tx = store.begin().await?;
    let keyed: BTreeSet<&str> = triggers
        .iter()
        .filter(|trigger| trigger.run.idempotency.is_some())
        .map(|trigger| trigger.run.dag_id.as_str())
        .collect();
    // A DAG's lock makes requests with one key take turns; sorted, so that two transactions do not wait for each other.
    for dag_id in keyed {
        tx.lock_dag(dag_id).await?;
    }
    let mut runs: Vec<NewRun> = Vec::with_capacity(triggers.len());
    let mut fates = Vec::with_capacity(triggers.len());
    let mut keys: BTreeMap<(&str, &str), (usize, &str)> = BTreeMap::new();
    for Trigger { run, .. } in triggers {
        let fate = match &run.idempotency {
            None => None,
            Some((key, request)) => match keys.get(&(run.dag_id.as_str(), key.as_str())) {
                Some((first, earlier)) if earlier == request => Some(Fate::Insert(*first)),
                Some(_) => Some(Fate::Known(Err(used(key)))),
                None => match tx.run_by_idempotency_key(&run.dag_id, key).await? {
                    Some((pk, earlier)) => Some(Fate::Known(repeated(pk, &earlier, request, key))),
                    None => {
                        keys.insert((&run.dag_id, key), (runs.len(), request));
                        None
                    }
                },
            },
        };
        fates.push(fate.unwrap_or_else(|| {
            runs.push(run.clone());
            Fate::Insert(runs.len() - 1)
        }));
    }
    let at = tx.now();
    let inserted = tx.insert_runs(&runs).await?;
    let mut answered = BTreeSet::new();
    let mut audits = Vec::with_capacity(runs.len());
    let mut answers = Vec::with_capacity(triggers.len());
    for (trigger, fate) in triggers.iter().zip(fates) {
        answers.push(match fate {
            Fate::Known(answer) => answer,
            Fate::Insert(place) => match inserted.get(place).copied().flatten() {
                Some(run) => {
                    let first = answered.insert(place);
                    if first {
                        audits.extend(trigger.audit.clone());
                    }
                    Ok(if first {
                        Triggered::Accepted { run, at }
                    } else {
                        Triggered::Repeated { run }
                    })
                }
                None => Err(StoreError::Exists {
                    what: "run",
                    name: trigger.run.run_id.clone(),
                }),
            },
        });
    }
    if !audits.is_empty() {
        tx.put_audits(&audits).await?;
    }
    if !fault::misbehaves("lose-accepted-run") {
        tx.commit().await?;
    }
    Ok(answers)
}

fn repeated(run: RunPk, earlier: &str, request: &str, key: &str) -> StoreResult<Triggered> {
    if earlier == request {
        Ok(Triggered::Repeated { run })
    } else {
        Err(used(key))
    }
}

fn used(key: &str) -> StoreError {
    StoreError::Refused(format!(
        "the idempotency key {key:?} was used with another request; take a new key, or send the same request"
    ))
}
