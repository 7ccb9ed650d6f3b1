//! What Airflow's own engine did (`common/tests/conformance/final_states`), replayed through the shipped binary: the same DAGs,
//! whose tasks wait to be told how to end, told so in the order in which they ended there. Every final state has to be equal.

use crate::{
    standalone::Standalone,
    support::{Client, Deployment, SOON, Shape},
};
use gristmill_testkit::wait;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};
use tokio::{sync::Semaphore, task::JoinSet};

/// Runs at one time.
const AT_ONCE: usize = 6;
/// DAGs of the sample that has each kind of task and each rule in it at least so often.
const OF_EACH_KIND: usize = 3;

/// See the README beside the fixture for what the keys mean.
#[derive(Debug, Clone, Deserialize)]
struct Dag {
    id: u64,
    tasks: Vec<Value>,
    #[serde(default)]
    fail_fast: u8,
    runs: Vec<Run>,
}

#[derive(Debug, Clone, Deserialize)]
struct Run {
    o: Vec<(usize, i32)>,
    run: String,
    s: Vec<String>,
}

impl Dag {
    /// What there is in it: kinds of tasks, and trigger rules.
    fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<String> = Vec::new();
        for task in &self.tasks {
            let there = ["b", "c", "m", "e", "s", "t"].iter();
            kinds.extend(
                there
                    .filter(|key| task.get(**key).is_some())
                    .map(|key| (*key).to_owned()),
            );
            kinds.extend((task["n"].as_u64() > Some(0)).then(|| "retries".to_owned()));
            kinds.extend(task["r"].as_str().map(str::to_owned));
        }
        kinds.extend((self.fail_fast == 1).then(|| "fail_fast".to_owned()));
        kinds.sort();
        kinds.dedup();
        kinds
    }

    fn name(&self) -> String {
        format!("c{}", self.id)
    }

    /// The DAG file, whose tasks wait at a gate of the folder for how they end.
    fn file(&self, gates: &Path) -> String {
        let tasks: serde_json::Map<String, Value> = self
            .tasks
            .iter()
            .enumerate()
            .map(|(i, task)| (format!("t{i}"), definition(task)))
            .collect();
        json!({
            "dag_id": self.name(),
            "max_active_tasks": 1000,
            "max_active_runs": 1000,
            "fail_fast": self.fail_fast == 1,
            "default_args": {"env": {"GATES": gates}},
            "tasks": tasks,
        })
        .to_string()
    }
}

fn definition(task: &Value) -> Value {
    let name = |i: &Value| format!("t{i}");
    let ups: Vec<String> = task["u"].as_array().unwrap().iter().map(name).collect();
    let mut made = json!({"depends_on": ups, "trigger_rule": task["r"]});
    if let Some(choice) = task.get("b") {
        let choose = match choice {
            Value::Array(tasks) => {
                let ids: Vec<String> = tasks.iter().map(|t| format!("'{}'", name(t))).collect();
                format!("{{{{ [{}] }}}}", ids.join(", "))
            }
            // One that the file does not show to be wrong.
            bad => format!("{{{{ ['{}'] | first }}}}", bad.as_str().unwrap()),
        };
        made["branch"] = json!({"choose": choose});
    } else if let Some(circuit) = task.get("c") {
        made["short_circuit"] = json!({
            "condition": if circuit[0] == 1 { "true" } else { "false" },
            "ignore_downstream_trigger_rules": circuit[1] == 1,
        });
    } else if task.get("e").is_some() {
        made["empty"] = json!({});
    } else {
        let list: Vec<u64> = (0..task["l"].as_u64().unwrap_or(0)).collect();
        let command = format!(
            r#"gate="$GATES/$GRISTMILL_RUN_ID/$GRISTMILL_TASK_ID.$GRISTMILL_MAP_INDEX.$GRISTMILL_TRY_NUMBER"
mkfifo "$gate"; read -r how < "$gate"
case $how in s) echo '{}';; k) exit 99;; *) exit 1;; esac"#,
            json!(list)
        );
        made["shell"] = json!({"command": command, "output": "json"});
        made["retries"] = task["n"].clone();
        made["retry_delay"] = json!(0);
    }
    match task.get("m") {
        Some(Value::Number(n)) => {
            made["expand"] = json!({"x": (0..n.as_u64().unwrap()).collect::<Vec<_>>()});
        }
        Some(from) => {
            made["expand"] =
                json!({"x": format!("{{{{ ti.xcom_pull('{}') }}}}", name(&from["from"]))});
        }
        None => {}
    }
    if task.get("s").is_some_and(|setup| *setup == 1) {
        made["setup"] = json!(true);
    }
    if let Some(fails_run) = task.get("t") {
        made["teardown"] = json!({"on_failure_fail_dagrun": *fails_run == 1});
    }
    made
}

fn fixture() -> Vec<Dag> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../common/tests/conformance/final_states/runs.jsonl");
    let lines = std::fs::read_to_string(file).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// So many DAGs, picked in an order that the seed gives; those first that are needed for each kind to be there.
fn sample(n: usize, seed: u64) -> Vec<Dag> {
    let mut dags = fixture();
    dags.sort_by_key(|dag| {
        let mixed = (dag.id ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    });
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let (needed, others): (Vec<Dag>, Vec<Dag>) = dags.into_iter().partition(|dag| {
        let kinds = dag.kinds();
        let is_needed = kinds
            .iter()
            .any(|kind| seen.get(kind).copied().unwrap_or(0) < OF_EACH_KIND);
        if is_needed {
            for kind in kinds {
                *seen.entry(kind).or_default() += 1;
            }
        }
        is_needed
    });
    assert!(needed.len() <= n, "{} DAGs are needed", needed.len());
    let kinds = 13 + 8;
    assert_eq!(seen.len(), kinds, "kinds and rules in the sample: {seen:?}");
    needed.into_iter().chain(others).take(n).collect()
}

/// Tells an attempt how to end, once it waits at its gate.
async fn open(gate: &Path, how: char) {
    let what = format!("an attempt at {}", gate.display());
    wait::until(&what, SOON, async || {
        let mut options = std::fs::OpenOptions::new();
        // Without a reader there is none to tell.
        let opened = options
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(gate);
        opened.ok().map(|mut gate| writeln!(gate, "{how}").unwrap())
    })
    .await
    .unwrap();
}

/// One run, ending by ending; what is wrong with it, if anything is.
async fn replay(client: Client, dag: Arc<Dag>, at: usize, gates: PathBuf) -> Option<String> {
    let run = &dag.runs[at];
    let run_id = format!("c{}.{at}", dag.id);
    let gates = gates.join(&run_id);
    std::fs::create_dir_all(&gates).unwrap();
    let path = format!("/dags/{}/dagRuns", dag.name());
    client.post(&path, &json!({"dag_run_id": run_id})).await;
    let path = format!("{path}/{run_id}");
    let mut tries: BTreeMap<(usize, i32), i64> = BTreeMap::new();
    for (task, map_index) in &run.o {
        let number = tries.entry((*task, *map_index)).or_default();
        *number += 1;
        let of_index = &dag.tasks[*task]["o"][(*map_index).max(0) as usize % 3];
        let how = match *number <= of_index[0].as_i64().unwrap() {
            true => 'f',
            false => of_index[1].as_str().unwrap().chars().next().unwrap(),
        };
        open(&gates.join(format!("t{task}.{map_index}.{number}")), how).await;
        let tries = format!("{path}/taskInstances/t{task}/tries?map_index={map_index}");
        wait::until("the ending to be known", SOON, async || {
            let tries = client.get(&tries).await;
            let mut tries = tries["task_instances"].as_array().unwrap().iter();
            let ended = |of: &Value| of["try_number"] == *number && !of["end_date"].is_null();
            tries.any(ended).then_some(())
        })
        .await
        .unwrap();
    }
    let of_run = crate::support::Run {
        dag_id: dag.name(),
        run_id,
    };
    let ended = client.ended(&of_run, SOON).await;
    let mut found: BTreeMap<usize, BTreeMap<i64, char>> = BTreeMap::new();
    for instance in client.instances(&of_run).await {
        let task = instance["task_id"].as_str().unwrap()[1..].parse().unwrap();
        let letter = match instance["state"].as_str() {
            Some("success") => 's',
            Some("failed") => 'f',
            Some("skipped") => 'k',
            Some("upstream_failed") => 'u',
            _ => '-',
        };
        let index = instance["map_index"].as_i64().unwrap();
        found.entry(task).or_default().insert(index, letter);
    }
    let states: Vec<String> = found
        .values()
        .map(|letters| {
            let star = match letters.contains_key(&-1) {
                true => "",
                false => "*",
            };
            format!("{star}{}", letters.values().collect::<String>())
        })
        .collect();
    let (ended, wanted) = (
        (ended["state"].as_str().unwrap(), states),
        (run.run.as_str(), run.s.clone()),
    );
    (ended != wanted).then(|| format!("DAG {} run {at}: {ended:?}, in Airflow {wanted:?}", dag.id))
}

async fn replay_all(client: &Client, dags: Vec<Dag>, folder: &Path) {
    let began = Instant::now();
    let gates = folder.join("gates");
    let n = dags.len();
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut replays = JoinSet::new();
    for dag in dags {
        client.deploy(&dag.file(&gates)).await;
        let dag = Arc::new(dag);
        for at in 0..dag.runs.len() {
            let (client, dag, gates) = (client.clone(), dag.clone(), gates.clone());
            let room = room.clone();
            replays.spawn(async move {
                let _turn = room.acquire().await.unwrap();
                replay(client, dag, at, gates).await
            });
        }
    }
    let found = replays.join_all().await;
    let wrong: Vec<&String> = found.iter().flatten().collect();
    println!(
        "replayed {} runs of {n} DAGs in {:.0} s, {} differ",
        found.len(),
        began.elapsed().as_secs_f64(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn final_states_are_airflows_on_real_servers() {
    let deployment = Deployment::of(Shape {
        schedulers: 2,
        workers: 2,
        slots: 150,
    })
    .await;
    replay_all(&deployment.client, sample(60, 1), deployment.dir()).await;
    deployment.settles().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn final_states_are_airflows_on_a_standalone() {
    let nothing = "dag_id: nothing\ntasks: {t: {empty: {}}}\n";
    let standalone = Standalone::start_with("nothing.yaml", nothing, 250).await;
    let client = standalone.client();
    replay_all(&client, sample(150, 2), standalone.dir.path()).await;
}
