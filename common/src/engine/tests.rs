//! The engine against an in-memory store that does what the real ones do: load, decide, write under guards.

mod amend;
mod callbacks;
mod cases;
mod conformance;
mod flow;
mod harness;
mod limits;
mod mapped_groups;
mod mapping;
mod past;
mod retries;
mod setups;
mod simulation;
mod stops;
mod waits;
mod work;
