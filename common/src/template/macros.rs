//! `macros`: Airflow's helper functions. All are deterministic: a retried attempt renders the same text.

use super::{
    filters::Date,
    objects::{invalid, json, unknown_method},
};
use chrono::{DateTime, Duration, NaiveDate, NaiveDateTime, TimeZone, Utc};
use minijinja::{
    Error, State, Value as Jinja,
    value::{Object, from_args},
};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Macros;

impl Object for Macros {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        (key.as_str()? == "json").then(|| Jinja::from_object(Json))
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        name: &str,
        args: &[Jinja],
    ) -> Result<Jinja, Error> {
        match name {
            "ds_add" => {
                let (day, days): (&str, i64) = from_args(args)?;
                let at = Date::read(&Jinja::from(day))?;
                let format = |at: DateTime<Utc>| Jinja::from(Date::of(at).ds());
                let at = parse(&at.ds(), "%Y-%m-%d")?;
                Duration::try_days(days)
                    .and_then(|days| at.checked_add_signed(days))
                    .map(format)
                    .ok_or_else(|| {
                        invalid("macros.ds_add: a date outside of what can be represented")
                    })
            }
            "ds_format" => {
                let (text, from, to): (&str, &str, &str) = from_args(args)?;
                Date::of(parse(text, from)?).strftime(to).map(Jinja::from)
            }
            "datetime" => match args {
                [text] => Date::read(text).map(Jinja::from_object),
                _ => {
                    let (year, month, day, hour, minute): (
                        i32,
                        u32,
                        u32,
                        Option<u32>,
                        Option<u32>,
                    ) = from_args(args)?;
                    Utc.with_ymd_and_hms(
                        year,
                        month,
                        day,
                        hour.unwrap_or(0),
                        minute.unwrap_or(0),
                        0,
                    )
                    .single()
                    .map(Date::value)
                    .ok_or_else(|| invalid("macros.datetime: there is no such date"))
                }
            },
            "uuid5" => {
                let (name,): (&str,) = from_args(args)?;
                Ok(Jinja::from(
                    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).to_string(),
                ))
            }
            _ => Err(unknown_method(
                "macros",
                name,
                "ds_add, ds_format, datetime, uuid5, json.loads, json.dumps",
            )),
        }
    }
}

fn parse(text: &str, format: &str) -> Result<DateTime<Utc>, Error> {
    let date = NaiveDateTime::parse_from_str(text, format)
        .ok()
        .or_else(|| {
            NaiveDate::parse_from_str(text, format)
                .ok()?
                .and_hms_opt(0, 0, 0)
        })
        .ok_or_else(|| invalid(format!("{text:?} is no date of the format {format:?}")))?;
    Ok(date.and_utc())
}

#[derive(Debug)]
struct Json;

impl Object for Json {
    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        name: &str,
        args: &[Jinja],
    ) -> Result<Jinja, Error> {
        match name {
            "loads" => {
                let (text,): (&str,) = from_args(args)?;
                serde_json::from_str::<serde_json::Value>(text)
                    .map(json)
                    .map_err(|error| invalid(format!("macros.json.loads: {error}")))
            }
            "dumps" => {
                let (value,): (Jinja,) = from_args(args)?;
                serde_json::to_string(&value)
                    .map(Jinja::from)
                    .map_err(|error| invalid(format!("macros.json.dumps: {error}")))
            }
            _ => Err(unknown_method("macros.json", name, "loads, dumps")),
        }
    }
}
