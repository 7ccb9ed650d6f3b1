//! Bulk changes: `PATCH` of a listing, with actions that each create, update or delete several.
//!
//! An action either is carried out on all that it names or, when one of them is (or is not) there, on none: unless it says
//! `skip` or `overwrite`. What fails is told beside what was done.

mod nouns;

pub(super) use nouns::{connections, dag_runs, pools, task_instances, variables};

use crate::{auth::Caller, error::ApiError, extract::Query, parts::App};
use axum::Json;
use serde::Deserialize;
use serde_json::{Value, json};

/// Entities of one request at most.
const MOST: usize = 1_000;

/// `BulkBody_…`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    actions: Vec<Action>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
enum Action {
    Create {
        entities: Vec<Value>,
        #[serde(default)]
        action_on_existence: OnExistence,
    },
    Update {
        entities: Vec<Value>,
        #[serde(default)]
        action_on_non_existence: OnAbsence,
        update_mask: Option<Vec<String>>,
    },
    Delete {
        entities: Vec<Value>,
        #[serde(default)]
        action_on_non_existence: OnAbsence,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnExistence {
    #[default]
    Fail,
    Skip,
    Overwrite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnAbsence {
    #[default]
    Fail,
    Skip,
}

/// Who asks, and of what.
#[derive(Debug, Clone, Copy)]
struct Request<'a> {
    app: &'a App,
    caller: &'a Caller,
}

/// A kind of thing that can be changed in bulk.
trait Noun {
    /// What names it: the key, or several.
    type Key: ToString + Send;
    /// Plural, for messages.
    const NAME: &'static str;

    /// The key of an entity: of its object, or of a text that is a key by itself.
    fn key(&self, entity: &Value) -> Option<Self::Key>;
    async fn exists(&self, of: Request<'_>, key: &Self::Key) -> Result<bool, ApiError>;
    async fn create(&self, of: Request<'_>, entity: Value) -> Result<(), ApiError>;
    /// `mask` has the `update_mask` of the action.
    async fn update(
        &self,
        of: Request<'_>,
        key: &Self::Key,
        entity: Value,
        mask: Query,
    ) -> Result<(), ApiError>;
    async fn delete(&self, of: Request<'_>, key: &Self::Key) -> Result<(), ApiError>;
}

/// `BulkActionResponse`.
#[derive(Debug, Default)]
struct Outcome {
    success: Vec<String>,
    errors: Vec<Value>,
}

impl Outcome {
    fn note(&mut self, key: String, done: Result<(), ApiError>) {
        match done {
            Ok(()) => self.success.push(key),
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &ApiError) {
        self.errors.push(json!({
            "error": error.detail(),
            "status_code": error.status().as_u16(),
        }));
    }

    fn json(self) -> Value {
        json!({ "success": self.success, "errors": self.errors })
    }
}

async fn carry_out<N: Noun>(
    noun: &N,
    of: Request<'_>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let entities = body.actions.iter().map(|action| match action {
        Action::Create { entities, .. }
        | Action::Update { entities, .. }
        | Action::Delete { entities, .. } => entities.len(),
    });
    let entities: usize = entities.sum();
    if entities > MOST {
        return Err(ApiError::TooLarge(format!(
            "the request names {entities} {}; it may name {MOST}",
            N::NAME
        )));
    }
    let (mut created, mut updated, mut deleted) = (None, None, None);
    for action in body.actions {
        match action {
            Action::Create {
                entities,
                action_on_existence,
            } => {
                let outcome = created.get_or_insert_with(Outcome::default);
                create(noun, of, entities, action_on_existence, outcome).await?;
            }
            Action::Update {
                entities,
                action_on_non_existence,
                update_mask,
            } => {
                let mask: Vec<(String, String)> = update_mask
                    .unwrap_or_default()
                    .into_iter()
                    .map(|field| ("update_mask".to_owned(), field))
                    .collect();
                let outcome = updated.get_or_insert_with(Outcome::default);
                let there = present(noun, of, entities, action_on_non_existence, outcome).await?;
                for (key, entity) in there {
                    let mask = Query::from_pairs(mask.clone());
                    let done = noun.update(of, &key, entity, mask).await;
                    outcome.note(key.to_string(), done);
                }
            }
            Action::Delete {
                entities,
                action_on_non_existence,
            } => {
                let outcome = deleted.get_or_insert_with(Outcome::default);
                let there = present(noun, of, entities, action_on_non_existence, outcome).await?;
                for (key, _) in there {
                    let done = noun.delete(of, &key).await;
                    outcome.note(key.to_string(), done);
                }
            }
        }
    }
    Ok(Json(json!({
        "create": created.map(Outcome::json),
        "update": updated.map(Outcome::json),
        "delete": deleted.map(Outcome::json),
    })))
}

async fn create<N: Noun>(
    noun: &N,
    of: Request<'_>,
    entities: Vec<Value>,
    existing: OnExistence,
    outcome: &mut Outcome,
) -> Result<(), ApiError> {
    let mut wanted = Vec::new();
    let mut taken = Vec::new();
    for entity in entities {
        let key = key_of(noun, &entity)?;
        let exists = noun.exists(of, &key).await?;
        if exists {
            taken.push(key.to_string());
        }
        wanted.push((key, entity, exists));
    }
    if existing == OnExistence::Fail && !taken.is_empty() {
        let names = taken.join(", ");
        outcome.fail(&ApiError::Conflict(format!(
            "these {} already exist: {names}",
            N::NAME
        )));
        return Ok(());
    }
    for (key, entity, exists) in wanted {
        let done = match (exists, existing) {
            (true, OnExistence::Overwrite) => noun.update(of, &key, entity, Query::default()).await,
            (true, _) => continue,
            (false, _) => noun.create(of, entity).await,
        };
        outcome.note(key.to_string(), done);
    }
    Ok(())
}

/// Those that are there; none when one is not and that is a failure.
async fn present<N: Noun>(
    noun: &N,
    of: Request<'_>,
    entities: Vec<Value>,
    absent: OnAbsence,
    outcome: &mut Outcome,
) -> Result<Vec<(N::Key, Value)>, ApiError> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for entity in entities {
        let key = key_of(noun, &entity)?;
        if noun.exists(of, &key).await? {
            found.push((key, entity));
        } else {
            missing.push(key.to_string());
        }
    }
    if absent == OnAbsence::Fail && !missing.is_empty() {
        let names = missing.join(", ");
        outcome.fail(&ApiError::NotFound(format!(
            "these {} were not found: {names}",
            N::NAME
        )));
        return Ok(Vec::new());
    }
    Ok(found)
}

fn key_of<N: Noun>(noun: &N, entity: &Value) -> Result<N::Key, ApiError> {
    noun.key(entity).ok_or_else(|| {
        ApiError::field(crate::error::FieldError {
            kind: "missing",
            loc: vec!["body".into(), "actions".into(), "entities".into()],
            msg: format!("an entity does not name one of the {}", N::NAME),
            input: Value::Null,
        })
    })
}
