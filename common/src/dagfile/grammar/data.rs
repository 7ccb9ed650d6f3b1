//! The `data` task.

use super::{POSITIVE, Table, Ty, key};

const FORMATS: Ty = Ty::Enum(&["parquet", "csv", "json"]);

pub(crate) static DATA: Table = Table {
    name: "a data task",
    keys: &[
        key(
            "sources",
            Ty::Dict(&Ty::Object(&SOURCE)),
            "Table name to files.",
        )
        .required(),
        key(
            "partition_source",
            Ty::Text,
            "The source that is cut into partitions.",
        )
        .nullable()
        .default("the largest that is not broadcast"),
        key("partitions", Ty::Object(&PARTITIONS), "How it is cut."),
        key(
            "map_sql",
            Ty::Template,
            "Runs on each partition, as a task instance of its own.",
        )
        .required(),
        key(
            "reduce_sql",
            Ty::Template,
            "Runs once, over the table `parts` of all partitions' results.",
        )
        .nullable(),
        key(
            "sink",
            Ty::Object(&SINK),
            "Where the result goes; without it, only into the return value's summary.",
        )
        .nullable(),
        key(
            "resources",
            Ty::Object(&RESOURCES),
            "Limits of each partition.",
        ),
        key(
            "sql",
            Ty::Template,
            "One query over all sources, cut into stages by the engine.",
        )
        .not_yet(),
    ],
    exclusive: &[&["map_sql", "sql"]],
};

pub(crate) static SOURCE: Table = Table {
    name: "a source",
    keys: &[
        key("format", FORMATS, "`json` is one object per line.").required(),
        key(
            "path",
            Ty::Template,
            "`s3://…`, `file:///…` or a path in the bundle; may hold a glob.",
        )
        .required(),
        key("header", Ty::Bool, "csv: the first line names the columns.")
            .nullable()
            .default("true"),
        key("delimiter", Ty::Text, "csv: one character.")
            .nullable()
            .default(","),
        key(
            "schema",
            Ty::Dict(&Ty::Text),
            "Column name to SQL type; without it, inferred.",
        )
        .nullable(),
        key("broadcast", Ty::Bool, "Read whole by every partition.")
            .nullable()
            .default("false"),
        key(
            "compression",
            Ty::Enum(&["none", "gzip", "zstd", "bzip2", "xz"]),
            "Of csv and json.",
        )
        .nullable()
        .default("by the file's ending"),
        key(
            "newlines_in_values",
            Ty::Bool,
            "csv: quoted values may hold line breaks (such files are never cut by range).",
        )
        .nullable()
        .default("false"),
    ],
    exclusive: &[],
};

pub(crate) static PARTITIONS: Table = Table {
    name: "a partitioning",
    keys: &[
        key("target", Ty::Size, "Bytes per partition, about.").nullable(),
        key("n", POSITIVE, "Number of partitions.").nullable(),
        key(
            "by",
            Ty::Enum(&["file", "range"]),
            "Whole files, or byte ranges of them too.",
        )
        .nullable(),
        key("max", POSITIVE, "At most so many partitions.").nullable(),
    ],
    exclusive: &[&["target", "n"]],
};

pub(crate) static SINK: Table = Table {
    name: "a sink",
    keys: &[
        key("format", FORMATS, "Of the files written.").required(),
        key("path", Ty::Template, "Folder; published by one commit.").required(),
        key(
            "mode",
            Ty::Enum(&["overwrite", "append", "error_if_exists"]),
            "What becomes of files that are there.",
        )
        .default("overwrite"),
    ],
    exclusive: &[],
};

pub(crate) static RESOURCES: Table = Table {
    name: "partition limits",
    keys: &[
        key("memory", Ty::Size, "Memory; beyond it, spills to disk.")
            .nullable()
            .default("1GiB"),
        key("spill", Ty::Size, "Disk for spilling.")
            .nullable()
            .default("20GiB"),
        key("cpus", POSITIVE, "Threads.").nullable(),
    ],
    exclusive: &[],
};
