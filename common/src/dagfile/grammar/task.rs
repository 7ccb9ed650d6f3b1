//! Tasks: the keys that all have, and one key that says what the task does.

use super::{
    COUNT, Key, POSITIVE, Table, Ty, assets, callbacks, data, flow, http, key, later, results,
    shell, sql, wait,
};
use crate::trigger_rule::TriggerRule;

pub(crate) static TASK: Table = Table {
    name: "a task",
    keys: KEYS,
    exclusive: &[&["expand", "expand_kwargs", "expand_zip"]],
};

const EXPAND: Key = key(
    "expand",
    Ty::Expand,
    "Runs once per item of a list (of several lists: per combination).",
);
const EXPAND_KWARGS: Key = key(
    "expand_kwargs",
    Ty::ExpandItems,
    "Runs once per item of a list of mappings; each is the instance's map variables.",
);
const EXPAND_ZIP: Key = key(
    "expand_zip",
    Ty::Expand,
    "Like expand, but the lists, equally long, go side by side.",
);

/// What makes a group a mapped one.
pub(crate) static GROUP_MAPPING: Table = Table {
    name: "a group",
    keys: &[EXPAND, EXPAND_KWARGS, EXPAND_ZIP],
    exclusive: TASK.exclusive,
};

pub(crate) static GROUP: Table = Table {
    name: "a group",
    keys: &[
        key(
            "tasks",
            Ty::Tasks,
            "The members; their ids become `group.task`.",
        )
        .required(),
        key(
            "default_args",
            Ty::DefaultArgs,
            "Task keys for all members that do not give them; before those of the DAG.",
        ),
        EXPAND,
        EXPAND_KWARGS,
        EXPAND_ZIP,
    ],
    exclusive: &[],
};

pub(crate) static RETRY_RULE: Table = Table {
    name: "a retry rule",
    keys: &[
        key(
            "exit_code",
            Ty::OneOrMany(&Ty::Int { min: 0, max: 255 }),
            "shell: codes that it is about.",
        ),
        key(
            "status",
            Ty::OneOrMany(&Ty::Int { min: 100, max: 599 }),
            "http: status codes.",
        ),
        key(
            "output",
            Ty::Text,
            "A regular expression, looked for in the last line of the output and of the errors, and in the beginning of an http answer.",
        ),
        key(
            "then",
            Ty::Enum(&["retry", "fail", "skip"]),
            "What follows: another try while `retries` remain, a failure for good, or skipped.",
        )
        .required(),
        key(
            "delay",
            Ty::Span,
            "With retry: this wait instead of `retry_delay`.",
        ),
    ],
    exclusive: &[],
};

static NOTHING: Table = Table {
    name: "an empty mapping",
    keys: &[],
    exclusive: &[],
};

/// Those that have a section of their own in the docs.
#[cfg(test)]
pub(crate) static TABLES: &[&Table] = &[
    &super::DAG,
    &TASK,
    &GROUP,
    &RETRY_RULE,
    &shell::SHELL,
    &shell::RESOURCES,
    &http::HTTP,
    &http::EXPECT,
    &sql::SQL,
    &data::DATA,
    &data::SOURCE,
    &data::PARTITIONS,
    &data::RESOURCES,
    &data::SINK,
    &flow::BRANCH,
    &flow::SHORT_CIRCUIT,
    &flow::TEARDOWN,
    &flow::SUB_DAG,
    &wait::SENSOR,
    &wait::SQL_QUERY,
    &wait::OTHER_DAG,
    &wait::ASSET_UPDATE,
    &results::CACHE,
    &wait::TRIGGER_DAG,
    &wait::APPROVAL,
    &assets::ASSET,
    &assets::SCHEDULE,
];

const TRIGGER_RULES: [&str; 13] = {
    let mut names = [""; 13];
    let mut i = 0;
    while i < names.len() {
        names[i] = TriggerRule::ALL[i].1;
        i += 1;
    }
    names
};

const WEIGHT: Ty = Ty::Int {
    min: i32::MIN as i64,
    max: i32::MAX as i64,
};

static KEYS: &[Key] = &[
    key(
        "shell",
        Ty::Short("command", &shell::SHELL),
        "Runs a command.",
    )
    .kind(),
    key(
        "http",
        Ty::Short("url", &http::HTTP),
        "Makes an HTTP request.",
    )
    .kind(),
    key(
        "data",
        Ty::Object(&data::DATA),
        "Runs SQL over partitioned files.",
    )
    .kind(),
    key(
        "empty",
        Ty::Object(&NOTHING),
        "Does nothing, without a worker: a place to join or to name.",
    )
    .nullable()
    .kind(),
    key(
        "noop",
        Ty::Object(&NOTHING),
        "A worker takes it and does nothing: for load tests.",
    )
    .nullable()
    .kind(),
    key("group", Ty::Object(&GROUP), "Holds tasks.").kind(),
    key(
        "sql",
        Ty::Object(&sql::SQL),
        "Runs SQL statements over a connection.",
    )
    .kind(),
    key(
        "branch",
        Ty::Short("choose", &flow::BRANCH),
        "Chooses which of its downstreams run.",
    )
    .kind(),
    key(
        "short_circuit",
        Ty::Short("condition", &flow::SHORT_CIRCUIT),
        "Skips what is downstream unless a condition holds.",
    )
    .kind(),
    key(
        "latest_only",
        Ty::Object(&NOTHING),
        "Skips what is downstream in all runs but manual ones and the latest scheduled one.",
    )
    .nullable()
    .kind(),
    key(
        "sensor",
        Ty::Object(&wait::SENSOR),
        "Waits for something, without a worker's slot.",
    )
    .kind(),
    key(
        "approval",
        Ty::Object(&wait::APPROVAL),
        "Waits for a person.",
    )
    .kind(),
    key(
        "trigger_dag",
        Ty::Short("dag_id", &wait::TRIGGER_DAG),
        "Triggers a run of another DAG.",
    )
    .kind(),
    key(
        "sub_dag",
        Ty::Short("file", &flow::SUB_DAG),
        "Another DAG file, as a group.",
    )
    .kind(),
    key(
        "depends_on",
        Ty::OneOrMany(&Ty::Name),
        "Direct upstreams: ids of tasks, groups or data tasks.",
    )
    .default("[]"),
    key(
        "trigger_rule",
        Ty::Enum(&TRIGGER_RULES),
        "When it runs, given how its upstreams ended.",
    )
    .default("all_success")
    .inherited(),
    EXPAND,
    EXPAND_KWARGS,
    EXPAND_ZIP,
    key(
        "map_index_template",
        Ty::Template,
        "Names the instances of a mapped task, over the run, params, map and map_index.",
    ),
    key("retries", COUNT, "Attempts after a failed one.")
        .default("0")
        .inherited(),
    key("retry_delay", Ty::Span, "Wait before a retry.")
        .default("300s")
        .inherited(),
    key(
        "retry_exponential_backoff",
        Ty::Number,
        "Multiplies the wait with each failure; 0: constant.",
    )
    .default("0")
    .inherited(),
    key("max_retry_delay", Ty::Span, "The longest wait.")
        .nullable()
        .inherited(),
    key(
        "retry_rules",
        Ty::List(&Ty::Object(&RETRY_RULE)),
        "What failures of certain kinds lead to; the first rule that fits decides.",
    )
    .inherited(),
    key(
        "execution_timeout",
        Ty::Span,
        "An attempt that takes longer is stopped and failed.",
    )
    .nullable()
    .inherited(),
    key(
        "queued_timeout",
        Ty::Span,
        "Failed if no worker takes it for so long after it was sent to its queue.",
    )
    .nullable()
    .inherited(),
    key(
        "queue",
        Ty::Template,
        "Which workers run it: a template over params and map.",
    )
    .default("default")
    .inherited(),
    key("pool", Ty::Name, "Whose slots it takes.")
        .default("default_pool")
        .inherited(),
    key(
        "pool_slots",
        Ty::Int {
            min: 1,
            max: i32::MAX as i64,
        },
        "How many it takes.",
    )
    .default("1")
    .inherited(),
    key("priority_weight", WEIGHT, "Higher goes first.")
        .default("1")
        .inherited(),
    key(
        "weight_rule",
        Ty::Enum(&["downstream", "upstream", "absolute"]),
        "Whose weights are added to its own.",
    )
    .default("downstream")
    .inherited(),
    key(
        "depends_on_past",
        Ty::Bool,
        "Waits until it succeeded, or was skipped, in the run before: the one of the last logical date before its own.",
    )
    .default("false")
    .inherited(),
    key(
        "wait_for_downstream",
        Ty::Bool,
        "depends_on_past, also of its direct downstreams there.",
    )
    .default("false")
    .inherited(),
    key(
        "max_active_tis_per_dag",
        POSITIVE,
        "Instances of it that hold slots at one time, over all runs.",
    )
    .nullable()
    .inherited(),
    key(
        "max_active_tis_per_dagrun",
        POSITIVE,
        "The same within one run.",
    )
    .nullable()
    .inherited(),
    key(
        "env",
        Ty::Dict(&Ty::Template),
        "Environment of the command (shell). default_args adds variables that a task does not set.",
    )
    .inherited(),
    key("doc_md", Ty::Text, "Markdown for the task's page.").nullable(),
    key(
        "setup",
        Ty::Bool,
        "Prepares something for what is downstream of it.",
    )
    .default("false"),
    key(
        "teardown",
        Ty::Short("setups", &flow::TEARDOWN),
        "Cleans up after setups, whatever happened in between.",
    )
    .nullable(),
    key(
        "inlets",
        Ty::OneOrMany(&Ty::Short("name", &assets::ASSET)),
        "Assets that it reads.",
    ),
    key(
        "outlets",
        Ty::OneOrMany(&Ty::Short("name", &assets::ASSET)),
        "Assets that it updates: its success is an event of each.",
    ),
    key(
        "artifacts",
        Ty::OneOrMany(&Ty::Template),
        "Files kept in the store after success: paths or patterns below `$GRISTMILL_ARTIFACTS` (shell).",
    ),
    key(
        "inputs",
        Ty::OneOrMany(&Ty::Name),
        "Upstreams whose artifacts are fetched to `$GRISTMILL_INPUTS` before the command starts (shell).",
    ),
    key(
        "cache",
        Ty::Short("key", &results::CACHE),
        "Reuses an earlier success's values and artifacts (shell, http, sql).",
    ),
    key(
        "concurrency",
        Ty::Object(&later::CONCURRENCY),
        "A limit shared by instances whose key is the same, in all DAGs.",
    )
    .inherited(),
    key(
        "deadlines",
        Ty::List(&Ty::Object(&callbacks::DEADLINE)),
        "Alerts when the task has not ended in time.",
    ),
    key(
        "on_success",
        Ty::OneOrMany(&Ty::Object(&callbacks::CALLBACK)),
        "Called when it succeeded.",
    )
    .inherited(),
    key(
        "on_failure",
        Ty::OneOrMany(&Ty::Object(&callbacks::CALLBACK)),
        "Called when it failed for good.",
    )
    .inherited(),
    key(
        "on_retry",
        Ty::OneOrMany(&Ty::Object(&callbacks::CALLBACK)),
        "Called when it failed and will be tried again.",
    )
    .inherited(),
    key(
        "on_skipped",
        Ty::OneOrMany(&Ty::Object(&callbacks::CALLBACK)),
        "Called when it skipped itself (not when a branch or its trigger rule skipped it).",
    )
    .inherited(),
];
