//! Filters beyond Jinja's own, and dates as templates see them.

use super::objects::{invalid, json, unknown_method};
use chrono::{DateTime, Datelike, Duration, Timelike, Utc, format::StrftimeItems};
use minijinja::{
    Environment, Error, State, Value as Jinja,
    value::{Kwargs, Object, ObjectRepr, from_args},
};
use std::{cmp::Ordering, fmt, sync::Arc};

pub(super) fn add_to(env: &mut Environment<'static>) {
    env.add_filter("shell_quote", shell_quote);
    env.add_filter("tojson", to_json);
    env.add_filter("fromjson", from_json);
    env.add_filter("ds", |value: Jinja| {
        Date::read(&value).map(|date| date.ds())
    });
    env.add_filter("ds_nodash", |value: Jinja| {
        Date::read(&value).map(|date| date.ds_nodash())
    });
    env.add_filter("ts", |value: Jinja| {
        Date::read(&value).map(|date| date.ts())
    });
    env.add_filter("ts_nodash", |value: Jinja| {
        Date::read(&value).map(|date| date.ts_nodash())
    });
    env.add_filter("ts_nodash_with_tz", |value: Jinja| {
        Date::read(&value).map(|date| date.ts_nodash_with_tz())
    });
}

/// One word of a POSIX shell, whatever the text holds.
fn shell_quote(value: &Jinja) -> Result<String, Error> {
    let text = match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.as_object().is_some() => {
            serde_json::to_string(value).map_err(|e| invalid(e.to_string()))?
        }
        None => value.to_string(),
    };
    if text.contains('\0') {
        return Err(invalid(
            "shell_quote: a command line cannot hold a NUL character",
        ));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        return Ok(text);
    }
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

/// JSON as it is: Jinja's own filter escapes for HTML.
fn to_json(value: &Jinja, kwargs: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    kwargs.assert_all_used()?;
    let text = if indent.is_some_and(|n| n > 0) {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    text.map_err(|error| invalid(format!("tojson: {error}")))
}

fn from_json(text: &str) -> Result<Jinja, Error> {
    serde_json::from_str::<serde_json::Value>(text)
        .map(json)
        .map_err(|error| invalid(format!("fromjson: {error}")))
}

/// A point in time, with the methods of Python's and pendulum's dates that templates use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Date(DateTime<Utc>);

impl Date {
    pub(super) fn of(at: DateTime<Utc>) -> Self {
        Self(at)
    }

    pub(super) fn value(at: DateTime<Utc>) -> Jinja {
        Jinja::from_object(Self(at))
    }

    /// A date object, or a text of one.
    pub(super) fn read(value: &Jinja) -> Result<Self, Error> {
        if let Some(date) = value.downcast_object_ref::<Self>() {
            return Ok(*date);
        }
        value
            .as_str()
            .and_then(|text| crate::timetable::parse_date(text, chrono_tz::UTC))
            .map(Self)
            .ok_or_else(|| invalid(format!("{value:?} is no date")))
    }

    pub(super) fn ds(&self) -> String {
        self.0.format("%Y-%m-%d").to_string()
    }

    pub(super) fn ds_nodash(&self) -> String {
        self.0.format("%Y%m%d").to_string()
    }

    pub(super) fn ts(&self) -> String {
        self.iso('T')
    }

    pub(super) fn ts_nodash(&self) -> String {
        self.0.format("%Y%m%dT%H%M%S").to_string()
    }

    pub(super) fn ts_nodash_with_tz(&self) -> String {
        self.0.format("%Y%m%dT%H%M%S+0000").to_string()
    }

    fn iso(&self, separator: char) -> String {
        let (day, time) = (self.0.format("%Y-%m-%d"), self.0.format("%H:%M:%S"));
        match self.0.timestamp_subsec_micros() {
            0 => format!("{day}{separator}{time}+00:00"),
            micros => format!("{day}{separator}{time}.{micros:06}+00:00"),
        }
    }

    pub(super) fn strftime(&self, format: &str) -> Result<String, Error> {
        let items = StrftimeItems::new(format)
            .parse()
            .map_err(|_| invalid(format!("{format:?} is no date format (see strftime)")))?;
        Ok(self.0.format_with_items(items.iter()).to_string())
    }

    fn shifted(&self, kwargs: &Kwargs, sign: i64) -> Result<Jinja, Error> {
        let overflow = || invalid("a date outside of what can be represented");
        let mut at = self.0;
        for (unit, seconds) in [
            ("weeks", 604_800),
            ("days", 86_400),
            ("hours", 3_600),
            ("minutes", 60),
            ("seconds", 1),
        ] {
            if let Some(n) = kwargs.get::<Option<i64>>(unit)? {
                let shift = n
                    .checked_mul(seconds * sign)
                    .and_then(Duration::try_seconds)
                    .ok_or_else(overflow)?;
                at = at.checked_add_signed(shift).ok_or_else(overflow)?;
            }
        }
        let months = kwargs.get::<Option<i32>>("months")?.unwrap_or(0);
        let years = kwargs.get::<Option<i32>>("years")?.unwrap_or(0);
        let months = years
            .checked_mul(12)
            .and_then(|y| y.checked_add(months))
            .ok_or_else(overflow)?
            * sign as i32;
        let by = chrono::Months::new(months.unsigned_abs());
        at = if months < 0 {
            at.checked_sub_months(by)
        } else {
            at.checked_add_months(by)
        }
        .ok_or_else(overflow)?;
        kwargs.assert_all_used()?;
        Ok(Self::value(at))
    }
}

impl Object for Date {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        Some(match key.as_str()? {
            "year" => Jinja::from(self.0.year()),
            "month" => Jinja::from(self.0.month()),
            "day" => Jinja::from(self.0.day()),
            "hour" => Jinja::from(self.0.hour()),
            "minute" => Jinja::from(self.0.minute()),
            "second" => Jinja::from(self.0.second()),
            "microsecond" => Jinja::from(self.0.timestamp_subsec_micros()),
            "day_of_year" => Jinja::from(self.0.ordinal()),
            "week_of_year" => Jinja::from(self.0.iso_week().week()),
            _ => return None,
        })
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        name: &str,
        args: &[Jinja],
    ) -> Result<Jinja, Error> {
        match name {
            "strftime" => {
                let (format,): (&str,) = from_args(args)?;
                self.strftime(format).map(Jinja::from)
            }
            "add" | "subtract" => {
                let (kwargs,): (Kwargs,) = from_args(args)?;
                self.shifted(&kwargs, if name == "add" { 1 } else { -1 })
            }
            "in_timezone" | "in_tz" => {
                let (zone, format): (&str, Option<&str>) = from_args(args)?;
                let timezone: chrono_tz::Tz = zone
                    .parse()
                    .map_err(|_| invalid(format!("{zone:?} is no time zone")))?;
                let format = format.unwrap_or("%Y-%m-%dT%H:%M:%S%:z");
                let items = StrftimeItems::new(format)
                    .parse()
                    .map_err(|_| invalid(format!("{format:?} is no date format (see strftime)")))?;
                Ok(Jinja::from(
                    self.0
                        .with_timezone(&timezone)
                        .format_with_items(items.iter())
                        .to_string(),
                ))
            }
            "isoformat" | "to_iso8601_string" => Ok(Jinja::from(self.ts())),
            "date" | "to_date_string" => Ok(Jinja::from(self.ds())),
            "timestamp" => Ok(Jinja::from(self.0.timestamp_micros() as f64 / 1e6)),
            "int_timestamp" => Ok(Jinja::from(self.0.timestamp())),
            "weekday" => Ok(Jinja::from(self.0.weekday().num_days_from_monday())),
            "isoweekday" => Ok(Jinja::from(self.0.weekday().number_from_monday())),
            _ => Err(unknown_method(
                "a date",
                name,
                "strftime, add, subtract, in_timezone, isoformat, date, timestamp, weekday, isoweekday",
            )),
        }
    }

    fn custom_cmp(self: &Arc<Self>, other: &minijinja::value::DynObject) -> Option<Ordering> {
        other
            .downcast_ref::<Self>()
            .map(|other| self.0.cmp(&other.0))
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iso(' '))
    }
}
