//! What each step does, by who takes it.

pub(crate) mod faults;
pub(crate) mod scheduler;
pub(crate) mod worker;
