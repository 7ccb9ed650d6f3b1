//! Tables and JSON: how results are shown.

use std::io;

use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::console::Console;
use super::exit::CommandError;
use crate::client::{ClientError, Rows};

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
}

/// `-o`, the same for every command that reads.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Output {
    /// How to print the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    pub(super) output: Format,
}

/// What a table shows of a JSON object of the API.
pub(super) trait Tabular: DeserializeOwned {
    const HEADER: &'static [&'static str];

    /// A row's cells; times relative to `now`.
    fn cells(&self, now: DateTime<Utc>) -> Vec<String>;
}

impl Output {
    pub(super) fn is_json(self) -> bool {
        self.output == Format::Json
    }

    /// A listing: a JSON array as the API gave it, or a table. Says on standard error when there are more.
    pub(super) fn rows<T: Tabular>(
        self,
        console: &Console,
        rows: Rows,
    ) -> Result<(), CommandError> {
        let (shown, total) = (rows.rows.len(), rows.total);
        if self.is_json() {
            console.json(&Value::Array(rows.rows))?;
        } else if rows.rows.is_empty() {
            console.note("nothing to show");
        } else {
            console.line(&table::<T>(rows.rows, console.fancy_out, Utc::now())?)?;
        }
        if shown < total {
            console.note(&format!("{shown} of {total} shown; --limit shows more"));
        }
        Ok(())
    }

    /// One object: as the API gave it, or its fields under each other.
    pub(super) fn object(self, console: &Console, value: &Value) -> io::Result<()> {
        if self.is_json() {
            return console.json(value);
        }
        console.line(&fields(value))
    }
}

/// A table without lines: a header in capitals, columns two spaces apart.
pub(super) fn table<T: Tabular>(
    rows: Vec<Value>,
    fancy: bool,
    now: DateTime<Utc>,
) -> Result<String, CommandError> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if fancy {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.force_no_tty();
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(T::HEADER);
    for row in rows {
        let row: T = serde_json::from_value(row).map_err(|error| ClientError::Shape {
            what: "a row",
            reason: error.to_string(),
        })?;
        table.add_row(row.cells(now).into_iter().map(|text| match colour(&text) {
            Some(colour) => Cell::new(text).fg(colour),
            None => Cell::new(text),
        }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    Ok(lines.join("\n"))
}

/// Names of states have colours; no other cell has such a text.
fn colour(text: &str) -> Option<Color> {
    match text {
        "success" | "healthy" => Some(Color::Green),
        "failed" | "upstream_failed" | "cancelled" => Some(Color::Red),
        "running" => Some(Color::Cyan),
        "queued" | "scheduled" | "up_for_retry" | "paused" => Some(Color::Yellow),
        "skipped" | "none" | "removed" => Some(Color::DarkGrey),
        _ => None,
    }
}

/// The fields of an object that say something, one to a line, names aligned.
fn fields(object: &Value) -> String {
    let Value::Object(fields) = object else {
        return object.to_string();
    };
    let shown: Vec<(&String, String)> = fields
        .iter()
        .filter_map(|(name, value)| match value {
            Value::Null => None,
            Value::String(text) if text.is_empty() => None,
            Value::Array(items) if items.is_empty() => None,
            Value::Object(items) if items.is_empty() => None,
            Value::String(text) => Some((name, text.clone())),
            other => Some((name, other.to_string())),
        })
        .collect();
    let width = shown.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = shown
        .iter()
        .map(|(name, text)| format!("{name:width$}  {text}"))
        .collect();
    lines.join("\n")
}

/// `3m ago`, `in 2h`, or `-`.
pub(super) fn ago(time: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    let Some(time) = time else {
        return "-".to_owned();
    };
    match (now - time).num_milliseconds() {
        -999..=999 => "now".to_owned(),
        past @ 1.. => format!("{} ago", rough(past as f64 / 1000.0)),
        future => format!("in {}", rough(future.unsigned_abs() as f64 / 1000.0)),
    }
}

/// A length in its two largest units: `0.8s`, `42s`, `3m 5s`, `2h 10m`, `3d 4h`; or `-`.
pub(super) fn length(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else {
        return "-".to_owned();
    };
    if seconds < 10.0 {
        return format!("{seconds:.1}s");
    }
    let whole = seconds.round() as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{whole}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", whole % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

/// A length in its largest unit.
fn rough(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m", whole / 60),
        3600..86_400 => format!("{}h", whole / 3600),
        _ => format!("{}d", whole / 86_400),
    }
}

/// The text, or `-`.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

pub(super) fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// At most this many characters of the first line.
pub(super) fn short(text: &str, characters: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= characters && line.len() == text.trim_end().len() {
        return line.to_owned();
    }
    let cut: String = line.chars().take(characters.saturating_sub(1)).collect();
    format!("{cut}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(0, "now")]
    #[case(5, "5s ago")]
    #[case(3 * 60 + 59, "3m ago")]
    #[case(26 * 3600, "1d ago")]
    #[case(-7300, "in 2h")]
    fn times_are_relative(#[case] seconds: i64, #[case] expected: &str) {
        let now = DateTime::UNIX_EPOCH + chrono::Duration::days(9);
        assert_eq!(
            ago(Some(now - chrono::Duration::seconds(seconds)), now),
            expected
        );
    }

    #[rstest]
    #[case(None, "-")]
    #[case(Some(0.84), "0.8s")]
    #[case(Some(42.4), "42s")]
    #[case(Some(185.0), "3m 5s")]
    #[case(Some(7800.0), "2h 10m")]
    #[case(Some(273_700.0), "3d 4h")]
    fn lengths_have_two_units(#[case] seconds: Option<f64>, #[case] expected: &str) {
        assert_eq!(length(seconds), expected);
    }

    #[test]
    fn objects_show_what_they_have() {
        let object = json!({"a": 1, "long_name": "x", "none": null, "empty": [], "list": [1]});
        assert_eq!(
            fields(&object),
            "a          1\nlong_name  x\nlist       [1]"
        );
    }

    #[rstest]
    #[case("abc", "abc")]
    #[case("abcdef", "abc…")]
    #[case("ab\ncd", "ab…")]
    fn texts_are_cut(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(short(text, 4), expected);
    }
}
