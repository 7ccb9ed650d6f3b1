//! `/api/v2/dags` as a listing, what can be done to all that it lists, and what follows from all DAGs (tags, favourites).
//!
//! A page of all DAGs comes from the database as such. By other filters and orders all DAGs are read and judged here: there
//! are thousands of them, not millions.

use super::{dag_runs, lookup};
use crate::{
    auth::{About, User, Viewer},
    error::{ApiError, FieldError},
    extract::{At, Body, Query},
    listing::Small,
    parts::App,
    view,
};
use axum::{Json, extract::State, http::StatusCode};
use gristmill_store::{DagRow, RunFilter};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashSet};

/// DAGs read at a time.
const CHUNK: i64 = 500;
/// There is one bundle of DAGs.
const BUNDLE: &str = "dags";

const DAGS: Small = Small {
    name: "dags",
    patterns: &[
        ("dag_id", "dag_id"),
        ("dag_display_name", "dag_display_name"),
    ],
    texts: &[],
    times: &[],
    order: &[
        ("dag_id", "dag_id"),
        ("dag_display_name", "dag_display_name"),
        ("next_dagrun", "next_dagrun_logical_date"),
        ("next_dagrun_run_after", "next_dagrun_run_after"),
        ("last_parsed_time", "last_parsed_time"),
        ("is_paused", "is_paused"),
        ("last_run_state", "last_run_state"),
        ("last_run_start_date", "last_run_start_date"),
        ("last_run_run_after", "last_run_run_after"),
    ],
};

/// Filters and orders that the database knows nothing of.
const JUDGED: [&str; 26] = [
    "asset_dependency",
    "bundle_name",
    "bundle_version",
    "dag_display_name_pattern",
    "dag_display_name_prefix_pattern",
    "dag_id_pattern",
    "dag_id_prefix_pattern",
    "dag_run_end_date_gt",
    "dag_run_end_date_gte",
    "dag_run_end_date_lt",
    "dag_run_end_date_lte",
    "dag_run_start_date_gt",
    "dag_run_start_date_gte",
    "dag_run_start_date_lt",
    "dag_run_start_date_lte",
    "dag_run_state",
    "has_asset_schedule",
    "has_import_errors",
    "is_favorite",
    "last_dag_run_state",
    "order_by",
    "owners",
    "paused",
    "tags",
    "tags_match_mode",
    "timetable_type",
];

pub(super) async fn list(
    Viewer(caller): Viewer,
    State(app): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    let (rows, total) = page(&app, &caller.name, &query).await?;
    Ok(Json(json!({ "dags": rows, "total_entries": total })))
}

/// `DAGResponse`s of the page that the query asks for, and how many DAGs it matches.
async fn page(app: &App, user: &str, query: &Query) -> Result<(Vec<Value>, i64), ApiError> {
    let stale = !query.flag("exclude_stale")?.unwrap_or(true);
    let broken = app.store.import_errors().await?;
    let is_broken = |row: &DagRow| broken.iter().any(|e| e.filename == row.fileloc);
    if JUDGED.iter().all(|name| query.text(name).is_none()) {
        let (limit, offset) = query.page()?;
        let page = app.store.dags(None, stale, limit, offset).await?;
        let mut dags = Vec::with_capacity(page.rows.len());
        for row in &page.rows {
            let version = app.versions.get(&*app.store, row.version).await?;
            let dag = view::dag::dag(row, &version, is_broken(row));
            dags.push(Value::Object(dag));
        }
        return Ok((dags, page.total));
    }
    let judge = Judge::of(app, user, query).await?;
    let mut dags = Vec::new();
    for row in all(app, stale).await? {
        if !judge.takes(&row, is_broken(&row)) {
            continue;
        }
        let version = app.versions.get(&*app.store, row.version).await?;
        let has_assets = version.spec.schedule.assets().is_some();
        if judge.has_assets.is_some_and(|wanted| wanted != has_assets)
            || judge
                .bundle
                .as_ref()
                .is_some_and(|wanted| version.bundle.as_ref() != Some(wanted))
            || !judge.runs_fit(app, &row.dag_id).await?
        {
            continue;
        }
        let mut dag = Value::Object(view::dag::dag(&row, &version, is_broken(&row)));
        if judge.orders_by_run {
            let last = last_run(app, &row.dag_id).await?;
            dag["last_run_state"] = json!(last.as_ref().map(|run| run.state));
            let started = last.as_ref().and_then(|run| run.started_at);
            dag["last_run_start_date"] = view::time_or_null(started);
            dag["last_run_run_after"] = view::time_or_null(last.map(|run| run.run_after));
        }
        dags.push(dag);
    }
    let (dags, total) = DAGS.page(query, dags)?;
    Ok((dags, i64::try_from(total).unwrap_or(i64::MAX)))
}

/// Every DAG, by id.
pub(super) async fn all(app: &App, stale: bool) -> Result<Vec<DagRow>, ApiError> {
    let mut found = Vec::new();
    loop {
        let offset = found.len() as i64;
        let page = app.store.dags(None, stale, CHUNK, offset).await?;
        let last = (page.rows.len() as i64) < CHUNK;
        found.extend(page.rows);
        if last {
            return Ok(found);
        }
    }
}

async fn last_run(
    app: &App,
    dag_id: &str,
) -> Result<Option<gristmill_common::row::RunRow>, ApiError> {
    let filter = RunFilter {
        dag_id: Some(dag_id.to_owned()),
        limit: 1,
        ..RunFilter::default()
    };
    Ok(app.store.runs(&filter).await?.rows.pop())
}

/// The conditions of one query.
#[derive(Debug)]
struct Judge {
    tags: Vec<String>,
    all_tags: bool,
    owners: Vec<String>,
    paused: Option<bool>,
    broken: Option<bool>,
    bundle_fits: bool,
    bundle: Option<String>,
    has_assets: Option<bool>,
    liked: Option<(bool, HashSet<String>)>,
    last_state: Option<String>,
    /// Only DAGs with a run like this.
    run: Option<RunFilter>,
    orders_by_run: bool,
}

impl Judge {
    async fn of(app: &App, user: &str, query: &Query) -> Result<Self, ApiError> {
        query.refuse(&["asset_dependency", "timetable_type"])?;
        let all_tags = match query.text("tags_match_mode") {
            None | Some("any") => false,
            Some("all") => true,
            Some(other) => {
                let msg = "Input should be 'any' or 'all'".to_owned();
                return Err(ApiError::field(FieldError::query(
                    "tags_match_mode",
                    msg,
                    other,
                )));
            }
        };
        let liked = match query.flag("is_favorite")? {
            None => None,
            Some(wanted) => {
                let liked = app.store.favorites(user).await?;
                Some((wanted, liked.into_iter().collect()))
            }
        };
        let last_state = query.states(
            "last_dag_run_state",
            &["queued", "running", "success", "failed"],
        )?;
        Ok(Self {
            tags: query.all("tags"),
            all_tags,
            owners: query.all("owners"),
            paused: query.flag("paused")?,
            broken: query.flag("has_import_errors")?,
            bundle_fits: query.text("bundle_name").is_none_or(|name| name == BUNDLE),
            bundle: query.text("bundle_version").map(str::to_owned),
            has_assets: query.flag("has_asset_schedule")?,
            liked,
            last_state: last_state.into_iter().next(),
            run: run_filter(query)?,
            orders_by_run: query
                .all("order_by")
                .iter()
                .any(|by| by.contains("last_run")),
        })
    }

    fn takes(&self, row: &DagRow, is_broken: bool) -> bool {
        let has = |tag: &String| row.tags.contains(tag);
        let tagged = match self.all_tags {
            _ if self.tags.is_empty() => true,
            true => self.tags.iter().all(has),
            false => self.tags.iter().any(has),
        };
        let owned = self.owners.is_empty()
            || row
                .owner
                .as_ref()
                .is_some_and(|owner| self.owners.contains(owner));
        tagged
            && owned
            && self.bundle_fits
            && self.paused.is_none_or(|wanted| wanted == row.is_paused)
            && self.broken.is_none_or(|wanted| wanted == is_broken)
            && self
                .liked
                .as_ref()
                .is_none_or(|(wanted, liked)| *wanted == liked.contains(&row.dag_id))
    }

    async fn runs_fit(&self, app: &App, dag_id: &str) -> Result<bool, ApiError> {
        if let Some(wanted) = &self.last_state {
            let last = last_run(app, dag_id).await?;
            if last.is_none_or(|run| run.state.as_str() != wanted) {
                return Ok(false);
            }
        }
        let Some(filter) = &self.run else {
            return Ok(true);
        };
        let filter = RunFilter {
            dag_id: Some(dag_id.to_owned()),
            limit: 1,
            ..filter.clone()
        };
        Ok(!app.store.runs(&filter).await?.rows.is_empty())
    }
}

/// What `dag_run_…` asks of a DAG's runs: the same names as of a listing of runs.
fn run_filter(query: &Query) -> Result<Option<RunFilter>, ApiError> {
    let of_runs = query.with_prefix("dag_run_");
    let filter = dag_runs::filter(None, &of_runs)?;
    let asks = !filter.states.is_empty() || !filter.listing.conditions.is_empty();
    Ok(asks.then_some(filter))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PatchAll {
    is_paused: bool,
}

/// Pauses or unpauses every DAG of the page; without a pattern none.
pub(super) async fn patch_all(
    User(caller): User,
    State(app): State<App>,
    query: Query,
    Body(body): Body<PatchAll>,
) -> Result<Json<Value>, ApiError> {
    if caller.dag_id.is_some() {
        return Err(ApiError::Forbidden);
    }
    must_mask_pause(&query)?;
    // Airflow changes nothing unless it is told which; `~` is all.
    if query.text("dag_id_pattern").is_none() && query.text("dag_id_prefix_pattern").is_none() {
        return Ok(Json(json!({ "dags": [], "total_entries": 0 })));
    }
    let (rows, total) = page(&app, &caller.name, &query).await?;
    let mut dags = Vec::with_capacity(rows.len());
    let event = if body.is_paused {
        "pause_dag"
    } else {
        "unpause_dag"
    };
    for mut dag in rows {
        let dag_id = dag["dag_id"].as_str().unwrap_or_default().to_owned();
        app.store.set_paused(&dag_id, body.is_paused).await?;
        caller
            .audit(&*app.store, event, About::dag(&dag_id), Value::Null)
            .await;
        dag["is_paused"] = body.is_paused.into();
        dags.push(dag);
    }
    Ok(Json(json!({ "dags": dags, "total_entries": total })))
}

pub(super) fn must_mask_pause(query: &Query) -> Result<(), ApiError> {
    let mask = query.all("update_mask");
    if mask.iter().all(|field| field == "is_paused") {
        return Ok(());
    }
    Err(ApiError::BadRequest(
        "Only `is_paused` field can be updated through the REST API".to_owned(),
    ))
}

/// Every tag that a DAG has.
pub(super) async fn tags(
    _: Viewer,
    State(app): State<App>,
    query: Query,
) -> Result<Json<Value>, ApiError> {
    const TAGS: Small = Small {
        name: "tags",
        patterns: &[("tag_name", "name")],
        texts: &[],
        times: &[],
        order: &[("name", "name")],
    };
    let tags: BTreeSet<String> = all(&app, false)
        .await?
        .into_iter()
        .flat_map(|dag| dag.tags)
        .collect();
    let rows = tags.into_iter().map(|tag| json!({ "name": tag })).collect();
    let (rows, total) = TAGS.page(&query, rows)?;
    let names: Vec<&Value> = rows.iter().map(|row| &row["name"]).collect();
    Ok(Json(json!({ "tags": names, "total_entries": total })))
}

pub(super) async fn favorite(
    Viewer(caller): Viewer,
    State(app): State<App>,
    At(dag_id): At<String>,
) -> Result<StatusCode, ApiError> {
    lookup::dag(&app, &dag_id).await?;
    app.store.set_favorite(&caller.name, &dag_id, true).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn unfavorite(
    Viewer(caller): Viewer,
    State(app): State<App>,
    At(dag_id): At<String>,
) -> Result<StatusCode, ApiError> {
    lookup::dag(&app, &dag_id).await?;
    if app.store.set_favorite(&caller.name, &dag_id, false).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::Conflict(
        "Dag is not marked as favorite".to_owned(),
    ))
}
