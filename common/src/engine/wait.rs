//! Instances that wait without a worker: between a sensor's pokes, and the waits that the scheduler ends itself.

use super::{WorkingSet, start::run_template_context};
use crate::{
    ids::{RunPk, TiPk},
    message::{Ending, Finished, XcomOut},
    row::{RETURN_VALUE, TiRow, Wait, XcomValue},
    spec::{OtherDag, SensorOn, SensorTask, TaskKind},
    state::TaskState,
    template::{Renderer, XComSource},
    timetable::parse_date,
    transition,
};
use chrono::{DateTime, Duration, Utc};
use serde_json::{Map, Value};
use std::sync::Arc;
use uuid::Uuid;

/// What a deferred instance waits for, with its templates rendered.
#[derive(Debug, Clone, PartialEq)]
pub enum Waiting {
    /// A time.
    Until(DateTime<Utc>),
    /// A run of another DAG, with this logical date.
    Dag {
        other: Box<OtherDag>,
        date: DateTime<Utc>,
    },
    /// An update of an asset at this time or later.
    Asset { name: String, since: DateTime<Utc> },
    /// A run that it has to trigger first.
    Trigger(Box<RenderedTrigger>),
    /// The end of the run that it has triggered.
    Run(RunPk),
    /// A person; what is asked.
    Answer { prompt: String },
}

/// A `trigger_dag` task with its templates rendered.
#[derive(Debug, Clone, PartialEq)]
pub struct RenderedTrigger {
    pub dag_id: String,
    /// `params` laid over `conf`.
    pub conf: Map<String, Value>,
    /// Given by the author; else one is derived from the instance and its try.
    pub run_id: Option<String>,
    /// Given by the author; else now.
    pub logical_date: Option<DateTime<Utc>>,
    pub wait: bool,
}

impl WorkingSet {
    pub(super) fn is_deferred(&self, ti: TiPk) -> bool {
        self.kind_of(ti).is_some_and(TaskKind::is_deferred)
    }

    fn kind_of(&self, ti: TiPk) -> Option<&TaskKind> {
        let row = self.ti(ti)?;
        Some(&self.plan_of(row.run)?.task(row.task_idx)?.kind)
    }

    pub(super) fn sensor_of(&self, ti: TiPk) -> Option<&SensorTask> {
        match self.kind_of(ti)? {
            TaskKind::Sensor(sensor) => Some(sensor),
            _ => None,
        }
    }

    pub(super) fn fails_softly(&self, row: &TiRow) -> bool {
        self.sensor_of(row.pk)
            .is_some_and(|sensor| sensor.soft_fail)
    }

    /// An instance that needs no worker may run; in a run that is being stopped it ends instead.
    pub(super) fn defer(&mut self, ti: TiPk) -> Option<()> {
        let now = self.now;
        if let Some(reason) = self.stopped_by(self.ti(ti)?).map(str::to_owned) {
            self.change(ti, |row| transition::cancel(row, reason, now))?;
            return self.instance_ended(ti);
        }
        self.change(ti, |row| transition::defer(row, now))?;
        self.waits_begun = true;
        Some(())
    }

    /// A sensor's first poke ended without a word of what it saw: its timeout counts from there all the same.
    pub(super) fn looked_first(&mut self, before: &TiRow, started: Option<DateTime<Utc>>) {
        if before.wait.is_some() || self.sensor_of(before.pk).is_none() {
            return;
        }
        let since = self.first_look(before, started);
        if let Some(row) = self.ti_mut(before.pk) {
            row.wait = Some(Wait {
                since,
                looks: 0,
                open: false,
                run: None,
            });
        }
    }

    /// When a sensor's first poke began. A worker's clock is not this one: its word counts within what is known.
    fn first_look(&self, before: &TiRow, started: Option<DateTime<Utc>>) -> DateTime<Utc> {
        let earliest = before.queued_at.unwrap_or(self.now);
        started.unwrap_or(earliest).min(self.now).max(earliest)
    }

    /// A poke found nothing yet: the next is due in a while, unless the sensor's time is over.
    pub(super) fn not_yet(&mut self, before: &TiRow, event: &Finished) -> Option<()> {
        let now = self.now;
        let Some(sensor) = self.sensor_of(before.pk).cloned() else {
            let reason = Some("only a sensor may wait for another look".to_owned());
            let event = Finished {
                ending: Ending::FailedForGood,
                reason,
                ..event.clone()
            };
            return self.try_ended(before, &event);
        };
        let since = before.wait.as_ref().map_or_else(
            || self.first_look(before, Some(event.started_at)),
            |wait| wait.since,
        );
        let over = since + sensor.timeout.chrono();
        if now >= over {
            let event = Finished {
                ending: Ending::FailedForGood,
                reason: Some(timed_out(&sensor, event.reason.as_deref())),
                ..event.clone()
            };
            return self.try_ended(before, &event);
        }
        let looks = before.wait.as_ref().map_or(0, |wait| wait.looks) + 1;
        let next_at = (now + sensor.interval(looks)).min(over);
        self.change(before.pk, |row| {
            transition::reschedule(row, event, since, next_at)
        })?;
        self.left_queue(before);
        self.release(before);
        if let Some(reason) = self.stopped_by(before).map(str::to_owned) {
            self.change(before.pk, |row| transition::cancel(row, reason, now))?;
            return self.instance_ended(before.pk);
        }
        if next_at <= now {
            self.retry_due(before.pk);
        }
        Some(())
    }

    /// The scheduler's first look at a try of a deferred instance; nothing if the try is under way already. `attempt`
    /// names it.
    pub fn begin_wait(&mut self, ti: TiPk, attempt: Uuid) -> Option<()> {
        let now = self.now;
        let row = self.ti(ti)?;
        if row.state != TaskState::Deferred || row.try_goes_on() {
            return None;
        }
        let is_sensor = self.sensor_of(ti).is_some();
        let to = match self.kind_of(ti)? {
            TaskKind::Approval(_) => TaskState::AwaitingInput,
            _ => TaskState::Deferred,
        };
        self.change(ti, |row| {
            if !is_sensor {
                row.wait = None;
            }
            transition::look(row, to, attempt, now)
        })
    }

    /// The next look is due then (`None`: something wakes it); why it waits.
    pub fn wait_until(
        &mut self,
        ti: TiPk,
        next_at: Option<DateTime<Utc>>,
        reason: Option<String>,
    ) -> Option<()> {
        let row = self.ti_mut(ti)?;
        row.next_at = next_at;
        row.reason = reason;
        if let Some(wait) = &mut row.wait {
            wait.looks = wait.looks.saturating_add(1);
        }
        Some(())
    }

    /// A sensor that the scheduler looks for found nothing yet.
    pub fn look_again(&mut self, ti: TiPk, reason: String) -> Option<()> {
        let now = self.now;
        let sensor = self.sensor_of(ti)?.clone();
        let wait = self.ti(ti)?.wait.clone()?;
        let over = wait.since + sensor.timeout.chrono();
        if now >= over {
            let why = timed_out(&sensor, Some(&reason));
            return self.end_wait(ti, Ending::FailedForGood, Some(why), Vec::new());
        }
        let next_at = (now + sensor.interval(wait.looks + 1)).min(over);
        self.wait_until(ti, Some(next_at), Some(reason))
    }

    /// A time sensor waits for its time, or for the end of its own.
    pub fn wait_for_time(&mut self, ti: TiPk, until: DateTime<Utc>) -> Option<()> {
        if until <= self.now {
            return self.end_wait(ti, Ending::Success, None, Vec::new());
        }
        let sensor = self.sensor_of(ti)?.clone();
        let over = self.ti(ti)?.wait.as_ref()?.since + sensor.timeout.chrono();
        let what = format!("until {}", until.to_rfc3339());
        if self.now >= over {
            let why = timed_out(&sensor, Some(&format!("it waits {what}")));
            return self.end_wait(ti, Ending::FailedForGood, Some(why), Vec::new());
        }
        self.wait_until(ti, Some(until.min(over)), Some(format!("waits {what}")))
    }

    /// The triggered run that an instance waits for from now on; it is looked at again only in case the run is deleted.
    pub fn wait_for_run(&mut self, ti: TiPk, run: RunPk, what: String) -> Option<()> {
        let next = self.now + LOOK_FOR_DELETED;
        if let Some(wait) = &mut self.ti_mut(ti)?.wait {
            wait.run = Some(run);
        }
        self.wait_until(ti, Some(next), Some(what))
    }

    /// Ends a wait. Failures are tried again as any.
    pub fn end_wait(
        &mut self,
        ti: TiPk,
        ending: Ending,
        reason: Option<String>,
        xcoms: Vec<XcomOut>,
    ) -> Option<()> {
        let before = self.ti(ti)?.clone();
        if !matches!(before.state, TaskState::Deferred | TaskState::AwaitingInput) {
            return None;
        }
        let event = Finished {
            run: before.run,
            dispatch: before.dispatch(),
            worker: String::new(),
            hostname: String::new(),
            started_at: before.started_at.unwrap_or(self.now),
            ended_at: self.now,
            ending,
            exit_code: None,
            pid: None,
            reason,
            xcoms,
        };
        self.try_ended(&before, &event)
    }

    /// What a deferred instance waits for. An error is why its templates give nothing to wait for.
    pub fn waiting(&self, ti: TiPk, xcoms: Arc<dyn XComSource>) -> Result<Waiting, String> {
        let row = self.ti(ti).ok_or("the instance is not loaded")?;
        if let Some(run) = row.wait.as_ref().and_then(|wait| wait.run) {
            return Ok(Waiting::Run(run));
        }
        let (run, plan) = self
            .run(row.run)
            .zip(self.plan_of(row.run))
            .ok_or("the run is not loaded")?;
        let task = plan
            .task(row.task_idx)
            .ok_or("the task is not in this version")?;
        let mut context = run_template_context(plan, run, task, row.map_values.as_ref());
        context.asset_events = self.events_of(run.pk);
        context.map_index = row.map_index;
        context.try_number = row.try_number;
        context.xcoms = xcoms;
        let renderer = Renderer::new(context);
        let text = |what: &str, text: &str| {
            renderer
                .render(text)
                .map(|text| text.trim().to_owned())
                .map_err(|error| format!("{what}: {error}"))
        };
        let date = |what: &str, template: &str| {
            let text = text(what, template)?;
            parse_date(&text, plan.spec.timezone)
                .ok_or_else(|| format!("{what}: {text:?} is no time such as 2026-01-01T08:30:00Z"))
        };
        match &task.kind {
            TaskKind::Sensor(sensor) => match &sensor.on {
                SensorOn::Time(time) => date("sensor.time", time).map(Waiting::Until),
                SensorOn::Delta(delta) => {
                    let from = run.data_interval_end.unwrap_or(run.run_after);
                    Ok(Waiting::Until(from + delta.chrono()))
                }
                SensorOn::Dag(other) => {
                    let date = run.logical_date.ok_or(
                        "sensor.dag: this run has no logical date, so no run of another DAG has the same",
                    )?;
                    let offset = other.offset.map_or(Duration::zero(), |o| o.chrono());
                    Ok(Waiting::Dag {
                        other: other.clone(),
                        date: date - offset,
                    })
                }
                SensorOn::Asset(update) => {
                    let since = match &update.since {
                        Some(since) => date("sensor.asset.since", since)?,
                        None => run.data_interval_end.unwrap_or(run.run_after),
                    };
                    Ok(Waiting::Asset {
                        name: update.name.clone(),
                        since,
                    })
                }
                SensorOn::File(_) | SensorOn::Http(_) | SensorOn::Sql(_) => {
                    Err("a worker looks for this".to_owned())
                }
            },
            TaskKind::TriggerDag(trigger) => {
                let mut conf = Map::new();
                for (what, value) in [
                    ("trigger_dag.conf", &trigger.conf),
                    ("trigger_dag.params", &trigger.params),
                ] {
                    let Some(value) = value else { continue };
                    match renderer
                        .render_value(value)
                        .map_err(|error| format!("{what}: {error}"))?
                    {
                        Value::Object(given) => conf.extend(given),
                        Value::Null => {}
                        other => return Err(format!("{what}: expected a mapping, got {other}")),
                    }
                }
                Ok(Waiting::Trigger(Box::new(RenderedTrigger {
                    dag_id: text("trigger_dag.dag_id", &trigger.dag_id)?,
                    conf,
                    run_id: trigger
                        .run_id
                        .as_ref()
                        .map(|id| text("trigger_dag.run_id", id))
                        .transpose()?,
                    logical_date: trigger
                        .logical_date
                        .as_ref()
                        .map(|at| date("trigger_dag.logical_date", at))
                        .transpose()?,
                    wait: trigger.wait,
                })))
            }
            TaskKind::Approval(approval) => Ok(Waiting::Answer {
                prompt: approval
                    .prompt
                    .as_ref()
                    .map(|prompt| text("approval.prompt", prompt))
                    .transpose()?
                    .unwrap_or_default(),
            }),
            other => Err(format!("a {} task does not wait", other.name())),
        }
    }
}

/// How often a wait for a triggered run looks whether that run still exists.
const LOOK_FOR_DELETED: Duration = Duration::minutes(10);

fn timed_out(sensor: &SensorTask, last: Option<&str>) -> String {
    let last = last.map_or_else(String::new, |last| format!("; at last: {last}"));
    format!("the sensor's timeout of {} is over{last}", sensor.timeout)
}

/// The return value of a wait.
pub fn returned(value: Value) -> Vec<XcomOut> {
    vec![XcomOut {
        key: RETURN_VALUE.to_owned(),
        value: XcomValue::Inline(value),
    }]
}
