//! The router over a SQLite store and in-process parts: real requests and answers, no network.

mod access;
mod amend;
mod bad_input;
mod deploy;
mod health;
mod logs;
mod operations;
mod runs;
mod secrets;
mod support;
mod tasks;
mod time;
