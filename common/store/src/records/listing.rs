//! What a listing may ask for beyond its filter's own fields: conditions on further columns, an order, and the page after
//! a row. A field is a name; what it is in SQL, each store says.

use chrono::{DateTime, TimeZone, Utc};
use serde::{Deserialize, Serialize};

/// A value that rows are compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operand {
    Int(i64),
    Time(DateTime<Utc>),
    Text(String),
}

/// What a field must be for a row to be listed. A field without a value passes no test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// Equal to one of these; with none of them, no row passes.
    OneOf(Vec<Operand>),
    /// Equal to none of these.
    NoneOf(Vec<Operand>),
    Compare(Comparison, Operand),
    /// Contains one of these, whatever the case; `%` stands for anything, `_` for any one character.
    Like(Vec<String>),
    /// Begins with one of these, to the letter.
    Prefix(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// In SQL.
    pub const fn operator(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition<F> {
    pub field: F,
    pub test: Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order<F> {
    pub field: F,
    pub descending: bool,
}

/// Conditions, an order and where the page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<F> {
    /// All of them hold.
    pub conditions: Vec<Condition<F>>,
    /// Empty: the listing's own. Rows that are alike come in no certain order, so the key should be last.
    pub order: Vec<Order<F>>,
    /// Only rows after the one with these values, one for each part of the order.
    pub after: Option<Vec<Operand>>,
    /// Rows are counted up to here: to count millions takes longer than to list a page of them. Absent: all are.
    pub count_at_most: Option<i64>,
}

impl<F> Default for Listing<F> {
    fn default() -> Self {
        Self {
            conditions: Vec::new(),
            order: Vec::new(),
            after: None,
            count_at_most: None,
        }
    }
}

/// What a time that is not there counts as when rows are ordered: later than any other.
pub fn no_time() -> DateTime<Utc> {
    Utc.timestamp_opt(NO_TIME_SECONDS, 0)
        .single()
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// [`no_time`] in seconds since the Unix epoch: the year 9999.
pub const NO_TIME_SECONDS: i64 = 253_370_764_800;

/// What a duration (in microseconds) that is not there counts as when rows are ordered: longer than any other.
pub const NO_DURATION: i64 = i64::MAX;

/// Fields of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunField {
    Key,
    DagId,
    RunId,
    State,
    RunType,
    LogicalDate,
    DataIntervalStart,
    DataIntervalEnd,
    RunAfter,
    QueuedAt,
    StartedAt,
    EndedAt,
    /// The newest of its times.
    UpdatedAt,
    /// Microseconds; only of runs that have ended.
    Duration,
    VersionNumber,
    Bundle,
    /// Its JSON as text.
    Conf,
}

/// Fields of task instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TiField {
    Key,
    TaskId,
    MapIndex,
    MapName,
    State,
    TryNumber,
    Queue,
    Pool,
    PriorityWeight,
    ScheduledAt,
    QueuedAt,
    StartedAt,
    EndedAt,
    /// The newest of its times.
    UpdatedAt,
    /// Microseconds; only of instances that have ended.
    Duration,
    /// Of its run.
    DagId,
    RunId,
    LogicalDate,
    RunAfter,
    DataIntervalStart,
    DataIntervalEnd,
    VersionNumber,
}

impl TiField {
    /// Whether it is a field of the instance's run.
    pub const fn is_of_run(self) -> bool {
        matches!(
            self,
            Self::DagId
                | Self::RunId
                | Self::LogicalDate
                | Self::RunAfter
                | Self::DataIntervalStart
                | Self::DataIntervalEnd
                | Self::VersionNumber
        )
    }
}

impl Listing<TiField> {
    /// Whether anything is asked of the instances' runs.
    pub fn asks_of_runs(&self) -> bool {
        let tested = self.conditions.iter().map(|condition| condition.field);
        tested
            .chain(self.order.iter().map(|order| order.field))
            .any(TiField::is_of_run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_survive_a_cursor() {
        let all = vec![
            Operand::Int(-3),
            Operand::Time(no_time()),
            Operand::Text("queued".to_owned()),
        ];
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Operand>>(&text).unwrap(), all);
    }
}
