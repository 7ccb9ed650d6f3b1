//! Callbacks and deadlines.

use super::{Table, Ty, key};

pub(crate) static CALLBACK: Table = Table {
    name: "a callback",
    keys: &[
        key(
            "webhook",
            Ty::Template,
            "URL that is asked: absolute, or a path below the connection's host. Without it, the connection's `extra.url`.",
        ),
        key(
            "method",
            Ty::Enum(&["POST", "PUT", "PATCH"]),
            "HTTP method.",
        )
        .default("POST"),
        key("headers", Ty::Dict(&Ty::Template), "Request headers."),
        key(
            "connection",
            Ty::Text,
            "Id of the connection that gives host and credentials; opened at each delivery.",
        ),
        key(
            "template",
            Ty::Enum(&["json", "slack"]),
            "The body: all that is known of the event, or `{\"text\": message}`.",
        )
        .default("json"),
        key(
            "message",
            Ty::Template,
            "What it says, instead of a line such as `d: load failed: exit code 1`.",
        ),
        key("timeout", Ty::Span, "Of one delivery; at most 1m.").default("10s"),
        key("shell", Ty::Template, "Or: a command, run by a worker.").not_yet(),
    ],
    exclusive: &[&["webhook", "shell"]],
};

pub(crate) static DEADLINE: Table = Table {
    name: "a deadline",
    keys: &[
        key(
            "reference",
            Ty::Enum(&["queued", "logical_date", "start", "average_runtime"]),
            "What of the run it counts from; `average_runtime`: its start and the average time of the DAG's last ten successful runs.",
        ),
        key("after", Ty::Span, "How long after it.").default("0s"),
        key("at", Ty::Date, "Instead of a reference: this time."),
        key(
            "call",
            Ty::OneOrMany(&Ty::Object(&CALLBACK)),
            "What is called when it is missed.",
        )
        .required(),
    ],
    exclusive: &[&["reference", "at"]],
};

/// All of them, for the docs.
#[cfg(test)]
pub(crate) static TABLES: &[&Table] = &[&CALLBACK, &DEADLINE];
