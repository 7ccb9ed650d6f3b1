//! The protocol of docs/protocol.md as a model, small enough to look at **every** state that it can get into.
//!
//! Tests run a deployment in some orders of events; the model is run in all of them. A [`Deployment`](model::Deployment)
//! says how many task instances, workers and schedulers there are and how often what may go wrong
//! ([`Faults`](faults::Faults)); [`search`](graph::search) then takes every step that is possible in every state that can be
//! reached, and asks
//!
//! - in each state, whether what must always hold does ([`SAFETY`](model::SAFETY)): one live attempt, one ending, limits,
//!   nothing lost;
//! - of each state, whether the work can still be brought to its end ([`LIVENESS`](model::LIVENESS)): every instance ended,
//!   nothing held, outbox and queues empty.
//!
//! The names are those of [`gristmill_common::invariant::Invariant`], which the load tool's checker reports as well.
//!
//! # How to read it
//!
//! | File | Has |
//! | --- | --- |
//! | `state.rs` | what database, Redis, RabbitMQ, workers and schedulers know: one `Copy` value |
//! | `action.rs` | everything that can happen |
//! | `steps/` | what each of it does, by who does it; each names the source that it mirrors |
//! | `database.rs` | transactions: these are not mirrored, they run the real `gristmill_common::engine` |
//! | `rules.rs` | the protocol's rules, each of which can be broken; a test shows that each is needed |
//! | `setups.rs` | the deployments that are checked |
//! | `graph.rs` | the search |
//!
//! A counterexample is a list of actions; `cargo run -p gristmill-model -- --help` shows how to get one.
//!
//! # Time
//!
//! Clocks are counters of ticks. A lease is two ticks, the judge's patience three; nothing that must be dead at the end of
//! a tick is alive then, which is the only thing that the guardian's kernel timer is trusted with. Everything else may take
//! any time at any point, so that a stopped process needs no state of its own: nothing happens to it. Two bounds keep the
//! model from finding what cannot be: a worker that could renew its lease does, unless it is *paused*, which is a counted
//! fault; and a worker that is not paused has Redis's answer to a claim within the tick.

pub mod action;
pub mod database;
pub mod faults;
pub mod graph;
pub mod model;
pub mod rules;
pub mod setups;
pub mod state;
mod steps;
