//! Listings of what is few (pools, variables, tags, …): all are read, and filtered, ordered and cut here.

use super::{alternatives, time, unknown_order};
use crate::{
    error::{ApiError, FieldError},
    extract::Query,
};
use axum::Json;
use serde_json::{Value, json};
use std::cmp::Ordering;

/// What such a listing is called, and what it can be filtered and ordered by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Small {
    /// The answer's key.
    pub(crate) name: &'static str,
    /// `NAME_pattern` and `NAME_prefix_pattern`, over a row's key.
    pub(crate) patterns: &'static [(&'static str, &'static str)],
    /// `NAME`, over a row's key: one of these texts.
    pub(crate) texts: &'static [(&'static str, &'static str)],
    /// `NAME_gte` and so on, over a row's time.
    pub(crate) times: &'static [(&'static str, &'static str)],
    /// Values of `order_by`, each with a row's key.
    pub(crate) order: &'static [(&'static str, &'static str)],
}

impl Small {
    /// The page that the query asks for, with the number of all that it matches.
    pub(crate) fn answer(&self, query: &Query, rows: Vec<Value>) -> Result<Json<Value>, ApiError> {
        let (rows, total) = self.page(query, rows)?;
        Ok(Json(json!({ self.name: rows, "total_entries": total })))
    }

    /// Whether the query has anything but a page to ask for.
    pub(crate) fn asks(&self, query: &Query) -> bool {
        let has = |name: &str| query.text(name).is_some();
        let patterns = self.patterns.iter().any(|(name, _)| {
            has(&format!("{name}_pattern")) || has(&format!("{name}_prefix_pattern"))
        });
        let times = self.times.iter().any(|(name, _)| {
            RANGES
                .iter()
                .any(|(ending, _)| has(&format!("{name}_{ending}")))
        });
        patterns || times || self.texts.iter().any(|(name, _)| has(name)) || has("order_by")
    }

    /// All that the query matches: of what comes without pages.
    pub(crate) fn whole(&self, query: &Query, rows: Vec<Value>) -> Result<Json<Value>, ApiError> {
        let mut rows = self.matching(query, rows);
        self.keep_times(query, &mut rows)?;
        self.sort(query, &mut rows)?;
        let total = rows.len();
        Ok(Json(json!({ self.name: rows, "total_entries": total })))
    }

    /// The rows of the page that the query asks for, and the number of all that it matches.
    pub(crate) fn page(
        &self,
        query: &Query,
        rows: Vec<Value>,
    ) -> Result<(Vec<Value>, usize), ApiError> {
        let (limit, offset) = query.page()?;
        let mut rows = self.matching(query, rows);
        self.keep_times(query, &mut rows)?;
        self.sort(query, &mut rows)?;
        let total = rows.len();
        let page = rows
            .into_iter()
            .skip(usize::try_from(offset).unwrap_or(usize::MAX))
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .collect();
        Ok((page, total))
    }

    fn matching(&self, query: &Query, mut rows: Vec<Value>) -> Vec<Value> {
        for (name, key) in self.patterns {
            let of = |ending: &str| {
                let given = query.text(&format!("{name}_{ending}"));
                given.map(alternatives).filter(|all| !all.is_empty())
            };
            if let Some(patterns) = of("pattern") {
                rows.retain(|row| patterns.iter().any(|p| is_like(text(row, key), p)));
            }
            if let Some(prefixes) = of("prefix_pattern") {
                rows.retain(|row| prefixes.iter().any(|p| text(row, key).starts_with(p)));
            }
        }
        for (name, key) in self.texts {
            let wanted = query.all(name);
            if !wanted.is_empty() {
                rows.retain(|row| wanted.iter().any(|w| text(row, key) == w));
            }
        }
        rows
    }

    fn keep_times(&self, query: &Query, rows: &mut Vec<Value>) -> Result<(), ApiError> {
        for (name, key) in self.times {
            for (ending, fits) in RANGES {
                let name = format!("{name}_{ending}");
                let Some(given) = query.text(&name) else {
                    continue;
                };
                let bound = time(given).ok_or_else(|| {
                    let msg = "Input should be a valid datetime".to_owned();
                    ApiError::field(FieldError::query(&name, msg, given))
                })?;
                rows.retain(|row| time(text(row, key)).is_some_and(|at| fits(at.cmp(&bound))));
            }
        }
        Ok(())
    }

    fn sort(&self, query: &Query, rows: &mut [Value]) -> Result<(), ApiError> {
        // The last is the least; sorting is stable.
        for by in query.all("order_by").into_iter().rev() {
            let (name, descending) = match by.strip_prefix('-') {
                Some(name) => (name, true),
                None => (by.as_str(), false),
            };
            let key = self
                .order
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, key)| *key)
                .ok_or_else(|| {
                    unknown_order(
                        name,
                        &self.order.iter().map(|(n, _)| *n).collect::<Vec<_>>(),
                    )
                })?;
            rows.sort_by(|a, b| {
                let order = compare(&a[key], &b[key]);
                if descending { order.reverse() } else { order }
            });
        }
        Ok(())
    }
}

/// Whether a time that compares so with the bound is within it.
type Fits = fn(Ordering) -> bool;

const RANGES: [(&str, Fits); 4] = [
    ("gte", Ordering::is_ge),
    ("gt", Ordering::is_gt),
    ("lte", Ordering::is_le),
    ("lt", Ordering::is_lt),
];

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}

/// Values of one key: numbers, texts, flags; null comes last, as in PostgreSQL.
fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Greater,
        (_, Value::Null) => Ordering::Less,
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap_or(0.0), b.as_f64().unwrap_or(0.0));
            a.total_cmp(&b)
        }
        _ => Ordering::Equal,
    }
}

/// SQL's `ILIKE '%PATTERN%'`.
pub(crate) fn is_like(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let pattern: Vec<char> = format!("%{}%", pattern.to_lowercase()).chars().collect();
    // Where to go on from when the rest does not fit: after the last `%`, one character further.
    let (mut t, mut p, mut again) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('%') => {
                again = Some((p + 1, t));
                p += 1;
            }
            Some(c) if *c == '_' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match again {
                Some((after, from)) => {
                    again = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '%')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const POOLS: Small = Small {
        name: "pools",
        patterns: &[("pool_name", "name")],
        texts: &[],
        times: &[],
        order: &[("name", "name"), ("slots", "slots")],
    };

    fn names(query: &str) -> Vec<String> {
        let rows = [("a_b", 3), ("axb", 1), ("c", 3)]
            .map(|(name, slots)| json!({ "name": name, "slots": slots }));
        let (rows, _) = POOLS.page(&Query::of(query), rows.to_vec()).unwrap();
        rows.iter()
            .map(|row| text(row, "name").to_owned())
            .collect()
    }

    #[rstest]
    #[case("", &["a_b", "axb", "c"])]
    #[case("pool_name_pattern=A_b", &["a_b", "axb"])]
    #[case("pool_name_pattern=x|c", &["axb", "c"])]
    #[case("pool_name_pattern=~", &["a_b", "axb", "c"])]
    #[case("pool_name_prefix_pattern=a_", &["a_b"])]
    #[case("order_by=-slots&order_by=-name", &["c", "a_b", "axb"])]
    #[case("limit=1&offset=1", &["axb"])]
    #[case("limit=0", &[])]
    fn pages(#[case] query: &str, #[case] expected: &[&str]) {
        assert_eq!(names(query), expected, "{query}");
    }

    #[rstest]
    #[case("daily_sales", "sales", true)]
    #[case("daily_sales", "d%y_S_l", true)]
    #[case("daily_sales", "d%z", false)]
    #[case("", "", true)]
    #[case("abab", "aba_", true)]
    #[case("x", "'; DROP TABLE dags --", false)]
    fn patterns_are_sqls(#[case] text: &str, #[case] pattern: &str, #[case] fits: bool) {
        assert_eq!(is_like(text, pattern), fits);
    }

    #[test]
    fn an_unknown_order_is_named() {
        let refused = POOLS.page(&Query::of("order_by=colour"), Vec::new());
        assert!(refused.is_err_and(|e| e.to_string().contains("'colour'")));
    }
}
