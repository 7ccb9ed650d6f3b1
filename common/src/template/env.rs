//! The one environment of the process, and the names that exist in every template.

use super::filters;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, syntax::SyntaxConfig};
use std::sync::OnceLock;

/// Steps that one rendering may take: far more than any sensible template, few enough to end within a second.
const FUEL: u64 = 2_000_000;
/// Nested macro calls.
const RECURSION: usize = 50;

/// Names that exist in every template.
pub(crate) const ROOTS: [&str; 22] = [
    "conn",
    "dag",
    "dag_run",
    "data_interval_end",
    "data_interval_start",
    "ds",
    "ds_nodash",
    "logical_date",
    "macros",
    "map",
    "map_index",
    "params",
    "run_id",
    "task",
    "task_instance",
    "ti",
    "triggering_asset_events",
    "ts",
    "ts_nodash",
    "ts_nodash_with_tz",
    "try_number",
    "var",
];

/// The fields of each object whose fields are fixed.
pub(crate) const FIELDS: [(&str, &[&str]); 7] = [
    ("dag", &["dag_id"]),
    (
        "dag_run",
        &[
            "conf",
            "dag_id",
            "data_interval_end",
            "data_interval_start",
            "logical_date",
            "queued_at",
            "run_after",
            "run_id",
            "run_type",
            "start_date",
        ],
    ),
    (
        "macros",
        &["datetime", "ds_add", "ds_format", "json", "uuid5"],
    ),
    ("task", &["task_id"]),
    ("task_instance", TI),
    ("ti", TI),
    ("var", &["json", "value"]),
];

const TI: &[&str] = &[
    "dag_id",
    "map_index",
    "max_tries",
    "run_id",
    "task_id",
    "try_number",
    "xcom_pull",
];

/// Created on first use and shared: it holds no template, so nothing in it grows.
pub(crate) fn environment<'a>() -> &'a Environment<'a> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        // Nothing here is HTML.
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_syntax(syntax());
        env.set_fuel(Some(FUEL));
        env.set_recursion_limit(RECURSION);
        // Keeps the position of what went wrong.
        env.set_debug(true);
        env.set_unknown_method_callback(super::pycompat::call);
        filters::add_to(&mut env);
        env
    })
}

/// Jinja's own, but a line break at the end of a text stays.
pub(crate) fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder()
        .keep_trailing_newline(true)
        .build()
        .unwrap_or_default()
}
