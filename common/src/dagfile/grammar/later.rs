//! What the grammar holds and the parser refuses as not built yet: specified, so that it can be built without a change
//! of format.

use super::{COUNT, POSITIVE, Table, Ty, key};

macro_rules! tables {
    ($($name:ident $title:literal [$($key:expr),* $(,)?])*) => {
        $(pub(crate) static $name: Table = Table { name: $title, keys: &[$($key),*], exclusive: &[] };)*
        /// All of them, for the docs.
        #[cfg(test)]
        pub(crate) static TABLES: &[&Table] = &[$(&$name),*];
    };
}

tables! {
    SENSOR "a sensor" [
        key("time", Ty::Template, "Waits until this time."),
        key("delta", Ty::Span, "Waits until so long after the data interval's end."),
        key("file", Ty::Template, "Waits for a file or object (glob, object store URL)."),
        key("http", Ty::Short("url", &super::http::HTTP), "Waits until a request is a success."),
        key("sql", Ty::Object(&SQL), "Waits until a query's first value is true."),
        key("dag", Ty::Object(&SENSOR_DAG), "Waits for another DAG's run, or a task of it."),
        key("asset", Ty::Text, "Waits for an asset's update."),
        key("poke_interval", Ty::Span, "Between two looks.").default("60s"),
        key("exponential_backoff", Ty::Bool, "Whether the interval doubles.").default("false"),
        key("max_wait", Ty::Span, "The longest interval."),
        key("timeout", Ty::Span, "Failed after so long.").default("7d"),
        key("soft_fail", Ty::Bool, "Skipped instead of failed.").default("false"),
    ]
    SENSOR_DAG "a DAG to wait for" [
        key("dag_id", Ty::Name, "Which.").required(),
        key("task_id", Ty::Name, "Only this task of it."),
        key("offset", Ty::Span, "How much earlier its logical date is."),
        key("allowed_states", Ty::OneOrMany(&Ty::Text), "States that end the wait.").default("success"),
        key("failed_states", Ty::OneOrMany(&Ty::Text), "States that fail the sensor.").default("failed"),
    ]
    APPROVAL "an approval" [
        key("who", Ty::OneOrMany(&Ty::Text), "Users or roles that may answer.").default("op"),
        key("prompt", Ty::Template, "What is asked."),
        key("options", Ty::List(&Ty::Text), "Answers.").default("[approve, reject]"),
        key("timeout", Ty::Span, "How long an answer is waited for."),
        key("default", Ty::Text, "The answer after the timeout; without it, failed."),
        key("on_waiting", Ty::OneOrMany(&Ty::Object(&CALLBACK)), "Called when the wait starts."),
    ]
    TRIGGER_DAG "a triggered DAG" [
        key("dag_id", Ty::Template, "Which.").required(),
        key("conf", Ty::Json, "The run's conf."),
        key("params", Ty::Json, "The run's params."),
        key("run_id", Ty::Template, "The run's id."),
        key("logical_date", Ty::Template, "The run's logical date."),
        key("wait", Ty::Bool, "Waits for the run's end, without a worker.").default("false"),
        key("propagate_failure", Ty::Bool, "With wait: fails if the run failed.").default("true"),
    ]
    SUB_DAG "a DAG file as a group" [
        key("file", Ty::Text, "The file, relative to this one.").required(),
        key("params", Ty::Json, "Values of its parameters."),
    ]
    SQL "an sql task" [
        key("connection", Ty::Template, "Postgres, MySQL or SQLite.").required(),
        key("statements", Ty::OneOrMany(&Ty::Template), "Run in one transaction."),
        key("file", Ty::Text, "A script in the bundle instead."),
        key("parameters", Ty::Json, "Bound, never pasted."),
        key("output", Ty::Enum(&["rows", "count", "none"]), "The return value.").default("none"),
        key("max_rows", COUNT, "Rows kept at most.").default("1000"),
        key("check", Ty::Expression(&["rows", "count"]), "Has to be true."),
    ]
    RETRY_RULE "a retry rule" [
        key("exit_code", Ty::OneOrMany(&Ty::Int { min: 0, max: 255 }), "shell: codes that it is about."),
        key("status", Ty::OneOrMany(&Ty::Int { min: 100, max: 599 }), "http: status codes."),
        key("output", Ty::Text, "A pattern in the last output."),
        key("then", Ty::Enum(&["retry", "fail", "skip"]), "What follows.").required(),
        key("delay", Ty::Span, "With retry: this wait."),
    ]
    CONCURRENCY "a shared limit" [
        key("key", Ty::Template, "Those with the same key share it.").required(),
        key("limit", POSITIVE, "How many at one time.").default("1"),
        key("strategy", Ty::Enum(&["queue", "cancel_running", "cancel_new"]), "What the next one does.").default("queue"),
    ]
    CACHE "a cache" [
        key("key", Ty::Template, "The same key: the same result.").required(),
        key("ttl", Ty::Span, "How long a result is good.").default("1d"),
    ]
    DEADLINE "a deadline" [
        key("reference", Ty::Enum(&["queued", "logical_date", "start", "average_runtime"]), "What it counts from.").required(),
        key("after", Ty::Span, "How long after it.").required(),
        key("call", Ty::OneOrMany(&Ty::Object(&CALLBACK)), "What is called.").required(),
    ]
    CALLBACK "a callback" [
        key("webhook", Ty::Template, "URL that gets a POST."),
        key("connection", Ty::Text, "Gives the webhook's credentials."),
        key("template", Ty::Enum(&["json", "slack"]), "The webhook's body.").default("json"),
        key("shell", Ty::Template, "Or: a command, run by a worker."),
    ]
    ASSETS "a schedule by assets" [
        key("all", Ty::List(&Ty::Text), "A run once each of them was updated."),
        key("any", Ty::List(&Ty::Text), "A run once any of them was."),
        key("cron", Ty::Text, "And at these times too."),
    ]
}
