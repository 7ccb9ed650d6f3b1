//! The `sql` task.

use super::{COUNT, Table, Ty, key};
use crate::template::analysis::ROW_NAMES;

pub(crate) static SQL: Table = Table {
    name: "an sql task",
    keys: &[
        key("connection", Ty::Template, "Id of the connection: Postgres, MySQL (MariaDB) or SQLite.").required(),
        key(
            "statements",
            Ty::OneOrMany(&Ty::Template),
            "Run in order, in one transaction; a text may hold several, with `;` between them.",
        ),
        key("file", Ty::Text, "Instead: a script in the bundle, taken as it is (no template)."),
        key(
            "parameters",
            Ty::Json,
            "Bound, never pasted: a mapping to `:name`, or a list to `$1` (MySQL and SQLite: `?`).",
        ),
        key(
            "output",
            Ty::Enum(&["rows", "value", "count", "none"]),
            "The return value, of the last statement: its rows as mappings, its first value, or how many rows it returned or changed.",
        )
        .default("none"),
        key("max_rows", COUNT, "More rows than that fail the task, if its rows are asked for.").default("1000"),
        key(
            "checks",
            Ty::OneOrMany(&Ty::Expression(&ROW_NAMES)),
            "All have to be true, or all is rolled back; they see `rows` and `count` of the last statement beside the usual names.",
        ),
        key("autocommit", Ty::Bool, "No transaction: each statement stands for itself.").default("false"),
    ],
    exclusive: &[&["statements", "file"]],
};
