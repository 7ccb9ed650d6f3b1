//! Random deployments: DAGs, the scripts of their tasks, and limits.

use crate::{
    engine::tests::harness::{World, task},
    ids::TaskIdx,
    limit::LimitKey,
    message::{Ending, MAX_BODY},
    reference::{Decision, List, Outcome},
    spec::DagSpec,
    trigger_rule::TriggerRule,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What an instance's tries come to: the first so many fail, then it ends so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    fails: i32,
    then: Outcome,
}

/// One variable of a mapped task.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    Literal(usize),
    NoList,
    /// The result of an upstream: chosen among the tasks before it.
    Upstream(usize),
}

/// What a task is to the tasks below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Plain,
    /// Chooses among its direct downstreams, by bits; 0xffff: a task that there is not.
    Branch(u16),
    ShortCircuit {
        holds: bool,
        ignore: bool,
    },
    Setup,
    Teardown {
        fails_run: bool,
    },
}

#[derive(Debug, Clone)]
pub(super) struct TaskShape {
    /// Chooses upstreams among the tasks before it, by bits.
    upstreams: u16,
    pub(super) rule: TriggerRule,
    retries: u32,
    /// Seconds.
    retry_delay: u32,
    pub(super) empty: bool,
    pool: Option<u32>,
    per_dag: Option<u32>,
    per_run: Option<u32>,
    other_queue: bool,
    /// Its message is too large to be made.
    too_large: bool,
    pub(super) sources: Vec<Source>,
    pub(super) flow: Flow,
    /// What a success returns; `None`: a number.
    pub(super) returns: Option<usize>,
    courses: [Course; 3],
}

#[derive(Debug, Clone)]
pub(super) struct DagShape {
    pub(super) tasks: Vec<TaskShape>,
    runs: usize,
    max_active_runs: u32,
    max_active_tasks: u32,
    /// Seconds from its start after which a run is stopped.
    pub(super) timeout: Option<i64>,
}

#[derive(Debug, Clone)]
pub(super) struct Deployment {
    pub(super) dags: Vec<DagShape>,
    pub(super) pool_cap: i64,
    pub(super) queue_cap: i64,
}

fn course() -> impl Strategy<Value = Course> {
    let then = prop_oneof![
        6 => Just(Outcome::Success),
        2 => Just(Outcome::Skipped),
        1 => Just(Outcome::FailedForGood),
    ];
    let fails = prop_oneof![3 => Just(0), 1 => 1..4i32];
    (fails, then).prop_map(|(fails, then)| Course { fails, then })
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![
        1 => Just(Source::Literal(0)),
        4 => (1..4usize).prop_map(Source::Literal),
        1 => Just(Source::NoList),
        4 => any::<usize>().prop_map(Source::Upstream),
    ]
}

fn flow() -> impl Strategy<Value = Flow> {
    let circuit = (proptest::bool::weighted(0.3), any::<bool>());
    prop_oneof![
        8 => Just(Flow::Plain),
        2 => any::<u16>().prop_map(Flow::Branch),
        1 => Just(Flow::Branch(u16::MAX)),
        2 => circuit.prop_map(|(holds, ignore)| Flow::ShortCircuit { holds, ignore }),
        2 => Just(Flow::Setup),
        2 => any::<bool>().prop_map(|fails_run| Flow::Teardown { fails_run }),
    ]
}

fn task_shape(flows: bool) -> impl Strategy<Value = TaskShape> {
    let flow = if flows {
        flow().boxed()
    } else {
        Just(Flow::Plain).boxed()
    };
    let rule = prop_oneof![
        2 => Just(TriggerRule::AllSuccess),
        3 => proptest::sample::select(TriggerRule::ALL.map(|(rule, _)| rule).to_vec()),
    ];
    let sources = prop_oneof![
        4 => Just(Vec::new()),
        4 => source().prop_map(|one| vec![one]),
        1 => [source(), source()].prop_map(Vec::from),
    ];
    let rarely = || proptest::bool::weighted(0.15);
    let limits = (
        proptest::option::of(1..4u32),
        proptest::option::weighted(0.2, 1..3u32),
        proptest::option::weighted(0.2, 1..3u32),
        any::<bool>(),
    );
    (
        (any::<u16>(), any::<u16>()),
        rule,
        (0..3u32, 0..3u32),
        (rarely(), proptest::bool::weighted(0.03)),
        limits,
        sources,
        proptest::option::weighted(0.8, 0..4usize),
        [course(), course(), course()],
        flow,
    )
        .prop_map(
            |(bits, rule, retry, (empty, too_large), limits, sources, returns, courses, flow)| {
                let (retries, retry_delay) = retry;
                let (pool, per_dag, per_run, other_queue) = limits;
                TaskShape {
                    upstreams: bits.0 & bits.1,
                    rule,
                    retries,
                    retry_delay,
                    empty,
                    pool,
                    per_dag,
                    per_run,
                    other_queue,
                    too_large,
                    sources: if flow.is_decider() {
                        Vec::new()
                    } else {
                        sources
                    },
                    flow,
                    returns,
                    courses,
                }
            },
        )
}

fn dag_shape(flows: bool) -> impl Strategy<Value = DagShape> {
    (
        proptest::collection::vec(task_shape(flows), 0..9),
        1..3usize,
        1..3u32,
        1..6u32,
        proptest::option::weighted(0.3, 1..30i64),
    )
        .prop_map(
            |(tasks, runs, max_active_runs, max_active_tasks, timeout)| DagShape {
                tasks,
                runs,
                max_active_runs,
                max_active_tasks,
                timeout,
            },
        )
}

/// `flows`: with branches, short circuits, setups and teardowns.
pub(super) fn deployment(flows: bool) -> impl Strategy<Value = Deployment> {
    let dags = proptest::collection::vec(dag_shape(flows), 1..4);
    (dags, 1..5i64, 1..5i64).prop_map(|(dags, pool_cap, queue_cap)| Deployment {
        dags,
        pool_cap,
        queue_cap,
    })
}

impl Deployment {
    pub(super) fn world(&self) -> World {
        let dags = self.dags.iter().enumerate();
        let dags = dags.map(|(n, dag)| (dag.spec(n, self.pool_cap), dag.runs));
        let mut world = World::of_dags(dags.collect());
        world.pool("p", self.pool_cap);
        self.restore_caps(&mut world);
        world
    }

    /// Caps as they are configured.
    pub(super) fn restore_caps(&self, world: &mut World) {
        for limit in world.limits.values_mut() {
            limit.paused = false;
            match &limit.key {
                LimitKey::Queue { .. } => limit.cap = self.queue_cap,
                LimitKey::Pool { name } if name == "p" => limit.cap = self.pool_cap,
                _ => {}
            }
        }
    }

    /// The DAG of each run, in the order of their keys.
    pub(super) fn dag_of_runs(&self) -> impl Iterator<Item = &DagShape> {
        self.dags
            .iter()
            .flat_map(|dag| std::iter::repeat_n(dag, dag.runs))
    }
}

impl DagShape {
    fn spec(&self, n: usize, pool_cap: i64) -> DagSpec {
        let tasks = self.tasks.iter().enumerate();
        let tasks: Vec<Value> = tasks.map(|(i, t)| t.json(i, pool_cap, self)).collect();
        let spec = json!({
            "dag_id": format!("d{n}"), "max_active_tasks": self.max_active_tasks,
            "max_active_runs": self.max_active_runs, "tasks": tasks,
        });
        serde_json::from_value(spec).unwrap()
    }

    pub(super) fn outcome(&self, task: TaskIdx, map_index: i32, try_number: i32) -> Outcome {
        let task = &self.tasks[task as usize];
        let course = task.courses[map_index.max(0) as usize % 3];
        if task.too_large {
            Outcome::FailedForGood
        } else if try_number <= course.fails {
            Outcome::Failed
        } else {
            course.then
        }
    }
}

impl Flow {
    pub(super) fn is_decider(self) -> bool {
        matches!(self, Self::Branch(_) | Self::ShortCircuit { .. })
    }
}

impl DagShape {
    fn downstream(&self, i: usize) -> Vec<usize> {
        let tasks = self.tasks.iter().enumerate();
        tasks
            .filter(|(j, task)| task.direct(*j).contains(&i))
            .map(|(j, _)| j)
            .collect()
    }

    fn all_downstream(&self, i: usize) -> BTreeSet<usize> {
        let direct = self.downstream(i);
        let further = direct
            .iter()
            .flat_map(|j| self.all_downstream(*j))
            .collect::<Vec<_>>();
        direct.into_iter().chain(further).collect()
    }

    /// What a branch at `i` chooses.
    pub(super) fn chosen(&self, i: usize, bits: u16) -> Vec<usize> {
        self.downstream(i)
            .into_iter()
            .filter(|j| bits >> j & 1 == 1)
            .collect()
    }

    /// What a decider at `i` comes to.
    pub(super) fn decision(&self, i: usize) -> Decision {
        let skips: Vec<usize> = match self.tasks[i].flow {
            Flow::Branch(u16::MAX) => return Decision::Fails,
            Flow::Branch(bits) => {
                let chosen = self.chosen(i, bits);
                let followed: BTreeSet<usize> = chosen
                    .iter()
                    .flat_map(|j| self.all_downstream(*j))
                    .chain(chosen.clone())
                    .collect();
                self.downstream(i)
                    .into_iter()
                    .filter(|j| !followed.contains(j))
                    .collect()
            }
            Flow::ShortCircuit {
                holds: false,
                ignore,
            } => {
                let below = if ignore {
                    self.all_downstream(i).into_iter().collect()
                } else {
                    self.downstream(i)
                };
                let is_teardown = |j: &usize| matches!(self.tasks[*j].flow, Flow::Teardown { .. });
                below.into_iter().filter(|j| !is_teardown(j)).collect()
            }
            _ => Vec::new(),
        };
        Decision::Skips(skips.into_iter().map(|j| j as TaskIdx).collect())
    }
}

impl TaskShape {
    fn json(&self, i: usize, pool_cap: i64, dag: &DagShape) -> Value {
        let upstreams: Vec<String> = self.direct(i).iter().map(|up| format!("t{up}")).collect();
        let mut expand = json!({});
        for (name, source) in ["x", "y"].iter().zip(&self.sources) {
            expand[name] = match *source {
                Source::Literal(n) => json!((0..n).collect::<Vec<_>>()),
                Source::Upstream(choice) if i > 0 => {
                    // Upstream already: see `direct`.
                    json!(format!("{{{{ ti.xcom_pull('t{}') }}}}", choice % i))
                }
                Source::NoList | Source::Upstream(_) => json!("{{ 5 }}"),
            };
        }
        let upstreams: Vec<&str> = upstreams.iter().map(String::as_str).collect();
        let mut rule = self.rule;
        let mut flow = json!({});
        match self.flow {
            Flow::Plain => {}
            Flow::Branch(u16::MAX) => flow["branch"] = json!({"choose": "nobody"}),
            Flow::Branch(bits) => {
                let chosen = dag.chosen(i, bits);
                let ids: Vec<String> = chosen.iter().map(|task| format!("'t{task}'")).collect();
                flow["branch"] = json!({"choose": format!("{{{{ [{}] }}}}", ids.join(", "))});
            }
            Flow::ShortCircuit { holds, ignore } => {
                let condition = holds.to_string();
                flow["short_circuit"] =
                    json!({"condition": condition, "ignore_downstream_trigger_rules": ignore});
            }
            Flow::Setup => flow["setup"] = json!(true),
            Flow::Teardown { fails_run } => {
                flow["teardown"] = json!({"on_failure_fail_dagrun": fails_run});
                rule = TriggerRule::AllDoneSetupSuccess;
            }
        }
        let mut more = json!({
            "trigger_rule": rule.as_str(), "retries": self.retries,
            "retry_delay": format!("{}s", self.retry_delay), "priority_weight": i % 3,
            "queue": if self.other_queue { "other" } else { "default" },
            "max_active_tis_per_dag": self.per_dag, "max_active_tis_per_dagrun": self.per_run,
        });
        if self.empty && !self.flow.is_decider() {
            more["empty"] = json!({});
        }
        for (key, value) in flow.as_object().into_iter().flatten() {
            more[key] = value.clone();
        }
        if let Some(slots) = self.pool {
            more["pool"] = json!("p");
            more["pool_slots"] = json!(i64::from(slots).min(pool_cap));
        }
        if self.too_large {
            more["env"] = json!({"LARGE": "x".repeat(MAX_BODY)});
        }
        if !self.sources.is_empty() {
            more["expand"] = expand;
        }
        task(&format!("t{i}"), &upstreams, more)
    }

    /// Its direct upstreams, at position `i`.
    pub(super) fn direct(&self, i: usize) -> BTreeSet<usize> {
        let mut direct: BTreeSet<usize> =
            (0..i).filter(|up| self.upstreams >> up & 1 == 1).collect();
        direct.extend(self.sources.iter().filter_map(|source| match source {
            Source::Upstream(choice) if i > 0 => Some(choice % i),
            _ => None,
        }));
        direct
    }

    /// The task that a variable of a task at `i` is pulled from.
    pub(super) fn producer(&self, i: usize, variable: &str) -> Option<usize> {
        match self.sources[usize::from(variable == "y")] {
            Source::Upstream(choice) if i > 0 => Some(choice % i),
            _ => None,
        }
    }

    /// Whether it may run while upstreams have not ended.
    pub(super) fn may_run_early(&self) -> bool {
        !matches!(self.flow, Flow::Teardown { .. })
            && matches!(
                self.rule,
                TriggerRule::Always
                    | TriggerRule::OneSuccess
                    | TriggerRule::OneFailed
                    | TriggerRule::OneDone
            )
    }

    /// What a success returns.
    pub(super) fn value(&self) -> Value {
        match self.returns {
            Some(n) => json!((0..n).collect::<Vec<_>>()),
            None => json!(5),
        }
    }

    pub(super) fn list(&self) -> List {
        self.returns.map_or(List::None, List::Length)
    }
}

pub(super) fn ending(outcome: Outcome) -> Ending {
    match outcome {
        Outcome::Success => Ending::Success,
        Outcome::Failed => Ending::Failed,
        Outcome::FailedForGood => Ending::FailedForGood,
        Outcome::Skipped => Ending::Skipped,
    }
}
