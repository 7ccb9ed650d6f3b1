//! Runs one claimed dispatch from its start to the report of its ending.

use crate::{
    context::{self, TaskContext},
    held::Wish,
    log::{AttemptLog, LogSender},
    tasks,
    worker::{Incarnation, Lane},
};
use chrono::{DateTime, Utc};
use futures::FutureExt;
use gristmill_common::{
    message::{Ending, Event, Finished, Started, WorkMessage, XcomOut},
    retry_rule::{self, Failure, RetryAction, RetryRule},
    spec::TaskKind,
};
use gristmill_objects::logs::LogKey;
use std::{panic::AssertUnwindSafe, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, watch};

/// How a task's work ended.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// `None`: it did not run to an end and is to be requeued at no cost.
    pub(crate) ending: Option<Ending>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) pid: Option<i32>,
    pub(crate) reason: Option<String>,
    /// Of an HTTP answer that was no success.
    pub(crate) status: Option<u16>,
    /// The ends of what it printed, or was answered: what `retry_rules` look at.
    pub(crate) output: Vec<String>,
    pub(crate) xcoms: Vec<XcomOut>,
}

impl Outcome {
    pub(crate) fn success(xcoms: Vec<XcomOut>) -> Self {
        Self {
            ending: Some(Ending::Success),
            xcoms,
            ..Self::default()
        }
    }

    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        Self {
            ending: Some(Ending::Failed),
            reason: Some(reason.into()),
            ..Self::default()
        }
    }

    /// A sensor's look that found nothing.
    pub(crate) fn not_yet(reason: String) -> Self {
        Self {
            ending: Some(Ending::NotYet),
            reason: Some(reason),
            ..Self::default()
        }
    }

    /// A failure that another try cannot mend.
    pub(crate) fn failed_for_good(reason: impl Into<String>) -> Self {
        Self {
            ending: Some(Ending::FailedForGood),
            reason: Some(reason.into()),
            ..Self::default()
        }
    }

    /// What the task's rules make of a failure that another try may mend.
    fn by_rules(mut self, rules: &[RetryRule]) -> Self {
        if rules.is_empty() || self.ending != Some(Ending::Failed) {
            return self;
        }
        let failure = Failure {
            exit_code: self.exit_code,
            status: self.status,
            output: std::mem::take(&mut self.output),
        };
        let Some(rule) = retry_rule::rule_of(rules, &failure) else {
            return self;
        };
        let (ending, means) = match (rule.then, rule.delay) {
            (RetryAction::Fail, _) => (Ending::FailedForGood, "failed for good"),
            (RetryAction::Skip, _) => (Ending::Skipped, "skipped"),
            (RetryAction::Retry, None) => return self,
            (RetryAction::Retry, Some(delay)) => {
                let ms = u64::try_from(delay.millis()).unwrap_or(u64::MAX);
                self.ending = Some(Ending::RetryIn { ms });
                return self;
            }
        };
        self.ending = Some(ending);
        let reason = self.reason.unwrap_or_default();
        self.reason = Some(format!("{reason} ({means}, by a retry rule)"));
        self
    }

    /// What a wish ends a task as.
    pub(crate) fn wished(wish: Wish) -> Self {
        match wish {
            Wish::Cancel => Self {
                ending: Some(Ending::Cancelled),
                reason: Some("cancelled".to_owned()),
                ..Self::default()
            },
            Wish::GoOn | Wish::Interrupt => Self {
                ending: None,
                reason: Some("its worker was stopped".to_owned()),
                ..Self::default()
            },
        }
    }
}

/// What a running task needs from its worker.
pub(crate) struct Execution {
    pub(crate) worker: Arc<Incarnation>,
    pub(crate) message: Arc<WorkMessage>,
    pub(crate) context: TaskContext,
    pub(crate) log: LogSender,
    pub(crate) wish: watch::Receiver<Wish>,
    started: std::sync::Mutex<Option<DateTime<Utc>>>,
}

impl Execution {
    /// Tells the scheduler that the task runs.
    pub(crate) fn report_started(&self, pid: Option<i32>) {
        let at = Utc::now();
        if let Ok(mut started) = self.started.lock() {
            *started = Some(at);
        }
        gristmill_common::fault_point!("after-ack-before-started");
        let info = &self.worker.lease.info;
        self.worker.reporter.event(Event::Started(Started {
            run: self.message.run.pk,
            dispatch: self.message.dispatch,
            worker: info.incarnation.clone(),
            hostname: info.hostname.clone(),
            pid,
            at,
        }));
    }

    /// Waits until something is wished of the task other than to go on.
    pub(crate) async fn wished(&self) -> Wish {
        let mut wish = self.wish.clone();
        let wished = wish
            .wait_for(|wish| *wish != Wish::GoOn)
            .await
            .map(|wish| *wish);
        match wished {
            Ok(wish) => wish,
            // The dispatch is not held any more: nothing will be wished.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Runs a dispatch in the background; its slot is free when it has ended.
pub(crate) fn spawn(
    worker: Arc<Incarnation>,
    message: WorkMessage,
    wish: watch::Receiver<Wish>,
    slot: OwnedSemaphorePermit,
    lane: Lane,
) {
    let received = Utc::now();
    if does_nothing(&message.task.kind) {
        drop(slot);
        return report(&worker, &message, Outcome::success(Vec::new()), received);
    }
    tokio::spawn(async move {
        let message = Arc::new(message);
        // Places among the pokes are many: a task that somebody sends there takes its slot too.
        let _second = match lane {
            Lane::Pokes if !message.task.kind.pokes() => {
                worker.slots.clone().acquire_owned().await.ok()
            }
            Lane::Pokes | Lane::Tasks => None,
        };
        // What panics in here must not take the report with it.
        let work = AssertUnwindSafe(execute(&worker, message.clone(), wish)).catch_unwind();
        let Ok((outcome, started)) = work.await else {
            tracing::error!(dispatch = %message.dispatch, "the task's supervision broke down, see the panic above: this incarnation ends");
            return worker.lease.give_up();
        };
        drop(slot);
        report(&worker, &message, outcome, started.unwrap_or(received));
    });
}

/// Whether a task ends as soon as it is claimed.
fn does_nothing(kind: &TaskKind) -> bool {
    matches!(kind, TaskKind::Noop(_) | TaskKind::Empty(_))
}

fn report(
    worker: &Incarnation,
    message: &WorkMessage,
    outcome: Outcome,
    started_at: DateTime<Utc>,
) {
    let event = match outcome.ending {
        Some(ending) => Event::Finished(Box::new(Finished {
            run: message.run.pk,
            dispatch: message.dispatch,
            worker: worker.lease.info.incarnation.clone(),
            hostname: worker.lease.info.hostname.clone(),
            started_at,
            ended_at: Utc::now().max(started_at),
            ending,
            exit_code: outcome.exit_code,
            pid: outcome.pid,
            reason: outcome.reason,
            xcoms: outcome.xcoms,
        })),
        None => Event::Requeued {
            run: message.run.pk,
            dispatch: message.dispatch,
            reason: outcome.reason.unwrap_or_default(),
        },
    };
    worker.reporter.event(event);
}

async fn execute(
    worker: &Arc<Incarnation>,
    message: Arc<WorkMessage>,
    wish: watch::Receiver<Wish>,
) -> (Outcome, Option<DateTime<Utc>>) {
    let key = LogKey {
        dag_id: message.run.dag_id.clone(),
        run_id: message.run.run_id.clone(),
        task_id: message.task.task_id.clone(),
        map_index: message.map_index,
        try_number: u32::try_from(message.try_number).unwrap_or(0),
        attempt: message.attempt,
    };
    // Not kept while the task runs: preparing may make requests, whose state is large.
    let prepared = Box::pin(context::prepare(worker, &message)).await;
    let mask = prepared
        .as_ref()
        .map(|context| context.mask.clone())
        .unwrap_or_default();
    let log = AttemptLog::start(worker.objects.clone(), worker.presence.clone(), key, mask);
    // What was wished while it was prepared, the lease's end among it, comes before its start.
    let wished = *wish.borrow();
    let (outcome, started) = match prepared {
        Err(failure) => (failure, None),
        Ok(_) if wished != Wish::GoOn => (Outcome::wished(wished), None),
        Ok(context) => {
            let execution = Execution {
                worker: worker.clone(),
                message,
                context,
                log: log.sender.clone(),
                wish,
                started: std::sync::Mutex::new(None),
            };
            let outcome = tasks::run(&execution)
                .await
                .by_rules(&execution.message.task.retry_rules);
            let started = execution.started.lock().ok().and_then(|started| *started);
            (outcome, started)
        }
    };
    match (&outcome.ending, &outcome.reason) {
        // A sensor may look a thousand times: what it did not find is told by its row, not by a log each.
        (Some(Ending::Success | Ending::NotYet), _) => {}
        (Some(Ending::Skipped), reason) => {
            log.sender
                .note(&format!(
                    "Skipped: {}",
                    reason.as_deref().unwrap_or("by itself")
                ))
                .await
        }
        (_, Some(reason)) => log.sender.error(reason).await,
        (_, None) => {}
    }
    log.finish().await;
    (outcome, started)
}
