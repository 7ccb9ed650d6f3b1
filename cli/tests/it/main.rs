//! Integration tests: every role is a process of the shipped binary, and the servers are real.
//!
//! One binary for all of them, because it links once. `gristmill-testkit servers -- cargo test -p gristmill --test it`
//! starts the shared servers once for many runs; a test that kills a server starts its own.

mod support;

mod absent;
mod amend;
mod bad_input;
mod callbacks;
mod ci;
mod cleanup;
mod clients;
mod conformance;
mod dags_test;
mod data;
mod drain;
mod faults;
mod flows;
mod http;
mod kills;
mod limits;
mod many;
mod past;
mod poison;
mod queues;
mod results;
mod secrets;
mod sql;
mod standalone;
mod time;
mod values;
mod waits;
