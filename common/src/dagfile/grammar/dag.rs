//! The top level.

use super::{Key, POSITIVE, Table, Ty, callbacks, key, later};

pub(crate) static DAG: Table = Table {
    name: "a DAG",
    keys: KEYS,
    exclusive: &[],
};

static KEYS: &[Key] = &[
    key("format", Ty::Int { min: 1, max: 1 }, "Version of this grammar.").default("1"),
    key("dag_id", Ty::Name, "Unique in the deployment.").required(),
    key("description", Ty::Text, "One line for lists.").nullable(),
    key("doc_md", Ty::Text, "Markdown for the DAG's page.").nullable(),
    key("owner", Ty::Text, "Whom to ask.").nullable(),
    key("tags", Ty::OneOrMany(&Ty::Text), "For filters in lists."),
    key("schedule", Ty::Schedule, "When runs are made; null: only when triggered.").nullable().default("null"),
    key("timezone", Ty::Timezone, "Of the schedule, and of dates without an offset.").default("UTC"),
    key("start_date", Ty::Date, "No scheduled run has an earlier logical date. Without it, schedules start at the deployment.")
        .nullable(),
    key("end_date", Ty::Date, "No scheduled run has a later logical date.").nullable(),
    key("catchup", Ty::Bool, "Whether missed runs are all made up for, or only the latest.").default("false"),
    key("data_interval", Ty::Enum(&["preceding", "none"]), "The interval that a scheduled run covers: the one before its tick, or none.")
        .default("preceding"),
    key("max_active_runs", POSITIVE, "Runs in state running at one time.").default("16"),
    key("max_active_tasks", POSITIVE, "Task instances of one run that hold slots at one time.").default("16"),
    key("dagrun_timeout", Ty::Span, "A run that takes longer is failed.").nullable(),
    key("is_paused_upon_creation", Ty::Bool, "Whether a new DAG starts paused.").default("false"),
    key("params", Ty::Params, "Parameters of a run."),
    key("default_args", Ty::DefaultArgs, "Task keys for all tasks that do not give them."),
    key("tasks", Ty::Tasks, "What runs.").required(),
    key("fail_fast", Ty::Bool, "The first failed task ends the run; teardowns still run.").default("false"),
    key("max_consecutive_failed_dag_runs", Ty::Int { min: 0, max: i32::MAX as i64 }, "Pauses the DAG after so many failed runs in a row; 0: never.")
        .default("0"),
    key("overlap", Ty::Enum(&["queue", "skip", "cancel"]), "What a due run does while max_active_runs are active: waits, is skipped, or cancels the oldest.")
        .default("queue"),
    key("jitter", Ty::Span, "Scheduled runs start up to this much later, by a hash of the DAG's id.").nullable(),
    key("concurrency", Ty::Object(&later::CONCURRENCY), "A limit shared by the DAG's runs whose key is the same."),
    key("deadlines", Ty::List(&Ty::Object(&callbacks::DEADLINE)), "Alerts when a run is later than it should be."),
    key("on_success", Ty::OneOrMany(&Ty::Object(&callbacks::CALLBACK)), "Called when a run succeeded."),
    key("on_failure", Ty::OneOrMany(&Ty::Object(&callbacks::CALLBACK)), "Called when a run failed."),
];
