//! Tasks that wait for the run before, on real servers.

use crate::support::{Deployment, Run, SOON, step};
use gristmill_testkit::wait;
use serde_json::{Value, json};

/// A run of a date.
async fn dated(deployment: &Deployment, dag_id: &str, date: &str) -> Run {
    let body = json!({"logical_date": date});
    let run = deployment
        .client
        .post(&format!("/dags/{dag_id}/dagRuns"), &body)
        .await;
    Run {
        dag_id: dag_id.to_owned(),
        run_id: run["dag_run_id"].as_str().unwrap().to_owned(),
    }
}

async fn explained(deployment: &Deployment, run: &Run, task: &str) -> Value {
    let path = format!("{}/taskInstances/{task}/explain", run.path());
    deployment.client.get(&path).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_holds_the_runs_after_it_until_it_is_mended() {
    let deployment = Deployment::small().await;
    let work = step("test -e $TEST_DIR/mended");
    let yaml = format!(
        "dag_id: chain
tasks:
  load: {{depends_on_past: true, shell: {work}}}
"
    );
    let client = &deployment.client;
    client.deploy(&yaml).await;
    let first = dated(&deployment, "chain", "2026-01-01T00:00:00Z").await;
    let second = dated(&deployment, "chain", "2026-01-02T00:00:00Z").await;
    let third = dated(&deployment, "chain", "2026-01-03T00:00:00Z").await;
    assert_eq!(client.ended(&first, SOON).await["state"], "failed");
    let failed = wait::until("the failure to be the reason", SOON, async || {
        let told = explained(&deployment, &second, "load").await.to_string();
        told.contains("load (failed)").then_some(told)
    })
    .await
    .unwrap();
    assert!(
        failed.contains("depends_on_past") && failed.contains(&first.run_id),
        "{failed}"
    );
    let held = explained(&deployment, &third, "load").await.to_string();
    assert!(held.contains("load (not started)"), "{held}");
    std::fs::write(deployment.dir().join("mended"), "").unwrap();
    deployment
        .command(&["tasks", "clear", "chain", &first.run_id])
        .await;
    for run in [&first, &second, &third] {
        deployment.succeeds(run, SOON).await;
    }
    let mut ended = Vec::new();
    for run in [&first, &second, &third] {
        let load = client.instance(run, "load").await;
        ended.push((
            load["start_date"].as_str().unwrap().to_owned(),
            load["end_date"].as_str().unwrap().to_owned(),
        ));
    }
    assert!(
        ended.windows(2).all(|pair| pair[0].1 <= pair[1].0),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_goes_day_by_day_where_it_has_to() {
    let deployment = Deployment::small().await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/dags");
    let yaml = std::fs::read_to_string(format!("{folder}/running_total.yaml")).unwrap();
    let own = deployment.dir().join("total").display().to_string();
    let yaml = yaml.replace("/tmp/gristmill-running-total", &own);
    deployment.client.deploy(&yaml).await;
    let backfill = |more: &[&'static str]| {
        let range = [
            "running_total",
            "--from",
            "2026-01-01",
            "--to",
            "2026-01-05",
        ];
        [&["backfill", "create"], &range[..], more].concat()
    };
    let refused = deployment
        .setup
        .run(&backfill(&["--backwards"]))
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && told.contains("depends_on_past"),
        "{told}"
    );
    let create = backfill(&["--max-active-runs", "5", "--wait", "-o", "json"]);
    let done: Value = serde_json::from_str(&deployment.command(&create).await).unwrap();
    assert_eq!(done["runs"]["success"], 5, "{done}");
    let published = std::fs::read_to_string(format!("{own}/published")).unwrap();
    let days: Vec<&str> = published.lines().collect();
    assert_eq!(
        days[..5],
        [
            "2026-01-01 10",
            "2026-01-02 30",
            "2026-01-03 60",
            "2026-01-04 100",
            "2026-01-05 150"
        ]
    );
}
