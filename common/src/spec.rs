//! A DAG specification, normalised: what the parser makes of a DAG file, what a DAG version stores, what the API takes.
//!
//! Defaults are filled in, `default_args` merged, groups flattened (`group.task`), `data` tasks expanded into their three
//! tasks, dependencies resolved to task ids, and the tasks stand in a topological order: their position is their
//! [`TaskIdx`]. The grammar of the file itself is in `docs/dag-format.md`.

use crate::{
    asset::Asset, ids::TaskIdx, retry_rule::RetryRule, span::Span, trigger_rule::TriggerRule,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

mod cache;
mod callback;
mod concurrency;
mod data;
mod flow;
mod http;
mod mapping;
mod schedule;
mod shell;
mod sql;
mod wait;

pub use cache::{CACHE_XCOM, Cache, cache_xcom};
pub use callback::{BodyTemplate, Callback, Deadline, Reference};
pub use concurrency::{Concurrency, Strategy};
pub use data::{
    DataFormat, DataPartitions, DataPhase, DataResources, DataSink, DataSource, DataTask, SinkMode,
    SplitBy,
};
pub use flow::{BranchTask, Decider, ShortCircuitTask, Teardown};
pub use http::{HttpBody, HttpExpect, HttpTask};
pub use mapping::{ExpandSource, MappedGroup, Mapping};
pub use schedule::{AssetSchedule, Overlap, Schedule};
pub use shell::{OutputMode, ResourceLimits, ShellTask};
pub use sql::{SqlOutput, SqlParameters, SqlTask};
pub use wait::{
    ApprovalTask, AssetUpdate, OnReject, OtherDag, POKE_QUEUE_SUFFIX, REJECT, SensorOn, SensorTask,
    SqlQuery, TriggerDagTask,
};

/// One version of a DAG.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DagSpec {
    pub dag_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doc_md: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default)]
    pub schedule: Schedule,
    /// IANA name of the time zone that the schedule and dates without an offset are read in.
    #[serde(default = "utc")]
    pub timezone: chrono_tz::Tz,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_date: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_date: Option<DateTime<Utc>>,
    #[serde(default)]
    pub catchup: bool,
    #[serde(default)]
    pub data_interval: DataInterval,
    /// Scheduled runs start up to this much later than their time: how much follows from the DAG's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Span>,
    #[serde(default, skip_serializing_if = "Overlap::is_default")]
    pub overlap: Overlap,
    /// After so many failed runs in a row the DAG is paused; 0: never.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_consecutive_failed_dag_runs: u32,
    /// Runs of this DAG in state `running` at one time.
    #[serde(default = "sixteen")]
    pub max_active_runs: u32,
    /// Task instances of one run that hold slots at one time.
    #[serde(default = "sixteen")]
    pub max_active_tasks: u32,
    /// A run that is older than this (from its start) is failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dagrun_timeout: Option<Span>,
    #[serde(default)]
    pub is_paused_upon_creation: bool,
    /// A limit that runs share whose key is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// Name to JSON Schema; a `default` in the schema is the parameter's default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Value>,
    /// The first failed instance ends the run: what runs is stopped, all else is skipped, but for teardowns.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fail_fast: bool,
    /// Groups that run once per item, by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mapped_groups: BTreeMap<String, MappedGroup>,
    /// Times by which a run should have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deadlines: Vec<Deadline>,
    /// Called when a run succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_success: Vec<Callback>,
    /// Called when a run failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_failure: Vec<Callback>,
    /// In topological order.
    pub tasks: Vec<TaskSpec>,
}

fn utc() -> chrono_tz::Tz {
    chrono_tz::UTC
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn sixteen() -> u32 {
    16
}

/// Which data interval a scheduled run carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataInterval {
    /// The interval before the tick: `logical_date` is its start, `run_after` its end.
    #[default]
    Preceding,
    /// No interval: `logical_date`, interval start and end are all the tick (Airflow 3's trigger timetable).
    None,
}

/// One task of a DAG.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    pub task_id: String,
    #[serde(flatten)]
    pub kind: TaskKind,
    /// Ids of direct upstream tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    #[serde(default)]
    pub trigger_rule: TriggerRule,
    #[serde(default)]
    pub retries: u32,
    #[serde(default = "five_minutes")]
    pub retry_delay: Span,
    /// The delay is multiplied by this for each further user failure; 0 keeps it constant.
    #[serde(default)]
    pub retry_exponential_backoff: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retry_delay: Option<Span>,
    /// What failures of certain kinds lead to; the first that fits decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retry_rules: Vec<RetryRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_timeout: Option<Span>,
    /// Failed if no worker takes it for so long after its dispatch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_timeout: Option<Span>,
    /// May be a template over `params` and `map`.
    #[serde(default = "default_queue")]
    pub queue: String,
    #[serde(default = "default_pool")]
    pub pool: String,
    #[serde(default = "one")]
    pub pool_slots: u32,
    #[serde(default = "one_i32")]
    pub priority_weight: i32,
    #[serde(default)]
    pub weight_rule: WeightRule,
    #[serde(default)]
    pub depends_on_past: bool,
    /// The same, also of its direct downstreams there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wait_for_downstream: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_active_tis_per_dag: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_active_tis_per_dagrun: Option<u32>,
    /// A limit that instances share whose key is the same, of whatever run and DAG.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// Present on a mapped task: name of the map variable to the list that it runs over (several: their cross product).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expand: Option<BTreeMap<String, ExpandSource>>,
    /// The same, the lists side by side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expand_zip: Option<BTreeMap<String, ExpandSource>>,
    /// A list of mappings, each the map variables of one instance. At most one of the three is present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expand_kwargs: Option<ExpandSource>,
    /// Id of the mapped group that it is in: each of its instances belongs to one of the group's items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped_group: Option<String>,
    /// Names the instances of a mapped task: a template over the run, `params`, `map` and `map_index`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_index_template: Option<String>,
    /// Environment of the task's process; values are templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doc_md: Option<String>,
    /// It prepares something: what is downstream of it, up to its teardowns, runs only if it succeeded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub setup: bool,
    /// It cleans up after setups, whatever happened in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teardown: Option<Teardown>,
    /// Assets that it reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inlets: Vec<Asset>,
    /// Assets that it updates: its success is an event of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outlets: Vec<Asset>,
    /// Times by which it should have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deadlines: Vec<Deadline>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_success: Vec<Callback>,
    /// Called when it failed for good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_failure: Vec<Callback>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_retry: Vec<Callback>,
    /// Called when it skipped itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_skipped: Vec<Callback>,
    /// Files that are kept after success: templates of paths or patterns below the attempt's folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// Upstreams whose artifacts are fetched before it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
}

fn five_minutes() -> Span {
    Span::from_secs(300)
}

/// The queue of tasks that name none.
pub const DEFAULT_QUEUE: &str = "default";
/// The pool of tasks that name none.
pub const DEFAULT_POOL: &str = "default_pool";
/// Slots of [`DEFAULT_POOL`] in a new deployment.
pub const DEFAULT_POOL_SLOTS: i32 = 128;

fn default_queue() -> String {
    DEFAULT_QUEUE.to_owned()
}

fn default_pool() -> String {
    DEFAULT_POOL.to_owned()
}

fn one() -> u32 {
    1
}

fn one_i32() -> i32 {
    1
}

/// What a task does. The key in the DAG file and in JSON is the kind's name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    Shell(Box<ShellTask>),
    Http(Box<HttpTask>),
    Sql(Box<SqlTask>),
    /// One phase of a `data` task.
    Data(Box<DataTask>),
    /// Ends in the scheduler, without a worker.
    Empty(Nothing),
    /// A worker claims it and does nothing: for load tests.
    Noop(Nothing),
    /// Decided in the scheduler, like the two that follow.
    Branch(BranchTask),
    ShortCircuit(ShortCircuitTask),
    /// Skips what is downstream in all runs but manual ones and the latest scheduled one.
    LatestOnly(Nothing),
    /// Waits until something is so.
    Sensor(Box<SensorTask>),
    /// Triggers a run of another DAG, without a worker.
    TriggerDag(Box<TriggerDagTask>),
    /// Waits for a person's answer, without a worker.
    Approval(Box<ApprovalTask>),
}

/// The object form of a kind without settings: `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

impl DagSpec {
    /// How a task is mapped, by itself or with its group; `None` if it is not.
    pub fn mapping<'s>(&'s self, task: &'s TaskSpec) -> Option<Mapping<'s>> {
        let group = || self.mapped_groups.get(task.mapped_group.as_ref()?);
        task.mapping().or_else(|| group()?.mapping())
    }
}

impl TaskSpec {
    /// Whether it waits for the run before.
    pub fn looks_back(&self) -> bool {
        self.depends_on_past || self.wait_for_downstream
    }

    /// Whether two tasks are members of one mapped group: then an instance of one has to do with one instance of the other,
    /// that of the same index.
    pub fn shares_map(&self, other: &Self) -> bool {
        self.mapped_group.is_some() && self.mapped_group == other.mapped_group
    }

    /// How the task itself is mapped, if it is.
    pub fn mapping(&self) -> Option<Mapping<'_>> {
        Mapping::of(
            self.expand.as_ref(),
            self.expand_zip.as_ref(),
            self.expand_kwargs.as_ref(),
        )
    }
}

impl TaskKind {
    /// The kind's name, as in the DAG file; Airflow's API shows it as `operator`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Shell(_) => "shell",
            Self::Http(_) => "http",
            Self::Sql(_) => "sql",
            Self::Data(_) => "data",
            Self::Empty(_) => "empty",
            Self::Noop(_) => "noop",
            Self::Branch(_) => "branch",
            Self::ShortCircuit(_) => "short_circuit",
            Self::LatestOnly(_) => "latest_only",
            Self::Sensor(_) => "sensor",
            Self::TriggerDag(_) => "trigger_dag",
            Self::Approval(_) => "approval",
        }
    }

    /// Whether a worker has to run it.
    pub fn needs_worker(&self) -> bool {
        !matches!(self, Self::Empty(_)) && self.decider().is_none() && !self.is_deferred()
    }

    /// Whether it waits in the database alone: the scheduler looks at it, starts and ends it.
    pub fn is_deferred(&self) -> bool {
        match self {
            Self::Sensor(sensor) => !sensor.pokes(),
            Self::TriggerDag(_) | Self::Approval(_) => true,
            _ => false,
        }
    }

    /// Whether its dispatches are pokes: short looks inside a worker, between which it holds nothing.
    pub fn pokes(&self) -> bool {
        matches!(self, Self::Sensor(sensor) if sensor.pokes())
    }
}

/// How `priority_weight` adds up along the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightRule {
    /// Own weight plus that of all tasks downstream.
    #[default]
    Downstream,
    /// Own weight plus that of all tasks upstream.
    Upstream,
    Absolute,
}

impl DagSpec {
    /// Position of a task.
    pub fn idx(&self, task_id: &str) -> Option<TaskIdx> {
        self.tasks
            .iter()
            .position(|t| t.task_id == task_id)
            .and_then(|i| TaskIdx::try_from(i).ok())
    }

    /// The task at a position that came from this very version.
    pub fn task(&self, idx: TaskIdx) -> Option<&TaskSpec> {
        usize::try_from(idx).ok().and_then(|i| self.tasks.get(i))
    }

    /// The default of each parameter that has one.
    pub fn param_defaults(&self) -> Map<String, Value> {
        self.params
            .iter()
            .filter_map(|(name, schema)| schema.get("default").map(|d| (name.clone(), d.clone())))
            .collect()
    }
}
