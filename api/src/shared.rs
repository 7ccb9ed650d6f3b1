//! What all requests share.

use crate::{ApiParts, auth::Throttle, gather::Gather, versions::Versions};
use gristmill_common::{ids::RunPk, row::RunRow};
use gristmill_store::{
    DagRow, ImportErrorRow, PlanCache, Store, StoreError, StoreResult, TokenRow, Trigger, Triggered,
};
use std::{
    collections::{BTreeSet, HashMap},
    ops::Deref,
    sync::Arc,
};

/// A DAG, and what was wrong with its file when it was read last.
pub(crate) type Dag = StoreResult<Option<(DagRow, Option<ImportErrorRow>)>>;

/// The parts, caches, and the calls that requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    parts: ApiParts,
    pub(crate) versions: Versions,
    pub(crate) throttle: Throttle,
    pub(crate) plans: Arc<PlanCache>,
    /// Tokens by their hash.
    pub(crate) tokens: Arc<Gather<String, StoreResult<Option<TokenRow>>>>,
    /// DAGs by their id, for triggers.
    pub(crate) dags: Arc<Gather<String, Dag>>,
    pub(crate) triggers: Arc<Gather<Trigger, StoreResult<Triggered>>>,
    pub(crate) runs: Arc<Gather<RunPk, StoreResult<Option<RunRow>>>>,
}

impl Shared {
    pub(crate) fn new(parts: ApiParts) -> Self {
        let store = &parts.store;
        Self {
            versions: Versions::default(),
            throttle: Throttle::default(),
            plans: Arc::default(),
            tokens: gather(store, |store, hashes| async move {
                let mut rows = HashMap::new();
                for hash in distinct(&hashes) {
                    rows.insert(hash.clone(), store.token(hash).await);
                }
                hashes.iter().map(|hash| rows[hash].clone()).collect()
            }),
            dags: gather(store, |store, ids| async move {
                let errors = store.import_errors().await;
                let mut dags = HashMap::new();
                for id in distinct(&ids) {
                    dags.insert(id.clone(), with_error(store.dag(id).await, &errors));
                }
                ids.iter().map(|id| dags[id].clone()).collect()
            }),
            triggers: gather(store, accept),
            runs: gather(store, |store, keys| async move {
                match store.runs_by_pk(&keys).await {
                    Err(error) => vec![Err(error); keys.len()],
                    Ok(rows) => {
                        let rows: HashMap<_, _> = rows.into_iter().map(|r| (r.pk, r)).collect();
                        keys.iter().map(|pk| Ok(rows.get(pk).cloned())).collect()
                    }
                }
            }),
            parts,
        }
    }
}

impl Deref for Shared {
    type Target = ApiParts;

    fn deref(&self) -> &ApiParts {
        &self.parts
    }
}

fn gather<I, O, F>(
    store: &Arc<dyn Store>,
    call: impl Fn(Arc<dyn Store>, Vec<I>) -> F + Send + Sync + 'static,
) -> Arc<Gather<I, O>>
where
    I: Send + 'static,
    O: Send + 'static,
    F: Future<Output = Vec<O>> + Send + 'static,
{
    let store = store.clone();
    Gather::new(move |items| call(store.clone(), items))
}

fn distinct(items: &[String]) -> BTreeSet<&String> {
    items.iter().collect()
}

fn with_error(dag: StoreResult<Option<DagRow>>, errors: &StoreResult<Vec<ImportErrorRow>>) -> Dag {
    let Some(dag) = dag? else { return Ok(None) };
    let errors = errors.as_ref().map_err(StoreError::clone)?;
    let error = errors.iter().find(|e| e.filename == dag.fileloc).cloned();
    Ok(Some((dag, error)))
}

/// All in one transaction; if the database refuses that, each by itself, so that a bad one fails alone.
async fn accept(store: Arc<dyn Store>, triggers: Vec<Trigger>) -> Vec<StoreResult<Triggered>> {
    let error = match store.trigger(&triggers).await {
        Ok(answers) => return answers,
        Err(error) => error,
    };
    if triggers.len() == 1 || error.is_transient() {
        return vec![Err(error); triggers.len()];
    }
    let mut answers = Vec::with_capacity(triggers.len());
    for trigger in &triggers {
        let answer = store.trigger(std::slice::from_ref(trigger)).await;
        answers.push(answer.and_then(|mut one| one.pop().unwrap_or_else(|| Err(error.clone()))));
    }
    answers
}
