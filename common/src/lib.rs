//! The domain of Gristmill: DAG specifications, states and their transitions, trigger rules, retries, messages, and the
//! scheduling engine. Everything here is pure: no clock, no network, no database, no async runtime.

pub mod asset;
pub mod callback;
#[cfg(test)]
mod cpu_time;
pub mod dagfile;
pub mod deadline;
pub mod engine;
pub mod fault;
pub mod graph;
pub mod ids;
pub mod invariant;
pub mod limit;
pub mod message;
pub mod params;
#[cfg(any(test, feature = "reference"))]
pub mod reference;
pub mod retry;
pub mod retry_rule;
pub mod row;
pub mod seal;
pub mod span;
pub mod spec;
pub mod state;
pub mod template;
pub mod timetable;
pub mod transition;
pub mod trigger_rule;
