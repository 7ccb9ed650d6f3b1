//! The `shell` task.

use super::{Table, Ty, key};

pub(crate) static SHELL: Table = Table {
    name: "a shell task",
    keys: &[
        key(
            "command",
            Ty::Template,
            "Run by `/bin/sh -c` in the bundle's folder.",
        )
        .required(),
        key(
            "output",
            Ty::Enum(&["last", "json", "none"]),
            "The return value: the last line as text, the last line's JSON value, or nothing.",
        )
        .default("last"),
        key("stdin", Ty::Template, "Standard input.").nullable(),
        key(
            "files",
            Ty::Dict(&Ty::Template),
            "File names to contents, written to `$GRISTMILL_FILES` before the command starts.",
        ),
        key(
            "skip_on_exit_code",
            Ty::Int { min: 0, max: 255 },
            "This exit code means skipped; null: none does.",
        )
        .nullable()
        .default("99"),
        key("kill_grace", Ty::Span, "Between SIGTERM and SIGKILL.").default("10s"),
        key(
            "resources",
            Ty::Object(&RESOURCES),
            "Limits on the process tree.",
        ),
        key(
            "user",
            Ty::Text,
            "System user to run as (the worker has to be root).",
        )
        .nullable(),
    ],
    exclusive: &[],
};

pub(crate) static RESOURCES: Table = Table {
    name: "resource limits",
    keys: &[
        key("memory", Ty::Size, "Resident memory of the whole tree.").nullable(),
        key("cpu_time", Ty::Span, "CPU time per process.").nullable(),
        key(
            "open_files",
            Ty::Int {
                min: 3,
                max: 1 << 30,
            },
            "Open files per process.",
        )
        .nullable(),
        key(
            "output",
            Ty::Size,
            "Output kept in the log; the rest is dropped, and the log says so.",
        )
        .nullable(),
    ],
    exclusive: &[],
};
