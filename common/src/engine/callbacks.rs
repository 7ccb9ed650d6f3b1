//! Callbacks: made where the event is decided, written in the same transaction, delivered later.
//!
//! What a user does himself (a cancel, a clear, a mark) calls nobody.

use super::{WorkingSet, start::run_template_context};
use crate::{
    callback::{About, CallOn, NewCall},
    deadline::Due,
    ids::{RunPk, TiPk, UNMAPPED},
    row::{RunRow, TiRow},
    spec::{Callback, TaskSpec},
    state::RunState,
    template::{NoXComs, Renderer, TemplateContext},
};
use chrono::SecondsFormat;
use serde_json::{Map, Value, json};
use std::sync::Arc;

impl WorkingSet {
    /// Something happened to an instance.
    pub(super) fn call_back(&mut self, ti: TiPk, event: CallOn) {
        if !self.marked.contains(&ti) {
            let calls = self.calls_of(ti, event, &Map::new()).unwrap_or_default();
            self.calls.extend(calls);
        }
    }

    /// An approval begins to wait for an answer to `prompt`.
    pub fn call_for_answer(&mut self, ti: TiPk, prompt: &str) {
        let more = Map::from_iter([("prompt".to_owned(), Value::from(prompt))]);
        let calls = self.calls_of(ti, CallOn::OnWaiting, &more);
        self.calls.extend(calls.unwrap_or_default());
    }

    fn calls_of(&self, ti: TiPk, event: CallOn, more: &Map<String, Value>) -> Option<Vec<NewCall>> {
        let row = self.ti(ti)?;
        let task = self.plan_of(row.run)?.task(row.task_idx)?;
        let callbacks = task.callbacks(event);
        if callbacks.is_empty() || self.run(row.run)?.cancelled {
            return None;
        }
        self.calls_about(row.run, Some((task, row)), event, callbacks, more)
    }

    /// A run, or a task of it, has missed a deadline.
    pub fn call_for_deadline(&mut self, run: RunPk, task_id: Option<&str>, due: &Due<'_>) {
        let at = due.at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let reference = due.deadline.reference;
        let more = json!({
            "task_id": task_id,
            "deadline": at,
            "reference": reference,
        });
        let more = more.as_object().cloned().unwrap_or_default();
        let calls = self.calls_about(run, None, CallOn::Deadline, &due.deadline.call, &more);
        let mut calls = calls.unwrap_or_default();
        for call in &mut calls {
            call.task_id = task_id.map(str::to_owned);
        }
        self.calls.extend(calls);
    }

    /// A run has ended.
    pub(super) fn call_back_of_run(&mut self, run: RunPk) {
        let calls = self.calls_of_run(run).unwrap_or_default();
        self.calls.extend(calls);
    }

    fn calls_of_run(&self, run: RunPk) -> Option<Vec<NewCall>> {
        let row = self.run(run)?;
        let event = match row.state {
            RunState::Success => CallOn::OnSuccess,
            RunState::Failed if !row.cancelled => CallOn::OnFailure,
            _ => return None,
        };
        let callbacks = self.plan_of(run)?.spec.callbacks(event);
        if callbacks.is_empty() {
            return None;
        }
        self.calls_about(run, None, event, callbacks, &Map::new())
    }

    fn calls_about(
        &self,
        run: RunPk,
        ti: Option<(&TaskSpec, &TiRow)>,
        event: CallOn,
        callbacks: &[Callback],
        more: &Map<String, Value>,
    ) -> Option<Vec<NewCall>> {
        let (row, plan) = self.run(run).zip(self.plan_of(run))?;
        let context = match ti {
            Some((task, ti)) => TemplateContext {
                map_index: ti.map_index,
                try_number: ti.try_number,
                max_tries: ti.max_tries,
                ..run_template_context(plan, row, task, ti.map_values.as_ref())
            },
            None => context_of_run(row),
        };
        let about = About {
            event,
            run: row,
            ti,
            at: self.now,
        };
        Some(about.calls(callbacks, &Renderer::new(context), more))
    }
}

fn context_of_run(run: &RunRow) -> TemplateContext {
    TemplateContext {
        dag_id: run.dag_id.clone(),
        task_id: String::new(),
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
        map: Map::new(),
        try_number: 0,
        max_tries: 0,
        map_index: UNMAPPED,
        mapped_group: None,
        xcoms: Arc::new(NoXComs),
        vars: Map::new(),
        conns: Map::new(),
    }
}
