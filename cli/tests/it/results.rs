//! What is kept of tasks: files, and results that are used again.

use crate::support::{Deployment, Run, SOON};
use serde_json::{Value, json};
use std::path::Path;

async fn deploy_example(deployment: &Deployment, name: &str) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/dags");
    let text = std::fs::read_to_string(examples.join(name)).unwrap();
    deployment.client.deploy(&text).await;
}

async fn names(deployment: &Deployment, path: &str) -> Vec<String> {
    let answer = deployment.client.get(path).await;
    let files = answer["artifacts"].as_array().unwrap();
    files
        .iter()
        .map(|file| {
            format!(
                "{} {}",
                file["task_id"].as_str().unwrap(),
                file["name"].as_str().unwrap()
            )
        })
        .collect()
}

async fn reason(deployment: &Deployment, run: &Run, task: &str) -> String {
    let explained = ["tasks", "explain", &run.dag_id, &run.run_id, task];
    deployment.command(&explained).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_hands_its_files_on_and_uses_its_result_again() {
    let deployment = Deployment::small().await;
    let client = &deployment.client;
    deploy_example(&deployment, "artifacts.yaml").await;
    let first = client.trigger("artifacts").await;
    deployment.succeeds(&first, SOON).await;
    assert_eq!(client.xcom(&first, "report").await, "3");
    let all = [
        "prepare parts/1.txt",
        "prepare parts/2.txt",
        "prepare parts/3.txt",
        "prepare summary.json",
        "report report.txt",
    ];
    assert_eq!(
        names(&deployment, &format!("{}/artifacts", first.path())).await,
        all
    );
    let prepare = format!("{}/taskInstances/prepare/artifacts", first.path());
    assert_eq!(names(&deployment, &prepare).await, all[..4]);
    assert_eq!(
        client.text(&format!("{prepare}/parts/2.txt")).await,
        "part 2\n"
    );
    let listed = deployment
        .command(&["artifacts", "list", "artifacts", &first.run_id])
        .await;
    assert!(listed.contains("parts/2.txt"), "{listed}");
    let get = [
        "artifacts",
        "get",
        "artifacts",
        &first.run_id,
        "report",
        "report.txt",
        "--to",
        "-",
    ];
    assert_eq!(deployment.command(&get).await, "part 1\npart 2\npart 3\n");

    // The second run takes what the first has made, and has copies of its own.
    let second = client.trigger("artifacts").await;
    deployment.succeeds(&second, SOON).await;
    let made_in = async |run: &Run| client.xcom(run, "prepare").await["made_in"].clone();
    assert_eq!(made_in(&second).await, json!(first.run_id));
    let why = reason(&deployment, &second, "prepare").await;
    assert!(
        why.contains(&format!("cached: the result of the run {}", first.run_id)),
        "{why}"
    );
    assert_eq!(client.xcom(&second, "report").await, "3");

    // What is cleared runs again, and takes nothing away from those that used it.
    let clear = json!({"dag_run_id": first.run_id, "task_ids": ["prepare"], "only_failed": false, "dry_run": false, "reset_dag_runs": true});
    client
        .post("/dags/artifacts/clearTaskInstances", &clear)
        .await;
    deployment.succeeds(&first, SOON).await;
    assert_eq!(client.instance(&first, "prepare").await["try_number"], 2);
    let of_second = format!("{}/taskInstances/prepare/artifacts", second.path());
    assert_eq!(
        client.text(&format!("{of_second}/parts/1.txt")).await,
        "part 1\n"
    );

    // Another key, another result; other code too.
    let conf = json!({"conf": {"size": 1}});
    let other = client.post("/dags/artifacts/dagRuns", &conf).await;
    let other = Run {
        dag_id: "artifacts".to_owned(),
        run_id: other["dag_run_id"].as_str().unwrap().to_owned(),
    };
    deployment.succeeds(&other, SOON).await;
    assert_eq!(made_in(&other).await, json!(other.run_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn mapped_tasks_have_folders_of_their_own_and_missing_files_fail() {
    let deployment = Deployment::small().await;
    let client = &deployment.client;
    let yaml = "dag_id: files
tasks:
  make:
    expand: {n: [a, b]}
    artifacts: out.txt
    shell: {command: 'echo \"$N\" > out.txt', output: none}
    env: {N: '{{ map.n }}'}
  join:
    depends_on: [make]
    inputs: make
    shell: cat $GRISTMILL_INPUTS/make/*/out.txt | tr '\\n' ' '
  none: {artifacts: '*.csv', shell: touch a.txt}
  failing: {artifacts: a.txt, shell: 'touch a.txt; exit 1'}
";
    let run = client.start("files", yaml).await;
    client.ended(&run, SOON).await;
    assert_eq!(client.xcom(&run, "join").await, "a b ");
    let of_b = format!(
        "{}/taskInstances/make/artifacts/out.txt?map_index=1",
        run.path()
    );
    assert_eq!(client.text(&of_b).await, "b\n");
    let why = reason(&deployment, &run, "none").await;
    assert!(
        why.contains("no file is called \"*.csv\"") && why.contains("a.txt"),
        "{why}"
    );
    let all = names(&deployment, &format!("{}/artifacts", run.path())).await;
    assert_eq!(
        all,
        ["make out.txt", "make out.txt"],
        "what failed leaves none"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_shown_and_compared() {
    let deployment = Deployment::small().await;
    let client = &deployment.client;
    client
        .deploy("dag_id: v\ntasks:\n  t: {shell: echo one}\n")
        .await;
    client
        .deploy("dag_id: v\ntasks:\n  t: {shell: echo two}\n")
        .await;
    let answer = client.get("/dags/v/dagVersions/2/diff").await;
    let diff = answer["diff"].as_str().unwrap();
    assert!(
        diff.contains("-  t: {shell: echo one}") && diff.contains("+  t: {shell: echo two}"),
        "{diff}"
    );
    assert_eq!((&answer["from"], &answer["to"]), (&json!(1), &json!(2)));
    let newest = deployment.command(&["dags", "diff", "v"]).await;
    assert!(newest.contains("+  t: {shell: echo two}"), "{newest}");
    let back = deployment
        .command(&["dags", "diff", "v", "2", "1", "-o", "json"])
        .await;
    let back: Value = serde_json::from_str(&back).unwrap();
    assert!(
        back["diff"]
            .as_str()
            .unwrap()
            .contains("+  t: {shell: echo one}"),
        "{back}"
    );
    let file = deployment.dir().join("v.yaml");
    std::fs::write(&file, "dag_id: v\ntasks:\n  t: {shell: echo three}\n").unwrap();
    let with_file = ["dags", "diff", "v", "--file", file.to_str().unwrap()];
    let with_file = deployment.command(&with_file).await;
    assert!(
        with_file.contains("+  t: {shell: echo three}"),
        "{with_file}"
    );
    let source = deployment.command(&["dags", "source", "v", "1"]).await;
    assert_eq!(source, "dag_id: v\ntasks:\n  t: {shell: echo one}\n");
}
