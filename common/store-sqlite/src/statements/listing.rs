//! Conditions, order and pages of listings, in SQL.

use crate::session::Arg;
use gristmill_store::{AuditField, Listing, Operand, RunField, Test, TiField};

/// A column by what it is called in a listing.
pub(super) trait Column: Copy {
    /// Its value, null where there is none.
    fn value(self) -> &'static str;
    /// What rows are ordered by: never null, so that a page can begin after any row.
    fn sorted(self) -> &'static str;
}

macro_rules! time {
    ($column:literal) => {
        concat!("coalesce(", $column, ", 253370764800000000)")
    };
}

macro_rules! duration {
    ($t:literal) => {
        concat!("(", $t, ".ended_at - ", $t, ".started_at)")
    };
}

impl Column for RunField {
    fn value(self) -> &'static str {
        match self {
            Self::Key => "r.pk",
            Self::DagId => "r.dag_id",
            Self::RunId => "r.run_id",
            Self::State => "r.state",
            Self::RunType => "r.run_type",
            Self::LogicalDate => "r.logical_date",
            Self::DataIntervalStart => "r.data_interval_start",
            Self::DataIntervalEnd => "r.data_interval_end",
            Self::RunAfter => "r.run_after",
            Self::QueuedAt => "r.queued_at",
            Self::StartedAt => "r.started_at",
            Self::EndedAt => "r.ended_at",
            Self::UpdatedAt => "coalesce(r.ended_at, r.started_at, r.queued_at)",
            Self::Duration => duration!("r"),
            Self::VersionNumber => {
                "(SELECT v.version_number FROM dag_versions AS v WHERE v.pk = r.version)"
            }
            Self::Bundle => "(SELECT v.bundle FROM dag_versions AS v WHERE v.pk = r.version)",
            Self::Conf => "r.conf",
        }
    }

    fn sorted(self) -> &'static str {
        match self {
            Self::LogicalDate => time!("r.logical_date"),
            Self::DataIntervalStart => time!("r.data_interval_start"),
            Self::DataIntervalEnd => time!("r.data_interval_end"),
            Self::StartedAt => time!("r.started_at"),
            Self::EndedAt => time!("r.ended_at"),
            Self::Duration => concat!("coalesce(", duration!("r"), ", 9223372036854775807)"),
            other => other.value(),
        }
    }
}

impl Column for TiField {
    fn value(self) -> &'static str {
        match self {
            Self::Key => "t.pk",
            Self::TaskId => "t.task_id",
            Self::MapIndex => "t.map_index",
            Self::MapName => "t.map_name",
            Self::State => "t.state",
            Self::TryNumber => "t.try_number",
            Self::Queue => "t.queue",
            Self::Pool => "t.pool",
            Self::PriorityWeight => "t.priority_weight",
            Self::ScheduledAt => "t.scheduled_at",
            Self::QueuedAt => "t.queued_at",
            Self::StartedAt => "t.started_at",
            Self::EndedAt => "t.ended_at",
            Self::UpdatedAt => "coalesce(t.ended_at, t.started_at, t.queued_at, t.scheduled_at)",
            Self::Duration => duration!("t"),
            Self::DagId => "r.dag_id",
            Self::RunId => "r.run_id",
            Self::LogicalDate => "r.logical_date",
            Self::RunAfter => "r.run_after",
            Self::DataIntervalStart => "r.data_interval_start",
            Self::DataIntervalEnd => "r.data_interval_end",
            Self::VersionNumber => RunField::VersionNumber.value(),
        }
    }

    fn sorted(self) -> &'static str {
        match self {
            Self::MapName => "coalesce(t.map_name, '')",
            Self::ScheduledAt => time!("t.scheduled_at"),
            Self::QueuedAt => time!("t.queued_at"),
            Self::StartedAt => time!("t.started_at"),
            Self::EndedAt => time!("t.ended_at"),
            Self::UpdatedAt => {
                time!("coalesce(t.ended_at, t.started_at, t.queued_at, t.scheduled_at)")
            }
            Self::Duration => concat!("coalesce(", duration!("t"), ", 9223372036854775807)"),
            Self::LogicalDate => RunField::LogicalDate.sorted(),
            Self::DataIntervalStart => RunField::DataIntervalStart.sorted(),
            Self::DataIntervalEnd => RunField::DataIntervalEnd.sorted(),
            other => other.value(),
        }
    }
}

impl Column for AuditField {
    fn value(self) -> &'static str {
        match self {
            Self::Key => "a.id",
            Self::At => "a.at",
            Self::Actor => "a.actor",
            Self::Event => "a.event",
            Self::DagId => "a.dag_id",
            Self::RunId => "a.run_id",
            Self::TaskId => "a.task_id",
        }
    }

    fn sorted(self) -> &'static str {
        match self {
            Self::DagId => "coalesce(a.dag_id, '')",
            Self::RunId => "coalesce(a.run_id, '')",
            Self::TaskId => "coalesce(a.task_id, '')",
            other => other.value(),
        }
    }
}

/// Conditions joined by AND, each with its parameters: put together per call, so that each filter can use its index.
pub(super) struct Conditions {
    sql: String,
    args: Vec<Arg>,
}

impl Conditions {
    pub(super) fn new(first: &'static str) -> Self {
        Self {
            sql: first.to_owned(),
            args: Vec::new(),
        }
    }

    /// `condition` ends where its parameter belongs, followed by `close`.
    pub(super) fn and(
        &mut self,
        condition: &'static str,
        arg: Option<impl Into<Arg>>,
        close: &'static str,
    ) {
        if let Some(arg) = arg {
            self.sql.push_str(" AND ");
            self.sql.push_str(condition);
            self.push(arg);
            self.sql.push_str(close);
        }
    }

    fn push(&mut self, arg: impl Into<Arg>) {
        self.args.push(arg.into());
        self.sql.push('?');
        self.sql.push_str(&self.args.len().to_string());
    }

    fn push_operand(&mut self, operand: &Operand) {
        match operand {
            Operand::Int(value) => self.push(*value),
            Operand::Time(value) => self.push(*value),
            Operand::Text(value) => self.push(value.as_str()),
        }
    }

    /// ` AND (one OR other)`; nothing passes where there is none.
    fn and_any<T>(&mut self, all: &[T], mut push: impl FnMut(&mut Self, &T)) {
        self.sql.push_str(" AND (false");
        for one in all {
            self.sql.push_str(" OR ");
            push(self, one);
        }
        self.sql.push(')');
    }

    /// What a listing asks for beyond its filter's own fields.
    pub(super) fn and_listing<F: Column>(&mut self, listing: &Listing<F>) {
        for condition in &listing.conditions {
            let column = condition.field.value();
            match &condition.test {
                Test::OneOf(values) => self.and_any(values, |all, value| {
                    all.sql.push_str(column);
                    all.sql.push_str(" = ");
                    all.push_operand(value);
                }),
                Test::NoneOf(values) => {
                    for value in values {
                        self.sql.push_str(" AND ");
                        self.sql.push_str(column);
                        self.sql.push_str(" <> ");
                        self.push_operand(value);
                    }
                }
                Test::Compare(comparison, value) => {
                    let operator = comparison.operator();
                    self.sql.push_str(&format!(" AND {column} {operator} "));
                    self.push_operand(value);
                }
                Test::Like(patterns) => self.and_any(patterns, |all, pattern| {
                    all.sql.push_str(column);
                    all.sql.push_str(" LIKE ");
                    all.push(format!("%{pattern}%"));
                }),
                Test::Prefix(prefixes) => self.and_any(prefixes, |all, prefix| {
                    all.sql.push_str(&format!("instr({column}, "));
                    all.push(prefix.as_str());
                    all.sql.push_str(") = 1");
                }),
            }
        }
    }

    /// Only rows after the one that the listing names: the first column goes on, or it is the same and the next goes
    /// on, …
    pub(super) fn and_after<F: Column>(&mut self, listing: &Listing<F>) {
        let Some(after) = &listing.after else { return };
        let steps: Vec<_> = listing.order.iter().zip(after).collect();
        let places: Vec<usize> = (0..steps.len()).collect();
        self.and_any(&places, |all, place| {
            all.sql.push('(');
            for (order, value) in &steps[..*place] {
                all.sql.push_str(order.field.sorted());
                all.sql.push_str(" = ");
                all.push_operand(value);
                all.sql.push_str(" AND ");
            }
            let (order, value) = steps[*place];
            all.sql.push_str(order.field.sorted());
            all.sql
                .push_str(if order.descending { " < " } else { " > " });
            all.push_operand(value);
            all.sql.push(')');
        });
    }

    pub(super) fn count(&self, from: &str, at_most: Option<i64>) -> (String, Vec<Arg>) {
        let sql = match at_most {
            None => format!("SELECT json_array(count(*)) FROM {from} WHERE {}", self.sql),
            Some(most) => format!(
                "SELECT json_array(count(*)) FROM (SELECT 1 FROM {from} WHERE {} LIMIT {most})",
                self.sql
            ),
        };
        (sql, self.args.clone())
    }

    pub(super) fn page(
        mut self,
        row: &str,
        from: &str,
        order: &str,
        limit: i64,
        offset: i64,
    ) -> (String, Vec<Arg>) {
        let n = self.args.len();
        self.args.extend([Arg::Int(limit), Arg::Int(offset)]);
        let sql = format!(
            "SELECT {row} FROM {from} WHERE {} ORDER BY {order} LIMIT ?{} OFFSET ?{}",
            self.sql,
            n + 1,
            n + 2
        );
        (sql, self.args)
    }
}

/// The order that a listing asks for, or by default.
pub(super) fn order_by<F: Column>(listing: &Listing<F>, default: &str) -> String {
    if listing.order.is_empty() {
        return default.to_owned();
    }
    let parts: Vec<String> = listing
        .order
        .iter()
        .map(|order| {
            let direction = if order.descending { " DESC" } else { "" };
            format!("{}{direction}", order.field.sorted())
        })
        .collect();
    parts.join(", ")
}
