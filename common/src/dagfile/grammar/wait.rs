//! Tasks that wait without a worker: `sensor`, `trigger_dag`, `approval`.

use super::{Table, Ty, key};

const STATES: &[&str] = &["success", "failed", "skipped", "upstream_failed", "running"];

/// What a sensor may wait for: exactly one of these keys.
pub(crate) const SENSOR_ON: &[&str] = &["time", "delta", "file", "http", "sql", "dag", "asset"];

pub(crate) static SENSOR: Table = Table {
    name: "a sensor",
    keys: &[
        key("time", Ty::Template, "Waits until this time."),
        key(
            "delta",
            Ty::Span,
            "Waits until so long after the data interval's end.",
        ),
        key(
            "file",
            Ty::Template,
            "Waits for a file or object: a path or an object store URL, with wildcards.",
        ),
        key(
            "http",
            Ty::Short("url", &super::http::HTTP),
            "Waits until a request is a success.",
        ),
        key(
            "sql",
            Ty::Object(&SQL_QUERY),
            "Waits until a query's first value is true.",
        ),
        key(
            "dag",
            Ty::Short("dag_id", &OTHER_DAG),
            "Waits for another DAG's run of the same date, or a task of it.",
        ),
        key(
            "asset",
            Ty::Short("name", &ASSET_UPDATE),
            "Waits for an update of an asset.",
        ),
        key("poke_interval", Ty::Span, "Between two looks.").default("60s"),
        key(
            "exponential_backoff",
            Ty::Bool,
            "Whether the interval doubles with each look.",
        )
        .default("false"),
        key("max_wait", Ty::Span, "The longest interval of a backoff.").nullable(),
        key("timeout", Ty::Span, "Failed so long after the first look.").default("7d"),
        key("soft_fail", Ty::Bool, "Skipped instead of failed.").default("false"),
    ],
    exclusive: &[SENSOR_ON],
};

pub(crate) static SQL_QUERY: Table = Table {
    name: "a query to wait for",
    keys: &[
        key("connection", Ty::Template, "Id of the connection: Postgres, MySQL or SQLite.").required(),
        key("query", Ty::Template, "One statement; its first row's first value has to be true: neither null, 0, false nor an empty text.")
            .required(),
        key("parameters", Ty::Json, "A list, bound to `$1`, `$2` … (MySQL: `?`, SQLite: `?1` …), never pasted."),
    ],
    exclusive: &[],
};

pub(crate) static ASSET_UPDATE: Table = Table {
    name: "an update to wait for",
    keys: &[
        key("name", Ty::AssetName, "The asset's.").required(),
        key("since", Ty::Template, "A time: updates from then on count.")
            .nullable()
            .default("the end of the data interval"),
    ],
    exclusive: &[],
};

pub(crate) static OTHER_DAG: Table = Table {
    name: "a DAG to wait for",
    keys: &[
        key("dag_id", Ty::Name, "Which.").required(),
        key("task_id", Ty::Name, "Only this task of it.").nullable(),
        key("offset", Ty::Span, "How much earlier its logical date is.").nullable(),
        key(
            "allowed_states",
            Ty::OneOrMany(&Ty::Enum(STATES)),
            "States that end the wait.",
        )
        .default("success"),
        key(
            "failed_states",
            Ty::OneOrMany(&Ty::Enum(STATES)),
            "States that fail the sensor.",
        )
        .default("failed"),
    ],
    exclusive: &[],
};

pub(crate) static TRIGGER_DAG: Table = Table {
    name: "a triggered DAG",
    keys: &[
        key("dag_id", Ty::Template, "Which.").required(),
        key(
            "conf",
            Ty::Json,
            "The run's conf: a mapping, or a template of one.",
        ),
        key("params", Ty::Json, "The same; laid over conf."),
        key(
            "run_id",
            Ty::Template,
            "The run's id; without it, one of its own for each try.",
        )
        .nullable(),
        key(
            "logical_date",
            Ty::Template,
            "The run's logical date; without it, now.",
        )
        .nullable(),
        key(
            "wait",
            Ty::Bool,
            "Waits for the run's end, without a worker.",
        )
        .default("false"),
        key(
            "propagate_failure",
            Ty::Bool,
            "With wait: fails if the run failed.",
        )
        .default("true"),
    ],
    exclusive: &[],
};

pub(crate) static APPROVAL: Table = Table {
    name: "an approval",
    keys: &[
        key(
            "who",
            Ty::OneOrMany(&Ty::Text),
            "Users who may answer, or roles: whoever has at least this one.",
        )
        .default("op"),
        key("prompt", Ty::Template, "What is asked.").nullable(),
        key("options", Ty::List(&Ty::Text), "Answers.").default("[approve, reject]"),
        key("timeout", Ty::Span, "How long an answer is waited for.").nullable(),
        key(
            "default",
            Ty::Text,
            "The answer after the timeout; without it, failed.",
        )
        .nullable(),
        key(
            "on_reject",
            Ty::Enum(&["skip", "fail", "succeed"]),
            "What the answer `reject` ends the task as.",
        )
        .default("skip"),
        key(
            "on_waiting",
            Ty::OneOrMany(&Ty::Object(&super::callbacks::CALLBACK)),
            "Called when the wait starts.",
        ),
    ],
    exclusive: &[],
};
