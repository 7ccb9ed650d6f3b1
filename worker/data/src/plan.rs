//! `plan`: lists files, settles types, checks the queries and cuts the work.

use std::collections::BTreeMap;

use datafusion::arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt};
use uuid::Uuid;

use crate::cutting;
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::listing;
use crate::log;
use crate::query;
use crate::request::{
    Files, MAX_INLINE_FILES, Partition, Plan, PlanRequest, PlanResult, PlannedSource, Slice,
    columns,
};
use crate::schema;
use crate::session::Session;
use crate::sink;
use crate::sources::{self, CONCURRENCY};
use crate::spec::{DataSpec, PARTS_TABLE};
use crate::store::{Location, Stores};

/// Name and version of this engine. Plans and intermediate files are not promised to outlive a version.
pub fn engine() -> String {
    format!(
        "gristmill-data {} (datafusion {})",
        env!("CARGO_PKG_VERSION"),
        datafusion::DATAFUSION_VERSION
    )
}

/// A source with its files and columns.
struct Resolved<'a> {
    name: &'a str,
    files: Vec<Slice>,
    schema: SchemaRef,
}

/// Runs the phase.
pub async fn run(request: PlanRequest, spec: DataSpec) -> Result<PlanResult> {
    let stores = Stores::default();
    let session = Session::new(&spec.resources, true)?;
    let work_dir = Location::parse(&request.work_dir)?;

    let resolved: Vec<Resolved<'_>> =
        futures::stream::iter(spec.sources.iter().map(|(name, source)| {
            let (session, stores) = (&session, &stores);
            async move {
                let place = format!("sources.{name}");
                let files = listing::list(stores, &source.path)
                    .await
                    .map_err(|e| e.context(&place))?;
                let schema = sources::infer_schema(session, stores, source, &files)
                    .await
                    .map_err(|e| e.context(&place))?;
                let bytes = files.iter().map(|f| f.size).sum();
                log::info(format_args!(
                    "source {name}: {} files, {}",
                    files.len(),
                    log::bytes(bytes)
                ));
                Ok::<_, Error>(Resolved {
                    name,
                    files,
                    schema,
                })
            }
        }))
        .buffered(CONCURRENCY)
        .try_collect()
        .await?;

    let mut warnings = Vec::new();
    let cut_name = partition_source(&spec, &resolved).to_owned();
    let map_schema = check_queries(&session, &spec, &resolved, &cut_name, &mut warnings).await?;

    let cut = resolved
        .iter()
        .find(|r| r.name == cut_name)
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "the partition source is not among the sources",
            )
        })?;
    let mut slices = cutting::partitions(
        &stores,
        &spec,
        &cut_name,
        &spec.sources[&cut_name],
        &cut.files,
        &mut warnings,
    )
    .await?;
    if slices.is_empty() {
        // So that a query over nothing still has its answer, and a mapped task something to map over.
        slices.push(Vec::new());
    }
    if slices.len() == 1 {
        warnings.retain(|w| !w.starts_with("map_sql:"));
    }

    let total_bytes = cut.files.iter().map(|f| f.size).sum();
    let plan = Plan {
        engine: engine(),
        id: Uuid::new_v4().simple().to_string(),
        spec: request.spec,
        partition_source: cut_name.clone(),
        partitions: slices.len(),
        sources: planned_sources(&resolved, &cut_name)?,
        map_schema: schema::encode(&map_schema)?,
    };
    let plan_at = work_dir.join(&format!("plan-{}.json", plan.id));
    let mut partitions = Vec::with_capacity(slices.len());
    for (index, files) in slices.into_iter().enumerate() {
        let bytes = files.iter().map(|f| f.end - f.start).sum();
        let list = work_dir.join(&format!("partition-{}-{index:05}.json", plan.id));
        partitions.push(Partition {
            index,
            plan: plan_at.to_string(),
            bytes,
            files: shorten(&stores, files, &list).await?,
        });
    }
    stores.write_json(&plan_at, &plan).await?;
    fault::point("plan.written");

    for warning in &warnings {
        log::warn(warning);
    }
    log::info(format_args!(
        "planned {} partitions of {cut_name} ({})",
        partitions.len(),
        log::bytes(total_bytes)
    ));
    Ok(PlanResult {
        plan: plan_at.to_string(),
        partitions,
        partition_source: cut_name,
        total_bytes,
        map_schema: columns(&map_schema),
        warnings,
    })
}

/// A list in place if it is short, else written to `at`.
pub async fn shorten<T: serde::Serialize>(
    stores: &Stores,
    files: Vec<T>,
    at: &Location,
) -> Result<Files<T>> {
    if files.len() <= MAX_INLINE_FILES {
        return Ok(Files::Inline { files });
    }
    stores.write_json(at, &files).await?;
    Ok(Files::Reference {
        files_ref: at.to_string(),
    })
}

/// The list that [`shorten`] may have written elsewhere.
pub async fn lengthen<T: serde::de::DeserializeOwned>(
    stores: &Stores,
    files: Files<T>,
) -> Result<Vec<T>> {
    match files {
        Files::Inline { files } => Ok(files),
        Files::Reference { files_ref } => {
            let found = stores.read_json(&Location::parse(&files_ref)?).await?;
            found.ok_or_else(|| Error::new(ErrorKind::InputLost, format!("{files_ref} is gone")))
        }
    }
}

/// Reads the plan and refuses one that does not fit this engine or `spec`.
pub async fn load(stores: &Stores, url: &str, spec: &DataSpec) -> Result<Plan> {
    let plan: Plan = stores
        .read_json(&Location::parse(url)?)
        .await?
        .ok_or_else(|| {
            Error::new(
                ErrorKind::InputLost,
                format!("the plan {url} is gone; clear the plan task"),
            )
        })?;
    if plan.engine != engine() {
        return Err(Error::request(format!(
            "the plan was made by {}, this is {}; clear the plan task",
            plan.engine,
            engine()
        )));
    }
    if !plan.matches(spec) {
        return Err(Error::request(
            "the spec is not the one that was planned; clear the plan task",
        ));
    }
    Ok(plan)
}

fn partition_source<'a>(spec: &'a DataSpec, resolved: &'a [Resolved<'a>]) -> &'a str {
    if let Some(name) = &spec.partition_source {
        return name;
    }
    // The first by name among equals, so that planning twice gives the same.
    resolved
        .iter()
        .filter(|r| !spec.sources[r.name].broadcast)
        .rev()
        .max_by_key(|r| r.files.iter().map(|f| f.size).sum::<u64>())
        .map_or("", |r| r.name)
}

/// Plans both queries against empty tables; gives the columns of `parts`.
async fn check_queries(
    session: &Session,
    spec: &DataSpec,
    resolved: &[Resolved<'_>],
    cut: &str,
    warnings: &mut Vec<String>,
) -> Result<SchemaRef> {
    let tables: Vec<(&str, SchemaRef)> = resolved
        .iter()
        .map(|r| (r.name, SchemaRef::clone(&r.schema)))
        .collect();
    sources::register_empty(session, &tables)?;
    let logical = query::logical_plan(session, "map_sql", &spec.map_sql).await?;
    let used = query::partition_use(&logical, cut)?;
    if used.scans == 0 {
        return Err(Error::new(
            ErrorKind::BadSql,
            format!(
                "map_sql: does not read {cut:?}, the source that is cut, so each partition would give the same rows; \
                 read it or name another as partition_source"
            ),
        ));
    }
    if used.scans > 1 {
        warnings.push(format!(
            "map_sql: reads {cut} {} times; rows of different partitions never meet, so a self-join misses pairs",
            used.scans
        ));
    }
    if used.keeps_other_side {
        warnings.push(format!(
            "map_sql: an outer, semi or anti join keeps rows of the other side once per partition of {cut}"
        ));
    }
    if let (Some(operator), None) = (used.whole_table_operator, &spec.reduce_sql) {
        warnings.push(format!(
            "map_sql: {operator} works on each partition of {cut} alone, and without reduce_sql nothing combines them"
        ));
    }
    let physical = query::physical_plan(session, "map_sql", &spec.map_sql).await?;
    schema::check_names("map_sql", &physical.schema())?;
    let map_schema = schema::portable(&physical.schema());

    let mut result = SchemaRef::clone(&map_schema);
    if let Some(sql) = &spec.reduce_sql {
        session.context.deregister_table(cut)?;
        sources::register_empty(session, &[(PARTS_TABLE, SchemaRef::clone(&map_schema))])?;
        let physical = query::physical_plan(session, "reduce_sql", sql).await?;
        schema::check_names("reduce_sql", &physical.schema())?;
        result = schema::portable(&physical.schema());
    }
    if let Some(sink) = &spec.sink {
        sink::check_schema(sink.format, &result)?;
    }
    Ok(map_schema)
}

fn planned_sources(
    resolved: &[Resolved<'_>],
    cut: &str,
) -> Result<BTreeMap<String, PlannedSource>> {
    resolved
        .iter()
        .map(|r| {
            let files = if r.name == cut {
                Vec::new()
            } else {
                r.files.clone()
            };
            let schema = schema::encode(&r.schema)?;
            Ok((r.name.to_owned(), PlannedSource { schema, files }))
        })
        .collect()
}
