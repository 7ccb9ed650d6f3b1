//! Keys of the limits that runs share, and of those that task instances share.

use super::{Plan, WorkingSet, start::run_template_context};
use crate::{
    fault,
    ids::{RunPk, TiPk},
    limit::LimitKey,
    row::{RunRow, SharedKey},
    spec::{Concurrency, DagSpec, TaskSpec},
    state::TaskState,
    template::{NoXComs, Renderer, TemplateContext, is_template},
    transition,
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Characters of a key that is kept as it is; of a longer one its SHA-256 is the key.
const MAX_KEY: usize = 200;

/// The key of a run's shared limit, rendered: empty if it shares none. One that cannot be rendered stands as it is written, so
/// that such runs wait for each other visibly.
pub fn run_key(concurrency: &Concurrency, spec: &DagSpec, run: &RunRow) -> String {
    rendered(&concurrency.key, || context(spec, run))
}

/// The limit that an instance shares, by the same rules. It knows the run, `params` and `map`.
pub(super) fn task_key(
    plan: &Plan,
    run: &RunRow,
    task: &TaskSpec,
    map: Option<(i32, &Map<String, Value>)>,
) -> Option<SharedKey> {
    let concurrency = task.concurrency.as_ref()?;
    let key = rendered(&concurrency.key, || {
        let mut context = run_template_context(plan, run, task, map.map(|(_, map)| map));
        if let Some((map_index, _)) = map {
            context.map_index = map_index;
        }
        context
    });
    (!key.is_empty()).then(|| SharedKey {
        key,
        limit: i32::try_from(concurrency.limit).unwrap_or(i32::MAX),
        strategy: concurrency.strategy,
    })
}

fn rendered(text: &str, context: impl FnOnce() -> TemplateContext) -> String {
    let key = if is_template(text) {
        Renderer::new(context())
            .render(text)
            .map_or_else(|_| text.to_owned(), |key| key.trim().to_owned())
    } else {
        text.to_owned()
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
        asset_events: Map::new(),
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
    /// Spends the limits on runs that a run counts in while it runs, or gives them back.
    pub(super) fn spend_run(&mut self, run: &RunRow, n: i64) {
        if fault::misbehaves("forget-run-limits") {
            return;
        }
        self.spend(run.limit(), n);
        if let Some(key) = shared_limit(run) {
            self.spend(key, n);
        }
    }

    /// Notes the key of a run that has none yet; answers it if it is new. Runs of DAGs without `concurrency` have none.
    pub fn note_run_key(&mut self, run: RunPk) -> Option<String> {
        let row = self.run(run).filter(|row| row.concurrency_key.is_none())?;
        let plan = self.plan_of(run)?;
        let concurrency = plan.spec.concurrency.as_ref()?;
        let key = run_key(concurrency, &plan.spec, row);
        self.run_mut(run)?.concurrency_key = Some(key.clone());
        Some(key)
    }

    /// Renders the key of a mapped instance anew, whose map values may have changed. It holds no slots.
    pub(super) fn rekey(&mut self, ti: TiPk) -> Option<()> {
        let row = self.ti(ti).filter(|row| !row.is_node())?;
        let plan = self.plan_of(row.run)?.clone();
        let task = plan.task(row.task_idx)?;
        let map = row.map_values.clone().unwrap_or_default();
        let shared = task_key(&plan, self.run(row.run)?, task, Some((row.map_index, &map)));
        if row.shared != shared {
            self.ti_mut(ti)?.shared = shared;
            self.remade.insert(ti);
        }
        Some(())
    }

    /// Skips an instance that is ready and found its shared limit full (`cancel_new`). Settle afterwards.
    pub fn skip_for_key(&mut self, ti: TiPk, reason: String) -> Option<()> {
        let row = self
            .ti(ti)
            .filter(|row| row.state == TaskState::Scheduled)?;
        let (run, now) = (row.run, self.now);
        self.change(ti, |row| transition::cancel(row, reason, now))?;
        self.run_mut(run)?.ready_tasks -= 1;
        self.instance_ended(ti)
    }

    /// Stops the dispatch of an instance that holds a shared limit, so that another can have its place (`cancel_running`): it
    /// ends as failed once that is over, or as skipped if no worker had started it.
    pub fn stop_for_key(&mut self, ti: TiPk, reason: String) -> Option<()> {
        let before = self.ti(ti)?.clone();
        let then = match before.state {
            TaskState::Running => TaskState::Failed,
            TaskState::Queued => TaskState::Skipped,
            _ => return None,
        };
        self.change(ti, |row| transition::halt(row, Some(then), reason))?;
        self.left_queue(&before);
        self.to_cancel.push(ti);
        Some(())
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
