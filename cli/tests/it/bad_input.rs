//! What users get wrong: each is refused, or accepted and explained, with a message that names what, where and what to do.

use crate::support::{Deployment, LATER, SOON, step};
use gristmill_testkit::wait;
use serde_json::{Value, json};

/// A client command that has to fail: its exit code and what it says.
async fn refused(deployment: &Deployment, args: &[&str]) -> (i32, String) {
    let output = deployment.setup.run(args).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(!output.status.success(), "{args:?} succeeded: {said}");
    (output.status.code().unwrap_or(-1), said)
}

fn says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// A file in the deployment's folder.
fn file(deployment: &Deployment, name: &str, text: &str) -> String {
    let path = deployment.dir().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_before_a_run_is_refused() {
    let deployment = Deployment::small().await;
    // Params that break their schema: every one is named.
    deployment
        .client
        .deploy(
            "dag_id: typed\nparams: {n: {type: integer, maximum: 9, default: 1}, who: {enum: [kim, lee], default: kim}}\ntasks: {t: {noop: {}}}\n",
        )
        .await;
    let (code, said) = refused(
        &deployment,
        &["run", "typed", "--conf", r#"{"n": 12, "who": "ann"}"#],
    )
    .await;
    assert_eq!(code, 7, "{said}");
    says(&said, &["n", "12", "9", "who", "ann"]);

    // Slots below -1.
    let (_, said) = refused(&deployment, &["pools", "set", "p", "-2"]).await;
    says(&said, &["slots", "-1"]);

    // A time zone that does not exist, and two files of one DAG.
    let path = file(
        &deployment,
        "zone.yaml",
        "dag_id: zone\ntimezone: Asia/Soul\ntasks: {t: {noop: {}}}\n",
    );
    for command in ["validate", "deploy"] {
        let (_, said) = refused(&deployment, &["dags", command, &path]).await;
        says(&said, &["zone.yaml:2:11", "Asia/Soul", "Asia/Seoul"]);
    }
    let twin = "dag_id: twin\ntasks: {t: {noop: {}}}\n";
    file(&deployment, "twins/one.yaml", twin);
    file(&deployment, "twins/two.yaml", twin);
    let folder = deployment.dir().join("twins").display().to_string();
    for command in ["validate", "deploy"] {
        let (_, said) = refused(&deployment, &["dags", command, &folder]).await;
        says(&said, &["\"twin\"", "one.yaml", "already"]);
    }

    // A backfill of a DAG without a schedule, and two that overlap.
    let days = ["--from", "2026-01-01", "--to", "2026-01-03"];
    let create = |dag| [&["backfill", "create", dag][..], &days].concat();
    let (_, said) = refused(&deployment, &create("typed")).await;
    says(
        &said,
        &["\"typed\"", "no schedule of dates", "trigger runs"],
    );
    deployment
        .client
        .deploy(&format!(
            "dag_id: daily\nschedule: '@daily'\nstart_date: 2026-01-01\ntasks: {{t: {{shell: {}}}}}\n",
            step("until [ -e \"$TEST_DIR/go-on\" ]; do sleep 0.1; done")
        ))
        .await;
    deployment.command(&create("daily")).await;
    let (_, said) = refused(&deployment, &create("daily")).await;
    says(&said, &["backfill", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_while_it_runs_is_explained() {
    let deployment = Deployment::small().await;
    // Mapped over what is no list; a branch to a task that is not there.
    let yaml = "dag_id: wrong\nparams: {to: nowhere}\ntasks:\n  list: {shell: echo three}\n  \
                each: {depends_on: [list], expand: {x: \"{{ ti.xcom_pull('list') }}\"}, shell: echo}\n  \
                pick: {branch: {choose: \"{{ params.to }}\"}}\n  here: {depends_on: [pick], noop: {}}\n";
    let run = deployment.client.start("wrong", yaml).await;
    assert_eq!(
        deployment.client.ended(&run, LATER).await["state"],
        "failed"
    );
    let explained = async |task: &str| {
        deployment
            .command(&["tasks", "explain", "wrong", &run.run_id, task])
            .await
    };
    says(
        &explained("each").await,
        &["failed", "expected a list", "three"],
    );
    says(
        &explained("pick").await,
        &["failed", "\"nowhere\"", "it can choose among: here"],
    );

    // A pool that does not exist: deployed with a warning, and told while it waits.
    let path = file(
        &deployment,
        "pooled.yaml",
        "dag_id: pooled\ntasks: {t: {pool: later, noop: {}}}\n",
    );
    let output = deployment
        .setup
        .run(&["dags", "deploy", &path])
        .await
        .unwrap();
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    says(&said, &["\"later\" does not exist", "gristmill pools set"]);
    let pooled = deployment.client.trigger("pooled").await;
    let told = async || {
        let path = format!("{}/taskInstances/t/explain", pooled.path());
        let told: Value = deployment.client.get(&path).await;
        (told["reasons"][0]["kind"] == "pool_missing").then_some(told)
    };
    let told = wait::until("the missing pool to be named", SOON, told)
        .await
        .unwrap();
    says(&told.to_string(), &["the pool later does not exist"]);
    deployment.command(&["pools", "set", "later", "1"]).await;
    deployment.succeeds(&pooled, LATER).await;

    // A task that runs: not cleared if that is asked for, else stopped first.
    let yaml = format!(
        "dag_id: busy\ntasks: {{t: {{shell: {}}}}}\n",
        step("until [ -e \"$TEST_DIR/go-on\" ]; do sleep 0.1; done")
    );
    let busy = deployment.client.start("busy", &yaml).await;
    deployment.client.task_is(&busy, "t", "running").await;
    let clear = ["tasks", "clear", "busy", &busy.run_id, "t"];
    let prevented = [&clear[..], &["--prevent-running"]].concat();
    let (_, said) = refused(&deployment, &prevented).await;
    says(&said, &["t is running", "wait for its end"]);
    deployment.command(&clear).await;
    std::fs::write(deployment.dir().join("go-on"), "").unwrap();
    deployment.succeeds(&busy, LATER).await;
    let again = deployment.client.instance(&busy, "t").await;
    assert_eq!(again["try_number"], json!(2), "{again}");
}
