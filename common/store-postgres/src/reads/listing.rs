//! Conditions, order and pages of listings, in SQL.

use crate::bind::text;
use gristmill_store::{Listing, Operand, RunField, Test, TiField};
use sqlx::{Postgres, QueryBuilder};

/// A column by what it is called in a listing.
pub(super) trait Column: Copy {
    /// Its value, null where there is none.
    fn value(self) -> &'static str;
    /// What rows are ordered by: never null, so that a page can begin after any row.
    fn sorted(self) -> &'static str;
}

macro_rules! time {
    ($column:literal) => {
        concat!(
            "coalesce(",
            $column,
            ", timestamptz 'epoch' + 253370764800 * interval '1 second')"
        )
    };
}

macro_rules! duration {
    ($t:literal) => {
        concat!(
            "(extract(epoch FROM ",
            $t,
            ".ended_at - ",
            $t,
            ".started_at) * 1000000)::bigint"
        )
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
                "(SELECT v.version_number FROM dag_versions v WHERE v.pk = r.version_pk)"
            }
            Self::Bundle => "(SELECT v.bundle FROM dag_versions v WHERE v.pk = r.version_pk)",
            Self::Conf => "r.conf::text",
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

fn push_operand(sql: &mut QueryBuilder<Postgres>, operand: &Operand) {
    match operand {
        Operand::Int(value) => sql.push_bind(*value),
        Operand::Time(value) => sql.push_bind(*value),
        Operand::Text(value) => sql.push_bind(text(value).into_owned()),
    };
}

/// ` AND (one OR other)`; nothing passes where there is none.
fn push_any<T>(
    sql: &mut QueryBuilder<Postgres>,
    all: &[T],
    mut push: impl FnMut(&mut QueryBuilder<Postgres>, &T),
) {
    sql.push(" AND (false");
    for one in all {
        sql.push(" OR ");
        push(sql, one);
    }
    sql.push(")");
}

/// The conditions, each begun by ` AND `.
pub(super) fn push_conditions<F: Column>(sql: &mut QueryBuilder<Postgres>, listing: &Listing<F>) {
    for condition in &listing.conditions {
        let column = condition.field.value();
        match &condition.test {
            Test::OneOf(values) => push_any(sql, values, |sql, value| {
                sql.push(column).push(" = ");
                push_operand(sql, value);
            }),
            Test::NoneOf(values) => {
                for value in values {
                    sql.push(" AND ").push(column).push(" <> ");
                    push_operand(sql, value);
                }
            }
            Test::Compare(comparison, value) => {
                sql.push(" AND ").push(column).push(" ");
                sql.push(comparison.operator()).push(" ");
                push_operand(sql, value);
            }
            Test::Like(patterns) => push_any(sql, patterns, |sql, pattern| {
                // A backslash would escape what follows it.
                let pattern = format!("%{}%", text(pattern).replace('\\', "\\\\"));
                sql.push(column).push(" ILIKE ").push_bind(pattern);
            }),
            Test::Prefix(prefixes) => push_any(sql, prefixes, |sql, prefix| {
                let prefix = text(prefix).into_owned();
                sql.push("starts_with(").push(column).push(", ");
                sql.push_bind(prefix).push(")");
            }),
        }
    }
}

/// Only rows after the one that the listing names: the first column goes on, or it is the same and the next goes on, …
pub(super) fn push_after<F: Column>(sql: &mut QueryBuilder<Postgres>, listing: &Listing<F>) {
    let Some(after) = &listing.after else { return };
    let steps: Vec<_> = listing.order.iter().zip(after).collect();
    let places: Vec<usize> = (0..steps.len()).collect();
    push_any(sql, &places, |sql, place| {
        sql.push("(");
        for (order, value) in &steps[..*place] {
            sql.push(order.field.sorted()).push(" = ");
            push_operand(sql, value);
            sql.push(" AND ");
        }
        let (order, value) = steps[*place];
        sql.push(order.field.sorted());
        sql.push(if order.descending { " < " } else { " > " });
        push_operand(sql, value);
        sql.push(")");
    });
}

/// `ORDER BY`, as the listing asks, or by default.
pub(super) fn push_order<F: Column>(
    sql: &mut QueryBuilder<Postgres>,
    listing: &Listing<F>,
    default: &'static str,
) {
    sql.push(" ORDER BY ");
    if listing.order.is_empty() {
        sql.push(default);
        return;
    }
    for (place, order) in listing.order.iter().enumerate() {
        if place > 0 {
            sql.push(", ");
        }
        sql.push(order.field.sorted());
        if order.descending {
            sql.push(" DESC");
        }
    }
}
