//! The client of the REST API: what every client command talks through.
//!
//! [`Client`] holds the address and the token, [`Request`](http::Request) is one call, [`ClientError`] is everything that
//! can go wrong with one. The typed parts of answers are beside the calls they come from; whatever else an answer holds is
//! passed on as it came, so that `-o json` shows all of it.

mod credentials;
mod error;
mod http;
mod runs;
mod tasks;

pub(crate) use credentials::Sources;
pub(crate) use error::ClientError;
pub(crate) use http::{Client, Rows};
pub(crate) use runs::{NewRun, Run, RunName};
pub(crate) use tasks::{Instance, LogLine, LogQuery, label};
