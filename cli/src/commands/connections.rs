//! `gristmill connections`.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Context;
use super::exit::{CommandError, Outcome};
use super::noun::Noun;
use super::output::{Output, Tabular, or_dash, short};
use super::variables::from_argument;

const CONNECTION: Noun = Noun {
    one: "connection",
    many: "connections",
};

#[derive(Debug, Subcommand)]
pub(crate) enum Connections {
    /// List connections, without their secrets
    List {
        /// At most so many
        #[arg(long, default_value_t = 200)]
        limit: usize,
        #[command(flatten)]
        output: Output,
    },
    /// Show one, without its secrets
    Get {
        connection_id: String,
        #[command(flatten)]
        output: Output,
    },
    /// Make or change one; what is not given stays as it is
    #[command(after_help = "Example:
  gristmill connections set shop --type http --host https://shop.example.org --login ci --password - < password.txt")]
    Set(Set),
    /// Delete one
    Delete { connection_id: String },
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    connection_id: String,
    /// What it leads to: http, postgres, aws, …; a new one leads to http if nothing is said
    #[arg(long = "type", value_name = "TYPE")]
    conn_type: Option<String>,
    #[arg(long)]
    host: Option<String>,
    #[arg(long)]
    port: Option<u16>,
    #[arg(long)]
    login: Option<String>,
    /// The password; `-` reads it from standard input, where other users of this machine cannot see it
    #[arg(long)]
    password: Option<String>,
    #[arg(long)]
    schema: Option<String>,
    /// More fields, as a JSON object
    #[arg(long, value_name = "JSON")]
    extra: Option<String>,
    #[arg(long)]
    description: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Connection {
    connection_id: String,
    conn_type: String,
    host: Option<String>,
    port: Option<u16>,
    login: Option<String>,
    description: Option<String>,
    source: Option<String>,
}

impl Tabular for Connection {
    const HEADER: &'static [&'static str] = &[
        "CONNECTION",
        "TYPE",
        "HOST",
        "PORT",
        "LOGIN",
        "FROM",
        "DESCRIPTION",
    ];

    fn cells(&self, _now: DateTime<Utc>) -> Vec<String> {
        vec![
            self.connection_id.clone(),
            self.conn_type.clone(),
            short(self.host.as_deref().unwrap_or("-"), 40),
            or_dash(self.port),
            or_dash(self.login.as_deref()),
            or_dash(self.source.as_deref()),
            short(self.description.as_deref().unwrap_or_default(), 40),
        ]
    }
}

impl Connections {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<Outcome, CommandError> {
        match self {
            Self::List { limit, output } => {
                CONNECTION.list::<Connection>(context, limit, output).await
            }
            Self::Get {
                connection_id,
                output,
            } => CONNECTION.get(context, &connection_id, output).await,
            Self::Set(set) => {
                let changes = set.body()?;
                let mut new = changes.clone();
                new["conn_type"] = set.conn_type.as_deref().unwrap_or("http").into();
                CONNECTION
                    .set(context, &set.connection_id, &changes, &new)
                    .await
            }
            Self::Delete { connection_id } => CONNECTION.delete(context, &connection_id).await,
        }
    }
}

impl Set {
    fn body(&self) -> Result<Value, CommandError> {
        if let Some(extra) = &self.extra {
            serde_json::from_str::<Map<String, Value>>(extra).map_err(|error| {
                CommandError::Usage(format!("--extra has to be a JSON object: {error}"))
            })?;
        }
        let password = self.password.clone().map(from_argument).transpose()?;
        let mut body = json!({"connection_id": self.connection_id});
        let texts = [
            ("conn_type", &self.conn_type),
            ("host", &self.host),
            ("login", &self.login),
            ("password", &password),
            ("schema", &self.schema),
            ("extra", &self.extra),
            ("description", &self.description),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                body[name] = text.clone().into();
            }
        }
        if let Some(port) = self.port {
            body["port"] = port.into();
        }
        Ok(body)
    }
}
