//! `gristmill pools`.

use chrono::{DateTime, Utc};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::json;

use super::Context;
use super::exit::{CommandError, Outcome};
use super::noun::Noun;
use super::output::{Output, Tabular, short};

const POOL: Noun = Noun {
    one: "pool",
    many: "pools",
};

#[derive(Debug, Subcommand)]
pub(crate) enum Pools {
    /// List pools
    List {
        /// At most so many
        #[arg(long, default_value_t = 200)]
        limit: usize,
        #[command(flatten)]
        output: Output,
    },
    /// Show one
    Get {
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Make or change one; slots that are taken stay taken
    #[command(after_help = "Example:
  gristmill pools set shop_api 4 --description 'four calls at a time'")]
    Set {
        name: String,
        /// How many; -1 is without a limit
        #[arg(allow_negative_numbers = true)]
        slots: i64,
        #[arg(long)]
        description: Option<String>,
        /// Whether also counts what waits without a worker: sensors, triggered runs, approvals (`true`, or `false`)
        #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
        include_deferred: Option<bool>,
    },
    /// Delete one that is not in use
    Delete { name: String },
}

#[derive(Debug, Deserialize)]
struct Pool {
    name: String,
    slots: i64,
    occupied_slots: i64,
    running_slots: i64,
    queued_slots: i64,
    scheduled_slots: i64,
    deferred_slots: i64,
    include_deferred: bool,
    description: Option<String>,
}

impl Tabular for Pool {
    const HEADER: &'static [&'static str] = &[
        "POOL",
        "SLOTS",
        "OCCUPIED",
        "RUNNING",
        "QUEUED",
        "SCHEDULED",
        "DEFERRED",
        "DESCRIPTION",
    ];

    fn cells(&self, _now: DateTime<Utc>) -> Vec<String> {
        vec![
            self.name.clone(),
            self.slots.to_string(),
            self.occupied_slots.to_string(),
            self.running_slots.to_string(),
            self.queued_slots.to_string(),
            self.scheduled_slots.to_string(),
            match self.include_deferred {
                true => format!("{} (counted)", self.deferred_slots),
                false => self.deferred_slots.to_string(),
            },
            short(self.description.as_deref().unwrap_or_default(), 40),
        ]
    }
}

impl Pools {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        match self {
            Self::List { limit, output } => POOL.list::<Pool>(context, limit, output).await,
            Self::Get { name, output } => POOL.get(context, &name, output).await,
            Self::Set {
                name,
                slots,
                description,
                include_deferred,
            } => {
                let mut body = json!({"name": name, "slots": slots});
                if let Some(description) = description {
                    body["description"] = description.into();
                }
                if let Some(include_deferred) = include_deferred {
                    body["include_deferred"] = include_deferred.into();
                }
                POOL.set(context, &name, &body, &body).await
            }
            Self::Delete { name } => POOL.delete(context, &name).await,
        }
    }
}
