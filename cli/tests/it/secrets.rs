//! Connections and variables from the environment and from files.

use crate::support::{Deployment, SOON, Shape};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_the_environment_and_of_files_never_rest_anywhere() {
    let mut deployment = Deployment::of(Shape {
        workers: 0,
        ..Shape::default()
    })
    .await;
    let folder = deployment.dir().join("secrets");
    for (name, text) in [
        ("variables/bucket", "lake-of-the-folder\n"),
        (
            "connections/shop",
            "http://ci:pw-of-the-folder@shop.example",
        ),
    ] {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    deployment.setup = deployment
        .setup
        .clone()
        .env("GRISTMILL_SECRETS_DIR", &folder)
        .env(
            "GRISTMILL_CONN_DB",
            "postgres://ann:pw-of-the-environment@db.example:5433/x",
        )
        .env("AIRFLOW_VAR_REGION", "asia-of-the-environment");
    deployment.add_worker(4, &[]);
    let client = &deployment.client;
    // The database has others of the same names, which come last.
    client
        .post(
            "/variables",
            &json!({"key": "bucket", "value": "lake-of-the-database"}),
        )
        .await;
    client
        .post(
            "/variables",
            &json!({"key": "plain", "value": "of-the-database"}),
        )
        .await;
    let yaml = "dag_id: secrets
tasks:
  t:
    shell: {command: 'echo \"$V\"; echo \"$V\" | md5sum', stdin: ''}
    env:
      V: '{{ var.value.bucket }} {{ var.value.region }} {{ var.value.plain }} {{ conn.db.password }} {{ conn.db.port }} {{ conn.shop.password }}'
";
    let run = client.start("secrets", yaml).await;
    deployment.succeeds(&run, SOON).await;
    let log = client
        .text(&format!("{}/taskInstances/t/logs/1", run.path()))
        .await;
    assert!(
        log.contains("*** *** of-the-database *** 5433 ***"),
        "{log}"
    );
    let whole = "lake-of-the-folder asia-of-the-environment of-the-database pw-of-the-environment 5433 pw-of-the-folder";
    let sum = std::process::Command::new("sh")
        .args(["-c", "echo \"$0\" | md5sum", whole])
        .output()
        .unwrap();
    assert_eq!(
        client.xcom(&run, "t").await,
        String::from_utf8(sum.stdout).unwrap().trim()
    );
    let stored = deployment.sql("SELECT count(*) FROM task_attempts a, task_instances t WHERE (a::text || t::text) LIKE '%of-the-folder%'").await;
    assert_eq!(stored, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_listed_with_where_they_come_from() {
    let mut deployment = Deployment::small().await;
    deployment
        .api
        .restart_with(&[
            (
                "GRISTMILL_CONN_DB",
                "postgres://ann:pw-of-the-environment@db.example/x",
            ),
            ("GRISTMILL_VAR_REGION", "asia-of-the-environment"),
        ])
        .await
        .unwrap();
    let health = format!("{}/health", deployment.client.address);
    deployment
        .api
        .wait_for_http(&health, 200, SOON)
        .await
        .unwrap();
    let client = &deployment.client;
    client
        .post("/variables", &json!({"key": "plain", "value": "v"}))
        .await;
    let variables = client.get("/variables").await;
    let listed: Vec<(&str, &str)> = variables["variables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| (v["key"].as_str().unwrap(), v["source"].as_str().unwrap()))
        .collect();
    assert_eq!(listed, [("plain", "database"), ("region", "environment")]);
    let connections = client.get("/connections").await;
    assert_eq!(connections["connections"][0]["source"], "environment");
    let all = format!("{variables}{connections}");
    assert!(
        !all.contains("of-the-environment") && !all.contains("db.example"),
        "{all}"
    );
    let shown = deployment.command(&["variables", "list"]).await;
    assert!(
        shown.contains("environment") && !shown.contains("asia"),
        "{shown}"
    );
}
