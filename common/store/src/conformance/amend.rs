//! Clear and mark: whole transactions on a real database.

use super::{
    bed::Bed,
    counts::{context, ending, started_run},
};
use crate::{Amend, Amended, Backend, Change, DispatchContext, Store, StoreError, TiFilter};
use gristmill_common::{
    engine::{Command, Selection},
    ids::RunPk,
    message::{Ending, Finished, XcomOut},
    row::{OutboxRow, RETURN_VALUE, RunRow, TiRow, XcomValue},
    state::{RunState, TaskState},
};
use serde_json::{Value, json};

fn request(run: RunPk, change: Change) -> Amend {
    Amend {
        run,
        change,
        by: "me".to_owned(),
        dry_run: false,
        refuse_running: false,
        note: None,
        list: 1000,
        audit: None,
    }
}

fn tasks(of: &[i32], downstream: bool) -> Selection {
    Selection {
        tasks: Some(of.iter().map(|idx| (*idx, None)).collect()),
        downstream,
        ..Selection::default()
    }
}

/// An ending with a list as its return value.
fn gives(row: &OutboxRow, list: usize) -> Command {
    let mut command = ending(row);
    if let Command::Finished(finished) = &mut command {
        finished.xcoms = vec![XcomOut {
            key: RETURN_VALUE.to_owned(),
            value: XcomValue::Inline((0..list).map(Value::from).collect()),
        }];
    }
    command
}

fn fails(row: &OutboxRow) -> Command {
    match ending(row) {
        Command::Finished(finished) => Command::Finished(Box::new(Finished {
            ending: Ending::Failed,
            ..*finished
        })),
        other => other,
    }
}

impl<B: Backend> Bed<B> {
    async fn amend_run(&self, amend: &Amend, context: &DispatchContext) -> Amended {
        Store::amend(&**self, amend, context).await.unwrap()
    }

    async fn row(&self, run: RunPk) -> RunRow {
        self.run_by_pk(run).await.unwrap().unwrap()
    }

    async fn instances(&self, run: RunPk) -> Vec<TiRow> {
        let filter = TiFilter {
            run: Some(run),
            limit: 1000,
            ..TiFilter::default()
        };
        self.task_instances(&filter).await.unwrap().rows
    }

    async fn states(&self, run: RunPk) -> Vec<&'static str> {
        let rows = self.instances(run).await;
        rows.iter().map(|row| row.state.as_str()).collect()
    }

    /// Dispatches and ends all that is ready, until nothing is.
    async fn end_all(&self, context: &DispatchContext, list: usize) {
        self.start_runs(context).await.unwrap();
        let mut out = self
            .unpublished(std::time::Duration::ZERO, 1000)
            .await
            .unwrap();
        loop {
            out.extend(self.dispatch_ready(context).await.unwrap().outbox);
            if out.is_empty() {
                return;
            }
            let endings: Vec<Command> = out.iter().map(|row| gives(row, list)).collect();
            context
                .published
                .add(out.iter().map(|row| row.dispatch).collect());
            out = self.apply(&endings, &[], context).await.unwrap().outbox;
        }
    }
}

/// A list, a task mapped over it, and one after it; all have ended.
async fn mapped_run<B: Backend>(bed: &Bed<B>, context: &DispatchContext) -> RunPk {
    let nodes = json!([
        { "task_id": "list", "noop": {} },
        { "task_id": "each", "noop": {}, "depends_on": ["list"], "expand": { "x": "{{ ti.xcom_pull('list') }}" } },
        { "task_id": "after", "noop": {}, "depends_on": ["each"] },
    ]);
    let run = started_run(bed, nodes, context).await.outbox[0].run;
    bed.end_all(context, 3).await;
    assert_eq!(bed.row(run).await.state, RunState::Success);
    run
}

pub async fn a_cleared_run_starts_again_and_expands_anew<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let context = context();
    let run = mapped_run(&bed, &context).await;
    let before = bed.instances(run).await;
    assert_eq!(bed.xcoms(run, None, None).await.unwrap().len(), 5);
    let clear = request(run, Change::Clear(Selection::default()));
    let dry = Amend {
        dry_run: true,
        ..clear.clone()
    };
    let would = bed.amend_run(&dry, &context).await;
    assert_eq!((would.total, would.rows), (5, before.clone()));
    assert_eq!(
        bed.instances(run).await,
        before,
        "a dry run changes nothing"
    );
    let cleared = bed.amend_run(&clear, &context).await;
    assert_eq!((cleared.total, cleared.rows.len()), (5, 5));
    assert_eq!(bed.row(run).await.state, RunState::Queued);
    assert_eq!(bed.states(run).await, ["none"; 5]);
    assert!(bed.xcoms(run, None, None).await.unwrap().is_empty());
    bed.end_all(&context, 2).await;
    assert_eq!(bed.row(run).await.state, RunState::Success);
    let after = bed.instances(run).await;
    let states: Vec<_> = after.iter().map(|row| row.state.as_str()).collect();
    assert_eq!(
        states,
        ["success", "success", "success", "success", "removed"]
    );
    assert!(after[..4].iter().all(|row| row.try_number == 2));
    assert_eq!(bed.attempts(after[0].pk).await.unwrap().len(), 2);
    // And longer: what was removed comes back, and more.
    bed.amend_run(&clear, &context).await;
    bed.end_all(&context, 4).await;
    assert_eq!(bed.states(run).await, ["success"; 6]);
    let filter = TiFilter {
        run: Some(run),
        task_id: Some("each".to_owned()),
        limit: 10,
        ..TiFilter::default()
    };
    for row in bed.task_instances(&filter).await.unwrap().rows {
        let x = row.map_values.unwrap()["x"].clone();
        assert_eq!(x, json!(row.map_index));
    }
    let used = bed
        .limits(&[crate::LimitKey::pool("default_pool")])
        .await
        .unwrap();
    assert_eq!(used[0].used, 0);
}

pub async fn a_dispatch_that_is_out_is_stopped_first<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let context = context();
    let nodes = json!([
        { "task_id": "t0", "noop": {} },
        { "task_id": "t1", "noop": {}, "depends_on": ["t0"] },
    ]);
    let out = started_run(&bed, nodes, &context).await.outbox;
    let run = out[0].run;
    let clear = request(run, Change::Clear(tasks(&[0], true)));
    let prevented = Amend {
        refuse_running: true,
        ..clear.clone()
    };
    let refused = Store::amend(&*bed, &prevented, &context).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    bed.amend_run(&clear, &context).await;
    assert_eq!(bed.states(run).await, ["restarting", "none"]);
    assert_eq!(bed.restarting(10).await.unwrap().len(), 1);
    let mark = request(run, Change::Mark(tasks(&[0], false), TaskState::Success));
    bed.amend_run(&mark, &context).await;
    let row = bed.instances(run).await.remove(0);
    assert_eq!(row.then, Some(TaskState::Success));
    bed.apply(&[fails(&out[0])], &[], &context).await.unwrap();
    assert_eq!(bed.states(run).await, ["success", "queued"]);
    let row = bed.instances(run).await.remove(0);
    assert_eq!(bed.attempts(row.pk).await.unwrap()[0].ending, "failed");
    assert_eq!(row.then, None);
    assert_eq!(
        bed.apply(&[ending(&out[0])], &[], &context)
            .await
            .unwrap()
            .stale,
        1
    );
}

pub async fn a_run_is_marked_and_queued_again<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let context = context();
    let nodes = json!([
        { "task_id": "t0", "noop": {} },
        { "task_id": "t1", "noop": {}, "depends_on": ["t0"] },
    ]);
    let out = started_run(&bed, nodes, &context).await.outbox;
    let run = out[0].run;
    bed.apply(&[fails(&out[0])], &[], &context).await.unwrap();
    assert_eq!(bed.row(run).await.state, RunState::Failed);
    let mark = |state| request(run, Change::MarkRun(state));
    bed.amend_run(&mark(RunState::Success), &context).await;
    assert_eq!(bed.states(run).await, ["success", "success"]);
    assert_eq!(bed.row(run).await.state, RunState::Success);
    bed.amend_run(&mark(RunState::Failed), &context).await;
    assert_eq!(bed.row(run).await.state, RunState::Failed);
    bed.amend_run(&mark(RunState::Queued), &context).await;
    assert_eq!(bed.row(run).await.state, RunState::Queued);
    // It has nothing to do, and ends with its start.
    bed.start_runs(&context).await.unwrap();
    assert_eq!(bed.row(run).await.state, RunState::Success);
    let note = Amend {
        note: Some("seen".to_owned()),
        ..request(run, Change::Note)
    };
    bed.amend_run(&note, &context).await;
    assert_eq!(bed.row(run).await.note.as_deref(), Some("seen"));
}
