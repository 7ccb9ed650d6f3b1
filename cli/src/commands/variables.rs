//! `gristmill variables`.

use std::io::Read;

use chrono::{DateTime, Utc};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use super::exit::{CommandError, Outcome};
use super::noun::Noun;
use super::output::{Output, Tabular, or_dash, short};

const VARIABLE: Noun = Noun {
    one: "variable",
    many: "variables",
};

#[derive(Debug, Subcommand)]
pub(crate) enum Variables {
    /// List variables
    List {
        /// At most so many
        #[arg(long, default_value_t = 200)]
        limit: usize,
        #[command(flatten)]
        output: Output,
    },
    /// Show one
    Get {
        key: String,
        #[command(flatten)]
        output: Output,
    },
    /// Make or change one
    #[command(after_help = "Examples:
  gristmill variables set region kr
  gristmill variables set limits '{\"rows\": 10}' --json
  gristmill variables set api_key - < key.txt")]
    Set {
        key: String,
        /// The value; `-` reads it from standard input, where other users of this machine cannot see it
        value: String,
        /// The value is JSON instead of a text
        #[arg(long)]
        json: bool,
        #[arg(long)]
        description: Option<String>,
    },
    /// Delete one
    Delete { key: String },
}

#[derive(Debug, Deserialize)]
struct Variable {
    key: String,
    value: Option<String>,
    description: Option<String>,
    source: Option<String>,
}

impl Tabular for Variable {
    const HEADER: &'static [&'static str] = &["VARIABLE", "VALUE", "FROM", "DESCRIPTION"];

    fn cells(&self, _now: DateTime<Utc>) -> Vec<String> {
        vec![
            self.key.clone(),
            short(self.value.as_deref().unwrap_or_default(), 50),
            or_dash(self.source.as_deref()),
            short(self.description.as_deref().unwrap_or_default(), 40),
        ]
    }
}

impl Variables {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        match self {
            Self::List { limit, output } => VARIABLE.list::<Variable>(context, limit, output).await,
            Self::Get { key, output } => VARIABLE.get(context, &key, output).await,
            Self::Set {
                key,
                value,
                json,
                description,
            } => {
                let text = from_argument(value)?;
                let value = match json {
                    true => serde_json::from_str(&text).map_err(|error| {
                        CommandError::Usage(format!("the value is not JSON: {error}"))
                    })?,
                    false => Value::String(text),
                };
                let mut body = json!({"key": key, "value": value});
                if let Some(description) = description {
                    body["description"] = description.into();
                }
                VARIABLE.set(context, &key, &body, &body).await
            }
            Self::Delete { key } => VARIABLE.delete(context, &key).await,
        }
    }
}

/// An argument, or for `-` what standard input has, without the newline at its end.
pub(super) fn from_argument(argument: String) -> Result<String, CommandError> {
    if argument != "-" {
        return Ok(argument);
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| CommandError::Usage(format!("cannot read standard input: {error}")))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}
