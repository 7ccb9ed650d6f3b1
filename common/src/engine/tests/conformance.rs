//! Replays what Airflow's own engine did (`common/tests/conformance/final_states`): the same DAGs, their instances ended in
//! the same order, and every final state has to be equal. Where we differ by intent the fixture holds our answer beside
//! Airflow's, under a name that `docs/differences.md` explains.

use super::harness::*;
use crate::{
    ids::{TaskIdx, UNMAPPED},
    message::{Ending, XcomOut},
    row::{RETURN_VALUE, TiRow, XcomValue},
    spec::DagSpec,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path};

#[derive(Debug, Deserialize)]
struct Dag {
    id: u64,
    tasks: Vec<Task>,
    #[serde(default)]
    fail_fast: u8,
    runs: Vec<Run>,
}

/// See the README beside the fixture for what the keys mean.
#[derive(Debug, Deserialize)]
struct Task {
    u: Vec<usize>,
    r: String,
    /// How often it fails first, and how it ends then: by map index modulo 3.
    #[serde(default)]
    o: Vec<(i32, char)>,
    #[serde(default)]
    n: u32,
    /// Length of the list that it returns.
    #[serde(default)]
    l: usize,
    m: Option<Mapped>,
    b: Option<Choice>,
    c: Option<(u8, u8)>,
    #[serde(default)]
    e: u8,
    #[serde(default)]
    s: u8,
    t: Option<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Mapped {
    Length(usize),
    From { from: usize },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Choice {
    Tasks(Vec<usize>),
    Bad(String),
}

#[derive(Debug, Deserialize)]
struct Run {
    /// (task, map index), in the order in which attempts ended.
    o: Vec<(usize, i32)>,
    run: String,
    s: Vec<String>,
    #[serde(default)]
    differs: Vec<String>,
}

impl Task {
    fn json(&self, i: usize) -> Value {
        let ups: Vec<String> = self.u.iter().map(|up| format!("t{up}")).collect();
        let ups: Vec<&str> = ups.iter().map(String::as_str).collect();
        let mut more = json!({"trigger_rule": self.r, "retries": self.n, "retry_delay": 0, "setup": self.s == 1});
        if self.e == 1 {
            more["empty"] = json!({});
        }
        match &self.b {
            Some(Choice::Tasks(tasks)) => {
                let ids: Vec<String> = tasks.iter().map(|task| format!("'t{task}'")).collect();
                more["branch"] = json!({"choose": format!("{{{{ [{}] }}}}", ids.join(", "))});
            }
            Some(Choice::Bad(id)) => more["branch"] = json!({"choose": id}),
            None => {}
        }
        if let Some((holds, ignore)) = self.c {
            more["short_circuit"] = json!({
                "condition": if holds == 1 { "true" } else { "false" },
                "ignore_downstream_trigger_rules": ignore == 1,
            });
        }
        match self.m {
            Some(Mapped::Length(n)) => more["expand"] = json!({"x": (0..n).collect::<Vec<_>>()}),
            Some(Mapped::From { from }) => {
                more["expand"] = json!({"x": format!("{{{{ ti.xcom_pull('t{from}') }}}}")});
            }
            None => {}
        }
        if let Some(fails_run) = self.t {
            more["teardown"] = json!({"on_failure_fail_dagrun": fails_run == 1});
        }
        task(&format!("t{i}"), &ups, more)
    }

    fn ending(&self, row: &TiRow) -> (Ending, Vec<XcomOut>) {
        let (fails, then) = self.o[row.map_index.max(0) as usize % 3];
        let ending = match then {
            _ if row.try_number <= fails => Ending::Failed,
            's' => Ending::Success,
            'k' => Ending::Skipped,
            _ => Ending::Failed,
        };
        let list = XcomOut {
            key: RETURN_VALUE.to_owned(),
            value: XcomValue::Inline(json!((0..self.l).collect::<Vec<_>>())),
        };
        let xcoms = if ending == Ending::Success {
            vec![list]
        } else {
            Vec::new()
        };
        (ending, xcoms)
    }
}

impl Dag {
    fn world(&self) -> World {
        let tasks = self.tasks.iter().enumerate();
        let tasks: Vec<Value> = tasks.map(|(i, task)| task.json(i)).collect();
        let spec: DagSpec = serde_json::from_value(json!({
            "dag_id": "d", "max_active_tasks": 1000, "fail_fast": self.fail_fast == 1, "tasks": tasks,
        }))
        .unwrap();
        let mut world = World::of(spec, 1);
        world.start();
        world
    }

    /// What is wrong with a run, if anything is.
    fn replay(&self, run: &Run) -> Option<String> {
        let mut world = self.world();
        for (at, (task, map_index)) in run.o.iter().enumerate() {
            world.dispatch();
            let rows = world.instances(RUN, *task as TaskIdx);
            let row = rows.iter().find(|row| row.map_index == *map_index);
            let Some(row) = row
                .filter(|row| row.state.is_dispatched())
                .copied()
                .cloned()
            else {
                return Some(format!(
                    "ending {at}, of t{task}[{map_index}]: it is not out: {:?}",
                    states(&world)
                ));
            };
            let (ending, xcoms) = self.tasks[*task].ending(&row);
            let outcome = world.apply(&[finished_with(&row, ending, xcoms)]);
            let cancelled: Vec<_> = outcome
                .to_cancel
                .iter()
                .map(|ti| finished(&world.tis[ti], Ending::Cancelled))
                .collect();
            if !cancelled.is_empty() {
                world.apply(&cancelled);
            }
        }
        let ended = (world.run().state.as_str(), states(&world));
        let wanted = (run.run.as_str(), run.s.clone());
        (ended != wanted).then(|| format!("ended as {ended:?}, in Airflow as {wanted:?}"))
    }
}

/// By task, a letter for each instance; with a `*` before them if the task was expanded.
fn states(world: &World) -> Vec<String> {
    let letter = |row: &&TiRow| match row.state.as_str() {
        "success" => 's',
        "failed" => 'f',
        "skipped" => 'k',
        "upstream_failed" => 'u',
        _ => '-',
    };
    let tasks = 0..world.plan(RUN).spec.tasks.len() as TaskIdx;
    let of_task = |idx| {
        let mut rows = world.instances(RUN, idx);
        rows.sort_by_key(|row| row.map_index);
        let expanded = rows.iter().any(|row| row.map_index != UNMAPPED);
        let star = if expanded { "*" } else { "" };
        format!("{star}{}", rows.iter().map(letter).collect::<String>())
    };
    tasks.map(of_task).collect()
}

#[test]
fn final_states_are_airflows() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/final_states");
    let lines = fs::read_to_string(folder.join("runs.jsonl")).unwrap();
    let documented = fs::read_to_string(folder.join("../../../../docs/differences.md")).unwrap();
    let (mut dags, mut runs, mut wrong) = (0, 0, Vec::new());
    let mut differences: BTreeMap<String, usize> = BTreeMap::new();
    for line in lines.lines() {
        let dag: Dag = serde_json::from_str(line).unwrap();
        dags += 1;
        for run in &dag.runs {
            runs += 1;
            for name in &run.differs {
                *differences.entry(name.clone()).or_default() += 1;
            }
            if let Some(problem) = dag.replay(run) {
                wrong.push(format!(
                    "DAG {}: {problem} {:?} {:?}",
                    dag.id, run.differs, run.o
                ));
            }
        }
    }
    println!("{runs} runs of {dags} DAGs replayed; wanted differences: {differences:?}");
    for name in differences.keys() {
        let heading = format!("`{name}`");
        assert!(
            documented.contains(&heading),
            "docs/differences.md does not explain {heading}"
        );
    }
    assert!(
        wrong.is_empty(),
        "{} of {runs} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        dags >= 1000 && runs >= 1500,
        "the fixture is not whole: {dags} DAGs, {runs} runs"
    );
}
