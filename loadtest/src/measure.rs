//! What a scenario cost: time, CPU time, memory, SQL statements.

mod cost;
pub mod memory;
mod messages;
mod processes;
mod samples;
pub mod statements;

pub use cost::{Cost, IdleRates, Meter};
pub use messages::Messages;
pub use processes::Groups;
pub use samples::{Samples, percentile};
