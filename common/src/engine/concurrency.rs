//! Keys of the limits that runs share.

use super::WorkingSet;
use crate::{
    ids::RunPk,
    limit::LimitKey,
    row::RunRow,
    spec::{Concurrency, DagSpec},
    template::{NoXComs, Renderer, TemplateContext, is_template},
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Characters of a key that is kept as it is; of a longer one its SHA-256 is the key.
const MAX_KEY: usize = 200;

/// The key of a run's shared limit, rendered: empty if it shares none. One that cannot be rendered stands as it is written, so
/// that such runs wait for each other visibly.
pub fn run_key(concurrency: &Concurrency, spec: &DagSpec, run: &RunRow) -> String {
    let text = &concurrency.key;
    let key = if is_template(text) {
        Renderer::new(context(spec, run))
            .render(text)
            .map_or_else(|_| text.clone(), |key| key.trim().to_owned())
    } else {
        text.clone()
    };
    if key.len() <= MAX_KEY {
        return key;
    }
    let digest = Sha256::digest(key.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is known of a run before it starts.
fn context(spec: &DagSpec, run: &RunRow) -> TemplateContext {
    TemplateContext {
        dag_id: spec.dag_id.clone(),
        task_id: String::new(),
        run_id: run.run_id.clone(),
        run_type: run.run_type.as_str().to_owned(),
        logical_date: run.logical_date,
        data_interval_start: run.data_interval_start,
        data_interval_end: run.data_interval_end,
        run_after: run.run_after,
        queued_at: Some(run.queued_at),
        start_date: None,
        conf: Value::Object(run.conf.clone()),
        params: run.params.clone(),
        map: Map::new(),
        try_number: 0,
        max_tries: 0,
        map_index: crate::ids::UNMAPPED,
        mapped_group: None,
        xcoms: std::sync::Arc::new(NoXComs),
        vars: Map::new(),
        conns: Map::new(),
    }
}

/// The shared limit that a run counts in while it runs.
pub fn shared_limit(run: &RunRow) -> Option<LimitKey> {
    let key = run.concurrency_key.clone().filter(|key| !key.is_empty())?;
    Some(LimitKey::RunKey {
        dag_id: run.dag_id.clone(),
        key,
    })
}

impl WorkingSet {
    /// Notes the key of a run that has none yet; answers it if it is new. Runs of DAGs without `concurrency` have none.
    pub fn note_run_key(&mut self, run: RunPk) -> Option<String> {
        let row = self.run(run).filter(|row| row.concurrency_key.is_none())?;
        let plan = self.plan_of(run)?;
        let concurrency = plan.spec.concurrency.as_ref()?;
        let key = run_key(concurrency, &plan.spec, row);
        self.run_mut(run)?.concurrency_key = Some(key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::VersionPk, row::RunType, state::RunState};
    use serde_json::json;

    fn run() -> RunRow {
        RunRow {
            pk: RunPk(1),
            dag_id: "d".into(),
            run_id: "r".into(),
            version: VersionPk(1),
            state: RunState::Queued,
            run_type: RunType::Manual,
            triggered_by: String::new(),
            logical_date: None,
            data_interval_start: None,
            data_interval_end: None,
            run_after: chrono::DateTime::UNIX_EPOCH,
            queued_at: chrono::DateTime::UNIX_EPOCH,
            started_at: None,
            ended_at: None,
            conf: Map::new(),
            params: json!({ "customer": " kim ", "long": "x".repeat(300) })
                .as_object()
                .cloned()
                .unwrap(),
            note: None,
            cancelled: false,
            stop_reason: None,
            clean_up: None,
            max_active_tasks: 1,
            active_tasks: 0,
            ready_tasks: 0,
            unfinished_tasks: 0,
            failed_leaves: 0,
            backfill: None,
            concurrency_key: None,
        }
    }

    fn key(text: &str) -> String {
        let spec: DagSpec = serde_json::from_value(json!({ "dag_id": "d", "tasks": [] })).unwrap();
        let concurrency: Concurrency = serde_json::from_value(json!({ "key": text })).unwrap();
        run_key(&concurrency, &spec, &run())
    }

    #[test]
    fn keys_are_rendered_and_bounded() {
        assert_eq!(key("all"), "all");
        assert_eq!(key("{{ params.customer }}"), "kim");
        assert_eq!(key("{{ dag.dag_id }}-{{ run_id }}"), "d-r");
        assert_eq!(key("{{ '' }}"), "");
        assert_eq!(key("{{ params.long }}").len(), 64);
        assert_eq!(key("{{ 1 / 0 }}"), "{{ 1 / 0 }}", "as it is written");
    }
}
