//! The grammar of DAG files, as one table: the parser checks by it, the JSON Schema for editors and the tables of
//! `docs/dag-format.md` are made from it.

mod assets;
mod callbacks;
mod dag;
mod data;
mod flow;
mod http;
mod later;
mod results;
mod shell;
mod sql;
mod task;
mod wait;

pub(crate) use assets::SCHEDULE as ASSET_SCHEDULE;
pub(crate) use dag::DAG;
pub(crate) use task::{GROUP, GROUP_MAPPING, TASK};
pub(crate) use wait::SENSOR_ON;
#[cfg(test)]
pub(crate) use {
    callbacks::TABLES as CALLBACK_TABLES, later::TABLES as LATER_TABLES, task::TABLES,
};

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ty {
    Bool,
    Int {
        min: i64,
        max: i64,
    },
    /// At least 0.
    Number,
    /// A text that is taken as it is.
    Text,
    /// A template; numbers and booleans are taken as their text.
    Template,
    /// An expression without braces that sees the given names beside the usual ones.
    Expression(&'static [&'static str]),
    /// Letters, digits, `_`, `-`, `.`; at most 250 characters.
    Name,
    Span,
    /// Bytes: a number, or `128MiB`.
    Size,
    Date,
    Timezone,
    Schedule,
    /// A cron expression or preset.
    Cron,
    AssetName,
    /// An asset's name, or a mapping of `any` or `all` of such.
    AssetCondition,
    Enum(&'static [&'static str]),
    List(&'static Ty),
    /// A list, or one of its items alone.
    OneOrMany(&'static Ty),
    /// Keys are the author's.
    Dict(&'static Ty),
    Object(&'static Table),
    /// An object, or the value of one of its keys alone.
    Short(&'static str, &'static Table),
    /// Any JSON value; the strings in it are templates.
    Json,
    /// Parameter name to JSON Schema, or to a plain default.
    Params,
    /// Map variable to a list, or to a template of one.
    Expand,
    /// A list of mappings of map variables, or a template of one.
    ExpandItems,
    /// Task id to task.
    Tasks,
    /// The keys of a task that are marked `.inherited()`.
    DefaultArgs,
}

/// A mapping whose keys are fixed.
#[derive(Debug)]
pub(crate) struct Table {
    /// As in diagnostics: "a shell task", "a source".
    pub(crate) name: &'static str,
    pub(crate) keys: &'static [Key],
    /// Of each group of keys at most one may be given.
    pub(crate) exclusive: &'static [&'static [&'static str]],
}

impl Table {
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) ty: Ty,
    pub(crate) doc: &'static str,
    /// In the file's own words; empty: none.
    pub(crate) default: &'static str,
    pub(crate) required: bool,
    /// `null` may be written, and means what the doc says, or else "not given".
    pub(crate) nullable: bool,
    /// False: part of the grammar, refused as "not built yet".
    pub(crate) built: bool,
    /// The key names what a task does.
    pub(crate) kind: bool,
    /// May stand in `default_args`.
    pub(crate) inherited: bool,
}

/// A built, optional key.
pub(crate) const fn key(name: &'static str, ty: Ty, doc: &'static str) -> Key {
    Key {
        name,
        ty,
        doc,
        default: "",
        required: false,
        nullable: false,
        built: true,
        kind: false,
        inherited: false,
    }
}

impl Key {
    pub(crate) const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    pub(crate) const fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }

    pub(crate) const fn nullable(self) -> Self {
        Self {
            nullable: true,
            ..self
        }
    }

    pub(crate) const fn not_yet(self) -> Self {
        Self {
            built: false,
            ..self
        }
    }

    pub(crate) const fn kind(self) -> Self {
        Self { kind: true, ..self }
    }

    pub(crate) const fn inherited(self) -> Self {
        Self {
            inherited: true,
            ..self
        }
    }
}

/// A whole number from 0 up to what the specification's field holds.
pub(crate) const COUNT: Ty = Ty::Int {
    min: 0,
    max: u32::MAX as i64,
};
/// A whole number from 1.
pub(crate) const POSITIVE: Ty = Ty::Int {
    min: 1,
    max: u32::MAX as i64,
};

impl Ty {
    /// What an author has to write, for messages and for the docs.
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::Bool => "true or false".into(),
            Self::Int { min, max } if *max >= i64::from(i32::MAX) && *min > i64::from(i32::MIN) => {
                format!("a whole number, at least {min}")
            }
            Self::Int { min, .. } if *min <= i64::from(i32::MIN) => "a whole number".into(),
            Self::Int { min, max } if min == max => min.to_string(),
            Self::Int { min, max } => format!("a whole number from {min} to {max}"),
            Self::Number => "a number, at least 0".into(),
            Self::Text => "a text".into(),
            Self::Template => "a text (template)".into(),
            Self::Expression(_) => "an expression".into(),
            Self::Name => "a name (letters, digits, `_`, `-`, `.`)".into(),
            Self::Span => "a duration such as 30s, 5m, 1h30m".into(),
            Self::Size => "a size such as 128MiB".into(),
            Self::Date => "a date such as 2026-01-01 or 2026-01-01T08:30:00+09:00".into(),
            Self::Timezone => "an IANA time zone such as Asia/Seoul".into(),
            Self::Schedule => {
                "a cron expression or preset such as @daily, a list of them, \"every 15m\", @once, @continuous, a mapping (a schedule by assets) or null".into()
            }
            Self::Cron => "a cron expression or a preset such as @daily".into(),
            Self::AssetName => "an asset's name".into(),
            Self::AssetCondition => "an asset's name, or a mapping with `any` or `all`".into(),
            Self::Enum(members) => format!("one of {}", members.join(", ")),
            Self::List(item) => format!("a list, each item {}", item.expected()),
            Self::OneOrMany(item) => {
                format!("a list, each item {}; or one item alone", item.expected())
            }
            Self::Dict(value) => format!("a mapping, each value {}", value.expected()),
            Self::Object(table) => format!("a mapping ({})", table.name),
            Self::Short(key, table) => format!("a mapping ({}), or its `{key}` alone", table.name),
            Self::Json => "any value; texts in it are templates".into(),
            Self::Params => "a mapping of parameter names to JSON Schemas or defaults".into(),
            Self::Expand => "a mapping of variable names to lists, or to templates of lists".into(),
            Self::ExpandItems => "a list of mappings, or a template of one".into(),
            Self::Tasks => "a mapping of task ids to tasks".into(),
            Self::DefaultArgs => "a mapping of task keys".into(),
        }
    }
}
