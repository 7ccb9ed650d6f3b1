//! Runs that schedules, backfills and updates of assets make.

use crate::support::{Deployment, LATER, Run, SOON};
use gristmill_testkit::wait;
use serde_json::{Value, json};

fn example(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/dags");
    std::fs::read_to_string(format!("{folder}/{name}")).unwrap()
}

/// The DAG's runs, oldest first.
async fn runs(deployment: &Deployment, dag_id: &str) -> Vec<Value> {
    let page = deployment
        .client
        .get(&format!("/dags/{dag_id}/dagRuns?limit=100"))
        .await;
    let mut runs = page["dag_runs"].as_array().unwrap().clone();
    runs.reverse();
    runs
}

fn name(run: &Value) -> Run {
    Run {
        dag_id: run["dag_id"].as_str().unwrap().to_owned(),
        run_id: run["dag_run_id"].as_str().unwrap().to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_loads_every_interval_and_assets_make_runs() {
    let deployment = Deployment::small().await;
    let client = &deployment.client;
    client.deploy(&example("incremental.yaml")).await;
    client.deploy(&example("on_new_data.yaml")).await;

    let range = [
        "incremental",
        "--from",
        "2026-01-01T00:00:00+09:00",
        "--to",
        "2026-01-04T00:00:00+09:00",
    ];
    let dry = [
        &["backfill", "create"],
        &range[..],
        &["--dry-run", "-o", "json"],
    ]
    .concat();
    let plan: Value = serde_json::from_str(&deployment.command(&dry).await).unwrap();
    assert_eq!(plan["total_entries"], 4);
    let create = [
        &["backfill", "create"],
        &range[..],
        &[
            "--backwards",
            "--max-active-runs",
            "1",
            "--wait",
            "-o",
            "json",
        ],
    ];
    let done: Value = serde_json::from_str(&deployment.command(&create.concat()).await).unwrap();
    assert_eq!(
        done["runs"],
        json!({"queued": 0, "running": 0, "success": 4, "failed": 0})
    );
    let made = runs(&deployment, "incremental").await;
    let backfilled: Vec<&Value> = made
        .iter()
        .filter(|run| run["run_type"] == "backfill")
        .collect();
    let mut days = Vec::new();
    for run in &backfilled {
        days.push(client.xcom(&name(run), "load").await);
    }
    let wanted = ["04", "03", "02", "01"].map(|day| json!(format!("orders/2026-01-{day}.parquet")));
    assert_eq!(days, wanted, "the newest first");
    let first = client.xcom(&name(backfilled[3]), "extract").await;
    let from_to = "at >= '2025-12-31T15:00:00+00:00' AND at < '2026-01-01T15:00:00+00:00'";
    assert!(first.as_str().unwrap().ends_with(from_to), "{first}");
    // One at one time: each ended before the next one started.
    for pair in backfilled.windows(2) {
        assert!(pair[0]["end_date"].as_str() <= pair[1]["start_date"].as_str());
    }

    // Each of them updated the asset that the other DAG waits for; no run of the schedule is to come between from here on.
    let (status, _) = client
        .patch("/dags/incremental", &json!({"is_paused": true}))
        .await;
    assert_eq!(status, 200);
    wait::until("runs for the updates", SOON, async || {
        let made = runs(&deployment, "incremental").await;
        let followed = runs(&deployment, "on_new_data").await;
        let events = client.get("/assets/events?limit=100").await;
        let mut events = events["asset_events"].as_array().unwrap().iter();
        let mut all = made.iter().chain(&followed);
        (all.all(|run| run["state"] == "success")
            && events.all(|event| event["created_dagruns"] != json!([]))
            && !followed.is_empty())
        .then_some(())
    })
    .await
    .unwrap();
    let report = runs(&deployment, "on_new_data").await.remove(0);
    assert_eq!(
        (&report["run_type"], &report["logical_date"]),
        (&json!("asset_triggered"), &Value::Null)
    );
    let cause = client
        .get(&format!("{}/upstreamAssetEvents", name(&report).path()))
        .await;
    let event = &cause["asset_events"][0];
    assert_eq!(event["source_dag_id"], "incremental");
    assert_eq!(event["source_task_id"], "load");
    assert_eq!(event["created_dagruns"][0]["run_id"], report["dag_run_id"]);
    let said = client.xcom(&name(&report), "report").await;
    let said = said.as_str().unwrap();
    assert!(said.contains("× orders_by_day by incremental"), "{said}");
    let assets = client.get("/assets?name_pattern=orders_by_day").await;
    let asset = &assets["assets"][0];
    assert_eq!(asset["uri"], "s3://lake/orders/");
    assert_eq!(asset["producing_tasks"][0]["dag_id"], "incremental");
    assert_eq!(asset["scheduled_dags"][0]["dag_id"], "on_new_data");

    // By hand: one of two that it takes waits, the second makes the run.
    let id_of = async |name: &str| {
        let assets = client.get(&format!("/assets?name_pattern={name}")).await;
        assets["assets"][0]["id"].clone()
    };
    let before = runs(&deployment, "on_new_data").await.len();
    let tell = async |name: &str| {
        let body = json!({"asset_id": id_of(name).await, "extra": {"rows": 3}});
        client.post("/assets/events", &body).await
    };
    let told = tell("prices").await;
    assert_eq!(told["extra"], json!({"rows": 3, "from_rest_api": true}));
    let queued = client.get("/dags/on_new_data/assets/queuedEvents").await;
    assert_eq!(queued["total_entries"], 1);
    tell("rates").await;
    wait::until("a run for both", SOON, async || {
        (runs(&deployment, "on_new_data").await.len() == before + 1).then_some(())
    })
    .await
    .unwrap();
    let queued = client.get("/dags/on_new_data/assets/queuedEvents").await;
    assert_eq!(queued["total_entries"], 0);
    deployment.settles().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_continuous_dag_that_fails_is_paused_and_says_why() {
    let deployment = Deployment::small().await;
    let client = &deployment.client;
    let yaml = "dag_id: loop\nschedule: '@continuous'\nmax_consecutive_failed_dag_runs: 2\ntasks: {t: {shell: exit 1}}";
    client.deploy(yaml).await;
    wait::until("the DAG to be paused", LATER, async || {
        (client.get("/dags/loop").await["is_paused"] == true).then_some(())
    })
    .await
    .unwrap();
    let made = runs(&deployment, "loop").await;
    assert_eq!(
        made.iter().filter(|run| run["state"] == "failed").count(),
        2
    );
    let (first, second) = (&made[0], &made[1]);
    assert_eq!(first["data_interval_end"], second["data_interval_start"]);
    assert!(first["end_date"].as_str() <= second["start_date"].as_str());
    let dag = client.get("/dags/loop").await;
    assert!(
        dag["pause_reason"]
            .as_str()
            .unwrap()
            .contains("last 2 runs failed"),
        "{dag}"
    );
    let waiting = client.trigger("loop").await;
    let why = client
        .get(&format!("{}/taskInstances/t/explain", waiting.path()))
        .await;
    assert!(why.to_string().contains("last 2 runs failed"), "{why}");
    // It has all its tries again, and then it is paused anew.
    client
        .patch("/dags/loop", &json!({"is_paused": false}))
        .await;
    wait::until("the DAG to be paused again", LATER, async || {
        let dag = client.get("/dags/loop").await;
        let ended = runs(&deployment, "loop").await;
        let failed = ended.iter().filter(|run| run["state"] == "failed");
        (dag["is_paused"] == true && failed.count() >= 4).then_some(())
    })
    .await
    .unwrap();
}
