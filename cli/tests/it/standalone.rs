//! `gristmill standalone`: one process, no servers.

use crate::support::{Client, LATER, Ledger, SOON, Steps, step};
use gristmill_testkit::{
    DataDir, free_port,
    roles::{Role, Setup, binary},
    sys, wait,
};
use std::{collections::BTreeSet, path::Path, time::Duration};

/// A standalone that deploys a folder of one DAG file.
pub(crate) struct Standalone {
    role: Role,
    setup: Setup,
    address: String,
    ledger: Ledger,
    pub(crate) dir: DataDir,
}

impl Standalone {
    pub(crate) async fn start(file: &str, tasks: &str) -> Self {
        Self::start_with(file, tasks, 4).await
    }

    /// The same, with so many slots.
    pub(crate) async fn start_with(file: &str, tasks: &str, slots: u32) -> Self {
        let dir = DataDir::new("standalone").unwrap();
        let steps = Steps::in_folder(dir.path());
        let dags = dir.path().join("dags");
        std::fs::create_dir(&dags).unwrap();
        // Its worker passes no variables on.
        let text = |path: &Path| serde_json::to_string(path.to_str().unwrap()).unwrap();
        let env = format!(
            "{{TEST_STEP: {}, TEST_LEDGER: {}, TEST_DIR: {}}}",
            text(&steps.script),
            text(&steps.ledger),
            text(dir.path())
        );
        std::fs::write(
            dags.join(file),
            format!("default_args: {{env: {env}}}\n{tasks}"),
        )
        .unwrap();
        let home = dir.path().join("home");
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        let setup = Setup::new(binary("gristmill").unwrap(), dir.path())
            .env("GRISTMILL_ADMIN_PASSWORD", "for-tests-only")
            .env("GRISTMILL_API_URL", format!("http://{address}"))
            .env("GRISTMILL_TOKEN_FILE", home.join("client-token"));
        let args = [
            "standalone",
            "--home",
            home.to_str().unwrap(),
            "--dags",
            dags.to_str().unwrap(),
            "--listen",
            &address,
        ];
        let role = setup
            .start(
                "standalone",
                &[&args[..], &["--concurrency", &slots.to_string()]].concat(),
            )
            .unwrap();
        let ledger = Ledger { file: steps.ledger };
        let standalone = Self {
            role,
            setup,
            address,
            ledger,
            dir,
        };
        standalone.is_up().await;
        standalone
    }

    async fn is_up(&self) {
        self.role
            .wait_for_http(&format!("http://{}/health", self.address), 200, SOON)
            .await
            .unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn token(&self) -> String {
        let token = std::fs::read_to_string(self.dir.path().join("home/client-token")).unwrap();
        token.trim().to_owned()
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.url(), self.token())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_runs_a_dag_on_a_standalone() {
    let yaml = format!(
        "dag_id: local\ntasks:\n  a: {{shell: {}}}\n  b: {{depends_on: [a], shell: {}}}\n",
        step("echo 7"),
        step("exit 3")
    );
    let standalone = Standalone::start("local.yaml", &yaml).await;
    let output = standalone
        .setup
        .run(&["run", "local", "--wait", "--logs", "--timeout", "60s"])
        .await
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(
        output.status.code(),
        Some(1),
        "a failed run is exit code 1\n{stdout}{stderr}"
    );
    let output = standalone
        .setup
        .run(&["run", "local", "--wait", "--timeout", "1ms"])
        .await
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(4),
        "a wait that timed out is exit code 4\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_standalone_finishes_its_runs_after_a_restart() {
    let items = serde_json::to_string(&(0..30).collect::<Vec<_>>()).unwrap();
    let (work, last) = (
        step("sleep 0.4; echo $I"),
        step(r#"python3 -c 'import json, sys; print(sum(int(x) for x in json.load(sys.stdin)))'"#),
    );
    let tasks = format!(
        "dag_id: local
tasks:
  t: {{expand: {{i: {items}}}, shell: {work}, env: {{I: \"{{{{ map.i }}}}\"}}}}
  sum: {{depends_on: [t], shell: {{command: {last}, stdin: \"{{{{ ti.xcom_pull('t') | tojson }}}}\"}}}}
"
    );
    let standalone = Standalone::start("local.yaml", &tasks).await;
    let client = standalone.client();
    let run = client.trigger("local").await;
    for ends in [6, 14] {
        let midway = async || (standalone.ledger.ends() >= ends).then_some(());
        wait::until("the middle of the run", SOON, midway)
            .await
            .unwrap();
        standalone.role.kill().await.unwrap();
        let running: Vec<u32> = standalone
            .ledger
            .of_task("t")
            .iter()
            .filter(|a| a.end.is_none())
            .map(|a| a.pid)
            .collect();
        let dead = async || running.iter().all(|pid| !sys::is_alive(*pid)).then_some(());
        wait::until("what it ran to die", Duration::from_secs(5), dead)
            .await
            .unwrap();
        standalone.role.restart().await.unwrap();
        standalone.is_up().await;
    }
    let ended = client.ended(&run, LATER).await;
    assert_eq!(ended["state"], "success", "{ended}");
    assert_eq!(client.xcom(&run, "sum").await, (29 * 30 / 2).to_string());
    standalone.ledger.check();
    let instances: BTreeSet<i32> = standalone
        .ledger
        .attempts()
        .keys()
        .filter(|(_, task, _)| task == "t")
        .map(|(.., map)| *map)
        .collect();
    assert_eq!(instances.len(), 30);
    let attempts = standalone.ledger.of_task("t").len();
    // Each kill can cost the four that ran, and four whose endings were not applied yet.
    assert!(
        (30..=46).contains(&attempts),
        "{attempts} attempts for 30 tasks and two kills"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_without_a_worker_waits_on_a_standalone_too() {
    let child = format!("dag_id: child\ntasks: {{t: {{shell: {}}}}}\n", step("true"));
    let standalone = Standalone::start("child.yaml", &child).await;
    let client = standalone.client();
    let file = standalone.dir.path().join("arrived");
    let parent = format!(
        "dag_id: parent
tasks:
  soon: {{sensor: {{delta: 500ms}}}}
  file: {{sensor: {{file: {}, poke_interval: 200ms}}}}
  child: {{trigger_dag: {{dag_id: child, wait: true}}}}
  ask: {{depends_on: [soon, child], approval: {{}}}}
  seen: {{sensor: {{dag: {{dag_id: parent, task_id: child}}, poke_interval: 200ms}}}}
",
        file.display()
    );
    let run = client.start("parent", &parent).await;
    client.task_is(&run, "ask", "awaiting_input").await;
    client.task_is(&run, "file", "up_for_reschedule").await;
    std::fs::write(file, "").unwrap();
    let at = format!("{}/taskInstances/ask/-1/hitlDetails", run.path());
    let (status, answer) = client
        .patch(&at, &serde_json::json!({"chosen_options": ["approve"]}))
        .await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(client.ended(&run, SOON).await["state"], "success");
    assert_eq!(client.xcom(&run, "child").await["state"], "success");
}
