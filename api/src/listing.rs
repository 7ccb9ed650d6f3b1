//! Filters, order and pages of listings, as Airflow's API names them: `start_date_gte`, `run_id_pattern`,
//! `order_by=-start_date`, `cursor`.

pub(crate) mod batch;
mod cursor;
mod small;

pub(crate) use cursor::Turned;
pub(crate) use small::Small;

use crate::{
    error::{ApiError, FieldError},
    extract::Query,
};
use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use gristmill_store::{Comparison, Condition, Operand, Order, Test};

/// Of which type a field's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Time,
    /// Seconds on the wire, microseconds in the store.
    Seconds,
}

/// How a listing's names map to the store's fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<F: 'static> {
    /// `NAME_gte`, `NAME_gt`, `NAME_lte`, `NAME_lt`.
    pub(crate) ranges: &'static [(&'static str, F, Kind)],
    /// `NAME_pattern` and `NAME_prefix_pattern`.
    pub(crate) patterns: &'static [(&'static str, F)],
    /// `NAME`, any number of times: one of these texts.
    pub(crate) texts: &'static [(&'static str, F)],
    /// `NAME`, any number of times: one of these numbers.
    pub(crate) numbers: &'static [(&'static str, F)],
    /// What no row has a value for, so that a filter by it finds nothing.
    pub(crate) never: &'static [&'static str],
    /// Values of `order_by`.
    pub(crate) order: &'static [(&'static str, F)],
    /// The row's key: what a filter by one of `never` is laid on, and the last part of every order.
    pub(crate) key: F,
}

impl<F: Copy> Names<F> {
    /// Every condition that the query has.
    pub(crate) fn conditions(&self, query: &Query) -> Result<Vec<Condition<F>>, ApiError> {
        let mut all = Vec::new();
        for (name, field, kind) in self.ranges {
            for (ending, comparison) in RANGES {
                let name = format!("{name}_{ending}");
                if let Some(text) = query.text(&name) {
                    let value = kind.operand(&name, text)?;
                    let test = Test::Compare(comparison, value);
                    all.push(Condition {
                        field: *field,
                        test,
                    });
                }
            }
        }
        for (name, field) in self.patterns {
            let like = query.text(&format!("{name}_pattern")).map(alternatives);
            if let Some(patterns) = like.filter(|patterns| !patterns.is_empty()) {
                let test = Test::Like(patterns);
                all.push(Condition {
                    field: *field,
                    test,
                });
            }
            let prefix = query
                .text(&format!("{name}_prefix_pattern"))
                .map(alternatives);
            if let Some(prefixes) = prefix.filter(|prefixes| !prefixes.is_empty()) {
                let test = Test::Prefix(prefixes);
                all.push(Condition {
                    field: *field,
                    test,
                });
            }
        }
        for (name, field) in self.texts {
            let values = query.all(name);
            if !values.is_empty() {
                let test = Test::OneOf(values.into_iter().map(Operand::Text).collect());
                all.push(Condition {
                    field: *field,
                    test,
                });
            }
        }
        for (name, field) in self.numbers {
            let numbers = query.numbers(name)?;
            if !numbers.is_empty() {
                let test = Test::OneOf(numbers.into_iter().map(Operand::Int).collect());
                all.push(Condition {
                    field: *field,
                    test,
                });
            }
        }
        if self.never.iter().any(|name| query.text(name).is_some()) {
            all.push(Condition {
                field: self.key,
                test: Test::OneOf(Vec::new()),
            });
        }
        Ok(all)
    }

    /// The order that the query asks for, ending with the key; empty when it asks for none.
    pub(crate) fn order(&self, query: &Query) -> Result<Vec<Order<F>>, ApiError> {
        let mut order = Vec::new();
        for by in query.all("order_by") {
            let (name, descending) = match by.strip_prefix('-') {
                Some(name) => (name, true),
                None => (by.as_str(), false),
            };
            let field = self
                .order
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, field)| *field)
                .ok_or_else(|| {
                    unknown_order(
                        name,
                        &self.order.iter().map(|(n, _)| *n).collect::<Vec<_>>(),
                    )
                })?;
            order.push(Order { field, descending });
        }
        if let Some(last) = order.last() {
            order.push(Order {
                field: self.key,
                descending: last.descending,
            });
        }
        Ok(order)
    }
}

const RANGES: [(&str, Comparison); 4] = [
    ("gte", Comparison::GreaterOrEqual),
    ("gt", Comparison::Greater),
    ("lte", Comparison::LessOrEqual),
    ("lt", Comparison::Less),
];

/// Airflow's refusal of an order.
pub(crate) fn unknown_order(name: &str, known: &[&str]) -> ApiError {
    ApiError::BadRequest(format!(
        "Ordering with '{name}' is disallowed or the attribute does not exist on the model; order_by takes {}",
        known.join(", ")
    ))
}

/// `a|b` is either; `~` is everything, which is no condition.
pub(crate) fn alternatives(pattern: &str) -> Vec<String> {
    if pattern == "~" {
        return Vec::new();
    }
    pattern.split('|').map(str::to_owned).collect()
}

impl Kind {
    fn operand(self, name: &str, text: &str) -> Result<Operand, ApiError> {
        match self {
            Self::Time => time(text).map(Operand::Time).ok_or_else(|| {
                let msg = "Input should be a valid datetime, as 2026-01-31T00:00:00Z".to_owned();
                ApiError::field(FieldError::query(name, msg, text))
            }),
            Self::Seconds => match text.parse::<f64>() {
                Ok(seconds) if seconds.is_finite() => {
                    Ok(Operand::Int((seconds * 1e6).round() as i64))
                }
                _ => {
                    let msg = "Input should be a valid number".to_owned();
                    Err(ApiError::field(FieldError::query(name, msg, text)))
                }
            },
        }
    }
}

/// A time as clients write it in a query: with an offset (also `+0000`), with none (UTC), or a date only. A `+` that was
/// not encoded arrives as a space.
pub(crate) fn time(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim().replace(' ', "+");
    if let Ok(time) = DateTime::parse_from_rfc3339(&text) {
        return in_range(time.to_utc());
    }
    if let Ok(time) = DateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S%.f%z") {
        return in_range(time.to_utc());
    }
    if let Ok(time) = NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S%.f") {
        return in_range(time.and_utc());
    }
    let date = NaiveDate::parse_from_str(&text, "%Y-%m-%d").ok()?;
    in_range(date.and_hms_opt(0, 0, 0)?.and_utc())
}

/// Databases keep fewer years than the clock's type.
fn in_range(time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    use chrono::Datelike;
    (1..=9999).contains(&time.year()).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("2026-01-31T00:00:00Z")]
    #[case("2026-01-31T00:00:00.000000+0000")]
    #[case("2026-01-31T09:00:00+09:00")]
    #[case("2026-01-31T00:00:00 00:00")]
    #[case("2026-01-31T00:00:00")]
    #[case("2026-01-31")]
    fn times_are_read_as_clients_write_them(#[case] text: &str) {
        let expected = DateTime::from_timestamp(1_769_817_600, 0);
        assert_eq!(time(text), expected, "{text}");
    }

    #[rstest]
    #[case("")]
    #[case("yesterday")]
    #[case("2026-13-01")]
    #[case("99999-01-01T00:00:00Z")]
    #[case("-0001-01-01T00:00:00Z")]
    fn other_text_is_no_time(#[case] text: &str) {
        assert_eq!(time(text), None);
    }

    #[test]
    fn a_bar_parts_patterns_and_a_tilde_is_everything() {
        assert_eq!(alternatives("a|b%"), ["a", "b%"]);
        assert!(alternatives("~").is_empty());
    }
}
