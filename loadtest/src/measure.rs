//! What a scenario cost: time, CPU time, memory, SQL statements.

mod cost;
mod processes;
mod samples;
pub(crate) mod statements;

pub(crate) use cost::{Cost, IdleRates, Meter};
pub(crate) use processes::Groups;
pub(crate) use samples::{Samples, percentile};
