//! Tasks that decide what runs after them, and tasks that prepare and clean up.

use super::{Table, Ty, key};

pub(crate) static BRANCH: Table = Table {
    name: "a branch",
    keys: &[key(
        "choose",
        Ty::Template,
        "Id or list of ids of direct downstreams to run; the others are skipped.",
    )
    .required()],
    exclusive: &[],
};

pub(crate) static SUB_DAG: Table = Table {
    name: "a DAG file as a group",
    keys: &[
        key("file", Ty::Text, "The file, relative to this one.").required(),
        key("params", Ty::Json, "Values of its parameters."),
    ],
    exclusive: &[],
};

pub(crate) static SHORT_CIRCUIT: Table = Table {
    name: "a short circuit",
    keys: &[
        key(
            "condition",
            Ty::Template,
            "Unless it is true, what is downstream is skipped.",
        )
        .required(),
        key(
            "ignore_downstream_trigger_rules",
            Ty::Bool,
            "Skip everything downstream, or only the direct ones.",
        )
        .default("true"),
    ],
    exclusive: &[],
};

pub(crate) static TEARDOWN: Table = Table {
    name: "a teardown",
    keys: &[
        key(
            "setups",
            Ty::OneOrMany(&Ty::Name),
            "The setups that it cleans up after: they become setups, and its upstreams.",
        ),
        key(
            "on_failure_fail_dagrun",
            Ty::Bool,
            "Whether its failure fails the run.",
        )
        .default("false"),
    ],
    exclusive: &[],
};
