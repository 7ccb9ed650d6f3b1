use super::*;
use gristmill_testkit::DataDir;
use std::{collections::BTreeSet, process::Command};

fn workload(seed: u64) -> Workload {
    Workload::generate(&Options::new(seed, 2_000, "/nowhere/ledger".into())).unwrap()
}

#[test]
fn a_seed_gives_the_same_workload() {
    let (one, again, other) = (workload(1), workload(1), workload(2));
    let files = |workload: &Workload| -> Vec<String> {
        workload.dags().iter().map(|dag| dag.file.clone()).collect()
    };
    assert_eq!(files(&one), files(&again));
    assert_eq!(one.runs, again.runs);
    assert_ne!(files(&one), files(&other));
}

#[test]
fn a_workload_has_everything() {
    let workload = workload(3);
    assert!((2_000..2_300).contains(&workload.instances()));
    let tasks: Vec<_> = workload
        .dags()
        .iter()
        .flat_map(|dag| &dag.spec.tasks)
        .collect();
    let kinds: BTreeSet<_> = tasks.iter().map(|task| task.kind.name()).collect();
    assert_eq!(kinds, BTreeSet::from(["empty", "noop", "shell"]));
    let rules: BTreeSet<_> = tasks
        .iter()
        .map(|task| task.trigger_rule.as_str())
        .collect();
    assert!(rules.len() > 8, "{rules:?}");
    assert!(tasks.iter().any(|task| task.expand.is_some()));
    assert!(
        tasks
            .iter()
            .any(|task| task.max_active_tis_per_dag.is_some())
    );
    assert!(
        tasks
            .iter()
            .any(|task| task.max_active_tis_per_dagrun.is_some())
    );
    assert!(tasks.iter().any(|task| task.pool_slots > 1));
    for dag in workload.dags() {
        for (task, behaviour) in &dag.behaviours {
            let idx = dag.spec.idx(task).unwrap();
            assert!(behaviour.flaky_tries <= dag.spec.task(idx).unwrap().retries);
        }
    }
}

#[test]
fn large_workloads_are_made_at_once() {
    let options = Options::new(4, 100_000, "/nowhere/ledger".into());
    assert!(Workload::generate(&options).unwrap().instances() >= 100_000);
}

#[test]
fn a_ledger_that_commands_cannot_name_is_refused() {
    for path in ["relative", "/with space", "/with'quote", "/{{ templated }}"] {
        let options = Options::new(1, 10, path.into());
        let refused = Workload::generate(&options).unwrap_err();
        assert!(matches!(refused, WorkloadError::LedgerPath(_)), "{path}");
    }
}

/// The shell computes the outcomes that the reference goes by, and writes them down.
#[test]
fn the_step_does_what_the_behaviour_says() {
    let folder = DataDir::new("step").unwrap();
    let ledger = Ledger::at(folder.path().join("ledger"));
    ledger.create().unwrap();
    let behaviour = Behaviour {
        salt: 4_294_967_295,
        failing: 200,
        skipping: 200,
        flaky: 300,
        flaky_tries: 2,
        scan_one_in: 1,
        ..Behaviour::default()
    };
    let command = behaviour.command(&ledger.step_argument().unwrap());
    let mut seen = BTreeSet::new();
    let mut expected = String::new();
    for (map_index, try_number) in (-1..12).flat_map(|map| [(map, 1), (map, 2), (map, 3)]) {
        let status = Command::new("sh")
            .args(["-c", &command])
            .env("GRISTMILL_DAG_ID", "d")
            .env("GRISTMILL_RUN_ID", "r")
            .env("GRISTMILL_TASK_ID", "t")
            .env("GRISTMILL_MAP_INDEX", map_index.to_string())
            .env("GRISTMILL_FENCE", try_number.to_string())
            .env("GRISTMILL_TRY_NUMBER", try_number.to_string())
            .env(
                "GRISTMILL_IDEMPOTENCY_KEY",
                format!("{}/{map_index}", folder.path().display()),
            )
            .status()
            .unwrap();
        let outcome = behaviour.outcome(map_index, try_number);
        assert_eq!(
            status.code(),
            Some(outcome.exit_code()),
            "{map_index} {try_number}"
        );
        seen.insert((outcome, try_number));
        expected.push_str(&format!(
            "S d r t {map_index} {try_number} {try_number} - .\n"
        ));
        let code = outcome.exit_code();
        expected.push_str(&format!(
            "E d r t {map_index} {try_number} {try_number} {code} .\n"
        ));
    }
    assert!(seen.len() >= 8, "not every outcome was tried: {seen:?}");
    let lines = std::fs::read_to_string(ledger.lines()).unwrap();
    // Without pid and time.
    let shown: String = lines
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            [&words[..7], &words[9..]].concat().join(" ") + "\n"
        })
        .collect();
    assert_eq!(shown, expected);
}

/// A process of an earlier attempt, found by its environment, is written down.
#[test]
fn the_step_finds_processes_of_earlier_attempts() {
    let folder = DataDir::new("step-x").unwrap();
    let ledger = Ledger::at(folder.path().join("ledger"));
    ledger.create().unwrap();
    let key = format!("{}/key", folder.path().display());
    let mut earlier = Command::new("sleep")
        .arg("60")
        .env("GRISTMILL_IDEMPOTENCY_KEY", &key)
        .env("GRISTMILL_FENCE", "1")
        .spawn()
        .unwrap();
    let behaviour = Behaviour {
        scan_one_in: 1,
        ..Behaviour::default()
    };
    Command::new("sh")
        .args(["-c", &behaviour.command(&ledger.step_argument().unwrap())])
        .env("GRISTMILL_MAP_INDEX", "-1")
        .env("GRISTMILL_FENCE", "2")
        .env("GRISTMILL_TRY_NUMBER", "2")
        .env("GRISTMILL_IDEMPOTENCY_KEY", &key)
        .status()
        .unwrap();
    earlier.kill().unwrap();
    earlier.wait().unwrap();
    let lines = std::fs::read_to_string(ledger.lines()).unwrap();
    let found: Vec<&str> = lines.lines().filter(|line| line.starts_with('X')).collect();
    assert_eq!(found.len(), 1, "{lines}");
    assert!(
        found[0].ends_with(&format!(" {} .", earlier.id())),
        "{lines}"
    );
}
