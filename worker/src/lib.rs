//! The worker: consumes dispatches, claims them, runs them and reports how they ended.
//!
//! The way of one dispatch: [`consume`] takes its message and claims it → [`run`] executes it by its kind ([`tasks`]),
//! shell and data tasks through the guardian ([`processes`]) → [`report`] publishes its start and its ending, and keeps it
//! held until the ending is confirmed. [`lease`] keeps the worker's lease, under which alone anything may run.

mod config;
mod consume;
mod context;
mod control;
mod held;
mod lease;
mod log;
mod mask;
mod processes;
mod report;
mod run;
mod tasks;
mod worker;

pub use config::WorkerConfig;
pub use worker::{Parts, WorkerHealth, run};
