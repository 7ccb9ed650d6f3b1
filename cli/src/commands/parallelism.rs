//! `gristmill parallelism`: how many tasks may be active in the whole deployment.

use clap::Args;
use reqwest::Method;
use serde_json::json;

use super::Context;
use super::exit::{CommandError, Outcome};
use super::output::Output;

/// Parallelism: how many tasks may be active in the whole deployment
///
/// Without a number it shows the limit and how many tasks are active. A lower limit than is used stops new tasks only.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gristmill parallelism
  gristmill parallelism 64
  gristmill parallelism none")]
pub(crate) struct Parallelism {
    /// At most so many; none: no such limit
    #[arg(value_parser = limit)]
    limit: Option<Limit>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy)]
enum Limit {
    AtMost(u32),
    None,
}

fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit::None),
        number => number
            .parse()
            .map(Limit::AtMost)
            .map_err(|_| format!("{number:?} is neither a number of tasks nor `none`")),
    }
}

impl Parallelism {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        let client = context.client().await?;
        let path = ["parallelism"];
        let request = match self.limit {
            None => client.get(&path),
            Some(limit) => {
                let value = match limit {
                    Limit::AtMost(n) => Some(n),
                    Limit::None => None,
                };
                client
                    .request(Method::PUT, &path)
                    .json(&json!({ "parallelism": value }))
            }
        };
        let answer = request.send().await?;
        self.output.object(context.console, &answer)?;
        Ok(Outcome::Done)
    }
}
