//! Tasks with a `cache`: an earlier success of the same key takes the place of running.
//!
//! A success notes its key as an XCom: so it is accepted with the ending, under its fence, and is gone when the instance is
//! cleared or its run deleted. Who looks for one gets copies of its own. The look is not needed to run: where it fails,
//! the task runs.

use super::{artifacts, xcom};
use crate::run::{Execution, Outcome};
use chrono::{DateTime, Utc};
use gristmill_common::{
    message::{Ending, XcomOut},
    row::XcomValue,
    spec::{CACHE_XCOM, Cache, cache_xcom},
};
use gristmill_objects::artifacts::listed;
use serde::Deserialize;
use serde_json::{Value, json};

/// Characters of a key that a success notes, for people.
const SHOWN: usize = 200;

/// An earlier success, as the API tells of it.
#[derive(Debug, Deserialize)]
struct Hit {
    run_id: String,
    ended_at: DateTime<Utc>,
    xcoms: Vec<Found>,
}

/// One of its XComs: a value, or where it is.
#[derive(Debug, Deserialize)]
struct Found {
    key: String,
    #[serde(default)]
    value: Value,
    object: Option<String>,
}

/// Runs a task unless its result is there already.
pub(super) async fn run(
    execution: &Execution,
    cache: &Cache,
    work: impl Future<Output = Outcome>,
) -> Outcome {
    let message = &execution.message;
    let key = match execution.context.renderer.render(&cache.key) {
        Ok(key) => key.trim().to_owned(),
        Err(error) => return Outcome::failed_for_good(format!("cache.key: {error}")),
    };
    let name = cache_xcom(
        &message.run.dag_id,
        &message.task,
        message.bundle.as_deref(),
        message.map.as_ref(),
        &key,
    );
    // What was cleared is meant to run, and what failed too.
    if message.try_number == 1 {
        match look(execution, &name, cache).await {
            Ok(Some(hit)) => match take(execution, hit).await {
                Ok(outcome) => return outcome,
                Err(reason) => {
                    note(
                        execution,
                        &format!("The cached result is not there any more: {reason}"),
                    )
                    .await
                }
            },
            Ok(None) => {}
            Err(reason) => {
                note(
                    execution,
                    &format!("The cache could not be asked: {reason}"),
                )
                .await
            }
        }
    }
    let mut outcome = work.await;
    if outcome.ending == Some(Ending::Success) {
        let shown: String = execution
            .context
            .mask
            .apply(key)
            .chars()
            .take(SHOWN)
            .collect();
        outcome.xcoms.push(XcomOut {
            key: name,
            value: XcomValue::Inline(json!({"key": shown})),
        });
    }
    outcome
}

async fn note(execution: &Execution, text: &str) {
    execution.log.note(text).await;
}

/// Asks the API, with the run's own token.
async fn look(execution: &Execution, name: &str, cache: &Cache) -> Result<Option<Hit>, String> {
    let message = &execution.message;
    let worker = &execution.worker;
    let api = worker
        .config
        .api_url
        .as_deref()
        .ok_or("GRISTMILL_API_URL is not set")?;
    let mut url = url::Url::parse(api).map_err(|error| format!("GRISTMILL_API_URL: {error}"))?;
    url.set_path(&format!("/internal/v1/runs/{}/cache", message.run.pk));
    url.query_pairs_mut()
        .append_pair("key", name)
        .append_pair("ttl_ms", &cache.ttl.millis().to_string());
    let answer = worker
        .http()
        .get(url)
        .bearer_auth(&message.token)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|error| error.without_url().to_string())?;
    let hit = answer.json().await;
    hit.map_err(|error| error.without_url().to_string())
}

/// Makes copies of what an earlier success left: it may be cleared or deleted at any time.
async fn take(execution: &Execution, hit: Hit) -> Result<Outcome, String> {
    execution.report_started(None);
    let mut xcoms = Vec::new();
    for found in hit.xcoms {
        if found.key.starts_with(CACHE_XCOM) {
            continue;
        }
        let value = match &found.object {
            None => found.value,
            Some(object) => {
                let content = execution.worker.objects.get(object).await;
                let content = content.map_err(|error| error.to_string())?;
                serde_json::from_slice(&content).map_err(|error| error.to_string())?
            }
        };
        let value = if found.key == artifacts::KEY {
            let copies = artifacts::copy(execution, listed(&value)).await?;
            json!(copies)
        } else {
            value
        };
        xcoms.push(xcom::put(execution, &found.key, value).await?);
    }
    let reason = format!(
        "cached: the result of the run {} of {}",
        hit.run_id,
        hit.ended_at.format("%Y-%m-%d %H:%M:%S UTC")
    );
    note(execution, &reason).await;
    Ok(Outcome {
        reason: Some(reason),
        ..Outcome::success(xcoms)
    })
}
