//! Starts a run: makes its nodes and decides those without upstreams.

use super::{Plan, WorkingSet, concurrency::task_key, settle::evaluate};
use crate::{
    ids::{Fence, RunPk, TaskIdx, TiPk, UNMAPPED},
    row::{RunRow, TiRow},
    spec::{DEFAULT_POOL, POKE_QUEUE_SUFFIX, TaskSpec},
    state::{RunState, TaskState},
    template::{Renderer, TemplateContext, is_template},
};
use serde_json::{Map, Value};

/// The nodes of a run that starts: one row a task, in the order of the specification. None for a run that had started
/// before it was cleared: it has them.
pub fn start_run(ws: &mut WorkingSet, run: RunPk) -> Option<Vec<TiRow>> {
    let plan = ws.plan_of(run)?.clone();
    let now = ws.now;
    let row = ws
        .run_mut(run)
        .filter(|row| row.state == RunState::Queued)?;
    let is_anew = row.started_at.is_some();
    row.state = RunState::Running;
    row.started_at = Some(now);
    if !is_anew {
        row.unfinished_tasks = plan.spec.tasks.len() as i32;
    }
    let row = row.clone();
    ws.spend_run(&row, 1);
    if is_anew {
        return Some(Vec::new());
    }
    Some(
        (0..)
            .zip(&plan.spec.tasks)
            .map(|(idx, task)| new_node(&plan, &row, idx, task))
            .collect(),
    )
}

impl WorkingSet {
    /// Decides the nodes of a run that has just been started, once all of them are inserted or loaded, and added.
    pub fn evaluate_roots(&mut self, run: RunPk) {
        let Some(plan) = self.plan_of(run).cloned() else {
            return;
        };
        for idx in 0..plan.spec.tasks.len() as TaskIdx {
            if let Some(node) = self.node(run, idx) {
                evaluate(self, node);
            }
        }
    }
}

fn new_node(plan: &Plan, run: &RunRow, idx: TaskIdx, task: &TaskSpec) -> TiRow {
    TiRow {
        pk: TiPk(0),
        run: run.pk,
        task_idx: idx,
        task_id: task.task_id.clone(),
        map_index: UNMAPPED,
        state: TaskState::None,
        fence: Fence(0),
        try_number: 0,
        max_tries: task.retries as i32,
        user_failures: 0,
        infra_losses: 0,
        attempt: None,
        epoch: 0,
        queue: queue_of(plan, run, task, None),
        pool: task.pool.clone(),
        pool_slots: pool_slots_of(task),
        priority_weight: plan.graph.priority(idx),
        occupies: false,
        counters: plan.fresh_counters(idx),
        expanded_len: None,
        map_values: None,
        map_name: None,
        // Of a mapped task each instance has its own.
        shared: match plan.mapping(idx) {
            None => task_key(plan, run, task, None),
            Some(_) => None,
        },
        scheduled_at: None,
        queued_at: None,
        claim_by: None,
        started_at: None,
        ended_at: None,
        next_at: None,
        wait: None,
        then: None,
        worker: None,
        hostname: None,
        pid: None,
        exit_code: None,
        reason: None,
    }
}

/// The queue of an instance: a template over `params` and `map`. One that cannot be rendered stands as it is written, so
/// that the task waits visibly in a queue of that name.
pub(super) fn queue_of(
    plan: &Plan,
    run: &RunRow,
    task: &TaskSpec,
    map: Option<&Map<String, Value>>,
) -> String {
    let mut queue = task.queue.clone();
    if is_template(&queue) {
        let context = run_template_context(plan, run, task, map);
        if let Ok(text) = Renderer::new(context).render(&task.queue) {
            queue = text.trim().to_owned();
        }
    }
    if task.kind.pokes() && !queue.ends_with(POKE_QUEUE_SUFFIX) {
        queue.push_str(POKE_QUEUE_SUFFIX);
    }
    queue
}

/// The slots that a dispatch takes of its pool. Those of the default pool stand for processes: a poke takes none, so that
/// however many sensors look at the same time, tasks have their slots. A pool that a sensor names it fills like any task.
fn pool_slots_of(task: &TaskSpec) -> i32 {
    if task.kind.pokes() && task.pool == DEFAULT_POOL {
        return 0;
    }
    task.pool_slots as i32
}

/// What templates see that the scheduler itself renders.
pub(super) fn run_template_context(
    plan: &Plan,
    run: &RunRow,
    task: &TaskSpec,
    map: Option<&Map<String, Value>>,
) -> TemplateContext {
    TemplateContext {
        dag_id: plan.spec.dag_id.clone(),
        task_id: task.task_id.clone(),
        run_id: run.run_id.clone(),
        run_type: run.run_type.as_str().to_owned(),
        logical_date: run.logical_date,
        data_interval_start: run.data_interval_start,
        data_interval_end: run.data_interval_end,
        run_after: run.run_after,
        queued_at: Some(run.queued_at),
        start_date: run.started_at,
        conf: Value::Object(run.conf.clone()),
        params: run.params.clone(),
        asset_events: Map::new(),
        map: map.cloned().unwrap_or_default(),
        try_number: 0,
        max_tries: task.retries as i32,
        map_index: UNMAPPED,
        mapped_group: task.mapped_group.clone(),
        xcoms: std::sync::Arc::new(crate::template::NoXComs),
        vars: Map::new(),
        conns: Map::new(),
    }
}
