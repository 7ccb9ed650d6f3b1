//! The random DAGs.

use super::{Behaviour, Dag, Ledger, Options, Pool, WorkloadError, random::Random};
use gristmill_common::{dagfile, spec::ExpandSource};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, time::Duration};

/// Trigger rules other than the default, in the proportions in which they are given out.
const RULES: [&str; 11] = [
    "all_done",
    "all_done",
    "none_failed",
    "none_failed_min_one_success",
    "one_success",
    "one_failed",
    "one_done",
    "none_skipped",
    "all_failed",
    "all_skipped",
    "all_done_min_one_success",
];

/// The longest sleep of an instance of a mapped task.
const SHORT: Duration = Duration::from_millis(60);

/// Small pools, so that they are full most of the time.
pub(super) fn pools(random: &mut Random) -> Vec<Pool> {
    (0..3)
        .map(|i| Pool {
            name: format!("load_{i}"),
            slots: random.between(2, 8),
        })
        .collect()
}

/// The DAGs: more for more tasks, each of a shape of its own.
pub(super) fn dags(
    options: &Options,
    ledger: &Ledger,
    pools: &[Pool],
    random: &mut Random,
) -> Result<Vec<Dag>, WorkloadError> {
    let step = ledger.step_argument()?;
    let count = (options.tasks / 100).clamp(5, 20);
    (0..count)
        .map(|i| {
            let mut builder = Builder {
                options,
                step: &step,
                pools,
                random,
                tasks: Map::new(),
                behaviours: BTreeMap::new(),
            };
            match i % 5 {
                0 => builder.chain(),
                1 => builder.diamonds(),
                2 => builder.fan_out(),
                3 => builder.mapped(),
                _ => builder.layers(),
            }
            builder.finish(&format!("load_{}_{i}", options.seed))
        })
        .collect()
}

/// A DAG from its file.
pub(super) fn parsed(
    file: String,
    behaviours: BTreeMap<String, Behaviour>,
) -> Result<Dag, WorkloadError> {
    let parsed = dagfile::parse("load.yaml", &file).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        WorkloadError::DagFile(lines.join("; "))
    })?;
    let instances = |lists: &BTreeMap<String, ExpandSource>| {
        lists
            .values()
            .map(|list| match list {
                ExpandSource::Literal(list) => list.len(),
                ExpandSource::Template(_) => 1,
            })
            .product()
    };
    let instances = parsed
        .spec
        .tasks
        .iter()
        .map(|task| task.expand.as_ref().map_or(1, instances))
        .sum();
    Ok(Dag {
        spec: parsed.spec,
        file,
        instances,
        behaviours,
    })
}

struct Builder<'a> {
    options: &'a Options,
    step: &'a str,
    pools: &'a [Pool],
    random: &'a mut Random,
    tasks: Map<String, Value>,
    behaviours: BTreeMap<String, Behaviour>,
}

impl Builder<'_> {
    fn chain(&mut self) {
        let mut last = None;
        for i in 0..self.random.between(3, 10) {
            let upstream = Vec::from_iter(last);
            last = Some(self.task(&format!("c{i}"), upstream));
        }
    }

    /// One behind the other: a task, some beside each other, a join.
    fn diamonds(&mut self) {
        let mut top = self.task("d0", vec![]);
        for i in 1..=self.random.between(1, 4) {
            let sides: Vec<String> = (0..self.random.between(2, 4))
                .map(|side| self.task(&format!("d{i}s{side}"), vec![top.clone()]))
                .collect();
            top = self.task(&format!("d{i}"), sides);
        }
    }

    fn fan_out(&mut self) {
        let root = self.task("root", vec![]);
        let leaves: Vec<String> = (0..self.random.between(10, 30))
            .map(|i| self.task(&format!("f{i}"), vec![root.clone()]))
            .collect();
        self.task("join", leaves);
    }

    /// Mapped tasks, one upstream of the other.
    fn mapped(&mut self) {
        let root = self.task("root", vec![]);
        let first = self.task("m0", vec![root.clone()]);
        let second = self.task("m1", vec![first.clone()]);
        for task in [&first, &second] {
            let items: Vec<usize> = (0..self.random.between(0, 60)).collect();
            self.map_over(task, &items);
        }
        let beside = self.task("beside", vec![root]);
        self.task("join", vec![second, beside]);
    }

    /// Each task depends on some of those before it.
    fn layers(&mut self) {
        let mut known: Vec<String> = Vec::new();
        for i in 0..self.random.between(8, 30) {
            let mut upstream: Vec<String> = (0..self.random.below(4))
                .filter(|_| !known.is_empty())
                .map(|_| known[self.random.below(known.len())].clone())
                .collect();
            upstream.sort_unstable();
            upstream.dedup();
            let task = self.task(&format!("l{i}"), upstream);
            if self.random.percent(10) {
                let items: Vec<usize> = (0..self.random.between(0, 12)).collect();
                self.map_over(&task, &items);
            }
            known.push(task);
        }
    }

    /// Adds a task with random features; gives its id.
    fn task(&mut self, task_id: &str, upstream: Vec<String>) -> String {
        let mut task = Map::new();
        let roots = upstream.is_empty();
        task.insert("depends_on".into(), json!(upstream));
        if !roots && self.random.percent(25) {
            task.insert("trigger_rule".into(), json!(self.random.pick(&RULES)));
        }
        if self.random.percent(30) {
            let pool = self.random.pick(self.pools);
            let slots = self.random.between(1, 2.min(pool.slots));
            task.insert("pool".into(), json!(pool.name));
            task.insert("pool_slots".into(), json!(slots));
        }
        for limit in ["max_active_tis_per_dag", "max_active_tis_per_dagrun"] {
            if self.random.percent(8) {
                task.insert(limit.into(), json!(self.random.between(1, 4)));
            }
        }
        if self.random.percent(20) {
            task.insert("priority_weight".into(), json!(self.random.between(1, 9)));
        }
        if self.random.percent(self.options.shell_percent) {
            self.shell(task_id, &mut task, roots);
        } else if self.random.percent(10) {
            task.insert("empty".into(), json!({}));
        } else {
            task.insert("noop".into(), json!({}));
        }
        self.tasks.insert(task_id.to_owned(), Value::Object(task));
        task_id.to_owned()
    }

    fn shell(&mut self, task_id: &str, task: &mut Map<String, Value>, root: bool) {
        let random = &mut *self.random;
        let retries = random.below(4) as u32;
        // What hangs below a root that fails never runs: roots fail seldom.
        let often = if root { 1 } else { 4 };
        let behaviour = Behaviour {
            salt: random.next() as u32,
            failing: 15 * often,
            skipping: 10 * often,
            flaky: if retries > 0 { 200 } else { 0 },
            flaky_tries: if retries > 0 {
                random.between(1, retries as usize) as u32
            } else {
                0
            },
            longest: if random.percent(self.options.sleep_percent) {
                self.options.longest
            } else {
                Duration::ZERO
            },
            daemon: random.percent(self.options.daemon_percent),
            scan_one_in: self.options.scan_one_in,
        };
        let delay = format!("{}ms", self.options.retry_delay.as_millis());
        task.insert("shell".into(), json!(behaviour.command(self.step)));
        task.insert("retries".into(), json!(retries));
        task.insert("retry_delay".into(), json!(delay));
        self.behaviours.insert(task_id.to_owned(), behaviour);
    }

    /// Many instances may share a pool of two slots: they must not sleep for long one after the other.
    fn map_over(&mut self, task_id: &str, items: &[usize]) {
        self.set(task_id, "expand", json!({"i": items}));
        if let Some(behaviour) = self.behaviours.get_mut(task_id) {
            behaviour.longest = behaviour.longest.min(SHORT);
            let command = behaviour.command(self.step);
            self.set(task_id, "shell", json!(command));
        }
    }

    fn set(&mut self, task_id: &str, key: &str, value: Value) {
        if let Some(Value::Object(task)) = self.tasks.get_mut(task_id) {
            task.insert(key.to_owned(), value);
        }
    }

    fn finish(self, dag_id: &str) -> Result<Dag, WorkloadError> {
        let random = self.random;
        let file = json!({
            "dag_id": dag_id,
            "max_active_runs": random.between(1, 8),
            "max_active_tasks": random.between(2, 16),
            "tasks": self.tasks,
        });
        parsed(file.to_string(), self.behaviours)
    }
}
