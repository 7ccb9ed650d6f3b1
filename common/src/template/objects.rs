//! The objects behind the names, made only when a template asks for them.

use super::{TemplateContext, filters::Date, macros::Macros};
use chrono::{DateTime, Utc};
use minijinja::{
    Error, ErrorKind, State, Value as Jinja,
    value::{Enumerator, Kwargs, Object, Serde, from_args},
};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The top level of names.
#[derive(Debug)]
pub(super) struct Root {
    context: Arc<TemplateContext>,
    extra: Map<String, Value>,
}

impl Root {
    pub(super) fn value(context: Arc<TemplateContext>, extra: Map<String, Value>) -> Jinja {
        Jinja::from_object(Self { context, extra })
    }
}

pub(super) fn json<T: serde::Serialize>(value: T) -> Jinja {
    Jinja::from(Serde(value))
}

fn date(at: Option<DateTime<Utc>>) -> Option<Jinja> {
    at.map(Date::value)
}

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let key = key.as_str()?;
        if let Some(value) = self.extra.get(key) {
            return Some(json(value));
        }
        let context = &self.context;
        let text = |format: fn(&Date) -> String| {
            context
                .logical_date
                .map(|at| Jinja::from(format(&Date::of(at))))
        };
        Some(match key {
            "ds" => text(Date::ds)?,
            "ds_nodash" => text(Date::ds_nodash)?,
            "ts" => text(Date::ts)?,
            "ts_nodash" => text(Date::ts_nodash)?,
            "ts_nodash_with_tz" => text(Date::ts_nodash_with_tz)?,
            "logical_date" => date(context.logical_date)?,
            "data_interval_start" => date(context.data_interval_start)?,
            "data_interval_end" => date(context.data_interval_end)?,
            "run_id" => Jinja::from(context.run_id.as_str()),
            "params" => json(&context.params),
            "triggering_asset_events" => json(&context.asset_events),
            "map" => json(&context.map),
            "map_index" => Jinja::from(context.map_index),
            "try_number" => Jinja::from(context.try_number),
            "dag" => Jinja::from_pairs([("dag_id", context.dag_id.as_str())]),
            "task" => Jinja::from_pairs([("task_id", context.task_id.as_str())]),
            "ti" | "task_instance" => Jinja::from_object(TaskInstance(context.clone())),
            "dag_run" => Jinja::from_object(DagRun(context.clone())),
            "var" => Jinja::from_pairs([("value", false), ("json", true)].map(|(name, parsed)| {
                (
                    name,
                    Jinja::from_object(Variables {
                        context: context.clone(),
                        parsed,
                    }),
                )
            })),
            "conn" => Jinja::from_object(Connections(context.clone())),
            "macros" => Jinja::from_object(Macros),
            _ => return None,
        })
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&super::env::ROOTS)
    }
}

#[derive(Debug)]
struct DagRun(Arc<TemplateContext>);

impl Object for DagRun {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let run = &self.0;
        // Other than a name that does not exist, a date that a run has not got is none, as in Airflow.
        let date = |at| Some(date(at).unwrap_or_else(|| Jinja::from(())));
        match key.as_str()? {
            "conf" => Some(json(&run.conf)),
            "dag_id" => Some(Jinja::from(run.dag_id.as_str())),
            "run_id" => Some(Jinja::from(run.run_id.as_str())),
            "run_type" => Some(Jinja::from(run.run_type.as_str())),
            "logical_date" => date(run.logical_date),
            "data_interval_start" => date(run.data_interval_start),
            "data_interval_end" => date(run.data_interval_end),
            "run_after" => date(Some(run.run_after)),
            "queued_at" => date(run.queued_at),
            "start_date" => date(run.start_date),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct TaskInstance(Arc<TemplateContext>);

impl Object for TaskInstance {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let ti = &self.0;
        Some(match key.as_str()? {
            "dag_id" => Jinja::from(ti.dag_id.as_str()),
            "task_id" => Jinja::from(ti.task_id.as_str()),
            "run_id" => Jinja::from(ti.run_id.as_str()),
            "try_number" => Jinja::from(ti.try_number),
            "max_tries" => Jinja::from(ti.max_tries),
            "map_index" => Jinja::from(ti.map_index),
            _ => return None,
        })
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        name: &str,
        args: &[Jinja],
    ) -> Result<Jinja, Error> {
        if name != "xcom_pull" {
            return Err(unknown_method("ti", name, "xcom_pull"));
        }
        let (task_ids, key, map_indexes, kwargs): (
            Option<Jinja>,
            Option<Jinja>,
            Option<Jinja>,
            Kwargs,
        ) = from_args(args)?;
        let argument = |positional: Option<Jinja>, name: &str| match positional {
            Some(value) => Ok(Some(value)),
            None => kwargs.get::<Option<Jinja>>(name),
        };
        let given = |value: &Jinja| !value.is_none() && !value.is_undefined();
        let task_ids = argument(task_ids, "task_ids")?.filter(given);
        let key = argument(key, "key")?.filter(given);
        let map_indexes = argument(map_indexes, "map_indexes")?.filter(given);
        let default = argument(None, "default")?.unwrap_or_else(|| Jinja::from(()));
        kwargs.assert_all_used()?;
        let task_ids = task_ids.ok_or_else(|| {
            invalid("ti.xcom_pull needs the id of a task, as in ti.xcom_pull('extract')")
        })?;
        let key = match &key {
            None => "return_value",
            Some(key) => key.as_str().ok_or_else(|| {
                invalid(format!("ti.xcom_pull: key has to be a string, not {key}"))
            })?,
        };
        let pull = |task: &Jinja| -> Result<Jinja, Error> {
            let task = task
                .as_str()
                .ok_or_else(|| invalid(format!("ti.xcom_pull: {task} is no task id")))?;
            let one = |index: Option<i32>| -> Result<Jinja, Error> {
                let value = self.0.xcoms.pull(task, key, index).map_err(invalid)?;
                Ok(value.map_or_else(|| default.clone(), json))
            };
            match &map_indexes {
                None => one(self.0.own_index(task)),
                Some(index) if index.is_integer() => one(Some(i32::try_from(index.clone())?)),
                Some(indexes) => indexes
                    .try_iter()?
                    .map(|index| one(Some(i32::try_from(index)?)))
                    .collect(),
            }
        };
        match task_ids.as_str() {
            Some(_) => pull(&task_ids),
            None => task_ids.try_iter()?.map(|task| pull(&task)).collect(),
        }
    }
}

impl TemplateContext {
    /// The index whose value a pull sees that names none: its own, of a member of the same mapped group.
    fn own_index(&self, task: &str) -> Option<i32> {
        let group = self.mapped_group.as_ref()?;
        let is_member = task
            .strip_prefix(group)
            .is_some_and(|rest| rest.starts_with('.'));
        (is_member && self.map_index >= 0).then_some(self.map_index)
    }
}

/// `var.value` (texts) and `var.json` (parsed).
#[derive(Debug)]
struct Variables {
    context: Arc<TemplateContext>,
    parsed: bool,
}

impl Variables {
    fn get(&self, name: &str) -> Result<Option<Jinja>, Error> {
        let Some(value) = self.context.vars.get(name) else {
            return Ok(None);
        };
        Ok(Some(match (value, self.parsed) {
            (Value::String(text), true) => {
                json(serde_json::from_str::<Value>(text).map_err(|error| {
                    invalid(format!(
                        "the variable {name:?} is not JSON ({error}); read it as var.value.{name}"
                    ))
                })?)
            }
            (Value::String(text), false) => Jinja::from(text.as_str()),
            (value, true) => json(value),
            (value, false) => Jinja::from(value.to_string()),
        }))
    }
}

impl Object for Variables {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        // An error travels inside the value and shows when it is used.
        self.get(key.as_str()?)
            .unwrap_or_else(|error| Some(Jinja::from(error)))
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        name: &str,
        args: &[Jinja],
    ) -> Result<Jinja, Error> {
        if name != "get" {
            return Err(unknown_method("var.value", name, "get"));
        }
        let (name, default): (&str, Option<Jinja>) = from_args(args)?;
        Ok(self
            .get(name)?
            .or(default)
            .unwrap_or_else(|| Jinja::from(())))
    }
}

#[derive(Debug)]
struct Connections(Arc<TemplateContext>);

impl Object for Connections {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let mut conn = self.0.conns.get(key.as_str()?)?.clone();
        if let Some(fields) = conn.as_object_mut() {
            // `extra` may be stored as JSON text; `extra_dejson` is Airflow's name for the parsed form.
            if let Some(Value::String(text)) = fields.get("extra")
                && let Ok(parsed) = serde_json::from_str(text)
            {
                fields.insert("extra".to_owned(), parsed);
            }
            if let Some(extra) = fields.get("extra").cloned() {
                fields.insert("extra_dejson".to_owned(), extra);
            }
        }
        Some(json(conn))
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        name: &str,
        args: &[Jinja],
    ) -> Result<Jinja, Error> {
        if name != "get" {
            return Err(unknown_method("conn", name, "get"));
        }
        let (id, default): (Jinja, Option<Jinja>) = from_args(args)?;
        Ok(self
            .get_value(&id)
            .or(default)
            .unwrap_or_else(|| Jinja::from(())))
    }
}

pub(super) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Not of the kind `UnknownMethod`: on that, minijinja goes on to look for the method elsewhere.
pub(super) fn unknown_method(object: &str, name: &str, known: &str) -> Error {
    invalid(format!("{object} has no method {name:?}; it has: {known}"))
}
