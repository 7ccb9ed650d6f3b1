//! What pools, variables and connections have in common: list, get, set, delete.

use reqwest::Method;
use serde_json::Value;

use super::Context;
use super::exit::{CommandError, Outcome};
use super::output::{Output, Tabular};

/// A kind of named thing in the API.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noun {
    /// `pool`, in messages.
    pub(super) one: &'static str,
    /// `pools`: in the path, and the list's name in answers.
    pub(super) many: &'static str,
}

impl Noun {
    pub(super) async fn list<T: Tabular>(
        self,
        context: &Context<'_>,
        limit: usize,
        output: Output,
    ) -> Result<Outcome, CommandError> {
        let client = context.client().await?;
        let rows = client.list(&[self.many], &[], self.many, limit).await?;
        output.rows::<T>(context.console, rows)?;
        Ok(Outcome::Done)
    }

    pub(super) async fn get(
        self,
        context: &Context<'_>,
        name: &str,
        output: Output,
    ) -> Result<Outcome, CommandError> {
        let client = context.client().await?;
        let answer = client.get(&[self.many, name]).send().await?;
        output.object(context.console, &answer)?;
        Ok(Outcome::Done)
    }

    /// Changes it, or makes it (with all of `new`) if there is none of this name.
    pub(super) async fn set(
        self,
        context: &Context<'_>,
        name: &str,
        changes: &Value,
        new: &Value,
    ) -> Result<Outcome, CommandError> {
        let client = context.client().await?;
        let change = client.request(Method::PATCH, &[self.many, name]);
        let done = match change.json(changes).send().await {
            Err(error) if error.is_not_found() => {
                let make = client.request(Method::POST, &[self.many]);
                make.json(new).send().await?;
                "made"
            }
            other => {
                other?;
                "changed"
            }
        };
        context.console.note(&format!("{} {name} {done}", self.one));
        Ok(Outcome::Done)
    }

    pub(super) async fn delete(
        self,
        context: &Context<'_>,
        name: &str,
    ) -> Result<Outcome, CommandError> {
        let client = context.client().await?;
        let path = [self.many, name];
        client.request(Method::DELETE, &path).send().await?;
        context
            .console
            .note(&format!("{} {name} deleted", self.one));
        Ok(Outcome::Done)
    }
}
