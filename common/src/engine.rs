//! The scheduling core: commands in, decisions out.
//!
//! A transaction loads rows into a [`WorkingSet`], applies [`Command`]s to it, lets it settle (counters, trigger rules,
//! skips that cascade), dispatches what fits the limits, and writes what changed. Everything here is pure; which rows are
//! still missing is answered, not fetched.

mod amend;
mod apply;
mod callbacks;
mod command;
mod compose;
mod concurrency;
mod dispatch;
mod expand;
mod flow;
mod map_values;
mod mates;
mod past;
mod plan;
mod reexpand;
mod selection;
mod settle;
mod start;
mod stop;
mod wait;
mod working_set;

pub use amend::{AmendError, Amended, Tally, Wish};
pub use command::Command;
pub use compose::{ComposeError, XcomPull, compose};
pub use concurrency::{run_key, shared_limit};
pub use dispatch::{dispatch, dispatch_limits};
pub use expand::{NoList, expand, expansion_values, follows_its_group};
pub use flow::{DECISION_KEY, decide_again, decision_skips, render, take_to_render};
pub use map_values::{MAX_MAP_BYTES, MAX_MAP_LENGTH};
pub use past::{Past, RunBefore};
pub use plan::Plan;
pub use reexpand::close;
pub use selection::{Picked, Selection, is_picked};
pub use settle::{Missing, settle};
pub use start::start_run;
pub use stop::stop_rest;
pub use wait::{RenderedTrigger, Waiting, returned};
pub use working_set::{Change, WorkingSet};

#[cfg(test)]
mod tests;
