//! Deploying folders and files.

use crate::support::{Api, CHAIN};
use axum::http::Method;
use gristmill_api::{DeployMode, deploy_dir};
use serde_json::{Value, json};
use std::fs;

/// A tar.zst of files.
fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), 0).unwrap());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        // By hand: the builder would refuse `..`.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

const ZSTD: (&str, &str) = ("content-type", "application/zstd");

#[tokio::test]
async fn one_bad_file_does_not_hide_the_good_ones() {
    let api = Api::new().await;
    let body = archive(&[
        ("chain.yaml", CHAIN),
        (
            "sub/other.yaml",
            "dag_id: other\ntasks:\n  a: {shell: ./a.sh}\n",
        ),
        ("sub/a.sh", "echo hi"),
        (
            "bad.yaml",
            "dag_id: bad\ntasks:\n  a: {noop: {}, retires: 3}\n",
        ),
        ("README.md", "no DAG"),
    ]);
    let path = "/api/v2/dags/deploy?folder=team";
    let report = api
        .with_header(Method::POST, path, ZSTD, body.clone())
        .await
        .expect(200);
    let ids: Vec<&str> = report["deployed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["dag_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["chain", "other"]);
    assert_eq!(report["deployed"][1]["fileloc"], "team/sub/other.yaml");
    assert_eq!(report["deployed"][0]["version_number"], 1);
    let error = &report["errors"][0];
    assert_eq!(
        (error["file"].as_str(), error["line"].as_u64()),
        (Some("team/bad.yaml"), Some(3))
    );
    assert_eq!(error["suggestion"], "retries");
    let recorded = api.get("/api/v2/importErrors").await.expect(200);
    assert_eq!(recorded["import_errors"][0]["filename"], "team/bad.yaml");

    let again = api
        .with_header(Method::POST, path, ZSTD, body)
        .await
        .expect(200);
    assert_eq!(again["deployed"][0]["is_new"], false);
    let versions = api.get("/api/v2/dags/chain/dagVersions").await.expect(200);
    assert_eq!(versions["total_entries"], 1);
    assert!(versions["dag_versions"][0]["bundle_version"].is_string());
}

#[tokio::test]
async fn a_folder_without_a_file_makes_its_dag_stale_but_a_broken_file_does_not() {
    let api = Api::new().await;
    let dir = tempfile::tempdir().unwrap();
    let (store, objects) = (api.store(), &api.parts.objects);
    fs::write(dir.path().join("chain.yaml"), CHAIN).unwrap();
    fs::write(
        dir.path().join("gone.yaml"),
        "dag_id: gone\ntasks: {a: {noop: {}}}",
    )
    .unwrap();
    let first = deploy_dir(store, objects, dir.path(), "dags/", DeployMode::Deploy)
        .await
        .unwrap();
    assert_eq!(first.deployed.len(), 2);

    fs::write(dir.path().join("chain.yaml"), "dag_id: chain\ntasks: {a: }").unwrap();
    fs::remove_file(dir.path().join("gone.yaml")).unwrap();
    let second = deploy_dir(store, objects, dir.path(), "dags/", DeployMode::Deploy)
        .await
        .unwrap();
    assert_eq!(
        (second.deployed.len(), second.errors.is_empty()),
        (0, false)
    );
    let chain = api.get("/api/v2/dags/chain").await.expect(200);
    assert_eq!(
        (&chain["is_stale"], &chain["has_import_errors"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(
        api.get("/api/v2/dags/gone").await.expect(200)["is_stale"],
        true
    );
    let text = api
        .post("/api/v2/dags/chain/dagRuns", json!({}))
        .await
        .detail(400);
    assert!(text.contains("import errors"), "{text}");
    api.post("/api/v2/dags/gone/dagRuns", json!({}))
        .await
        .expect(404);
}

#[tokio::test]
async fn all_bad_is_400_and_a_dry_run_changes_nothing() {
    let api = Api::new().await;
    let yaml = ("content-type", "application/yaml");
    let bad = api
        .with_header(
            Method::POST,
            "/api/v2/dags/deploy",
            yaml,
            "dag_id: x\ntask: {}",
        )
        .await;
    let body = bad.expect(400);
    assert!(
        body["detail"].is_string() && body["errors"][0]["line"].is_u64(),
        "{body}"
    );
    let dry = api
        .with_header(
            Method::POST,
            "/api/v2/dags/deploy?dry_run=true",
            yaml,
            CHAIN,
        )
        .await
        .expect(200);
    assert_eq!(
        (
            &dry["deployed"][0]["dag_id"],
            &dry["deployed"][0]["version_number"]
        ),
        (&json!("chain"), &json!(0))
    );
    assert_eq!(
        api.get("/api/v2/dags").await.expect(200)["total_entries"],
        0
    );
    let spec = json!({ "dag_id": "j", "tasks": { "a": { "noop": {} } } });
    assert_eq!(
        api.post("/api/v2/dags/deploy", spec).await.expect(200)["deployed"][0]["dag_id"],
        "j"
    );
    api.with_header(
        Method::POST,
        "/api/v2/dags/deploy",
        ("content-type", "text/html"),
        "x",
    )
    .await
    .expect(415);
    api.with_header(
        Method::POST,
        "/api/v2/dags/deploy",
        yaml,
        "x".repeat((1 << 20) + 1),
    )
    .await
    .expect(413);
    api.post("/api/v2/dags/elsewhere", json!({}))
        .await
        .expect(404);
}

#[tokio::test]
async fn a_hostile_archive_is_refused() {
    let api = Api::new().await;
    for (files, what) in [
        (vec![("../evil.yaml", CHAIN)], "leaves"),
        (vec![("/etc/evil.yaml", CHAIN)], "leaves"),
    ] {
        let text = api
            .with_header(Method::POST, "/api/v2/dags/deploy", ZSTD, archive(&files))
            .await
            .detail(400);
        assert!(text.contains(what), "{text}");
    }
    let text = api
        .with_header(Method::POST, "/api/v2/dags/deploy", ZSTD, "no archive")
        .await
        .detail(400);
    assert!(text.contains("tar.zst"), "{text}");
    let zeros = "0".repeat(70 << 20);
    let bomb = archive(&[("bomb.bin", &zeros)]);
    assert!(bomb.len() < 1 << 20, "the bomb is small");
    api.with_header(Method::POST, "/api/v2/dags/deploy", ZSTD, bomb)
        .await
        .expect(413);

    let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), 0).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "secret.yaml", "/etc/passwd")
        .unwrap();
    let link = tar.into_inner().unwrap().finish().unwrap();
    let answer = api
        .with_header(Method::POST, "/api/v2/dags/deploy", ZSTD, link)
        .await;
    assert_eq!(answer.status, 400);
    assert!(!answer.text.contains("root:"), "{}", answer.text);
}

#[tokio::test]
async fn a_dag_is_shown_with_source_tasks_and_parameters() {
    let api = Api::new().await;
    api.deploy(CHAIN).await;
    let dag = api.get("/api/v2/dags/chain").await.expect(200);
    for key in [
        "dag_display_name",
        "file_token",
        "timetable_partitioned",
        "is_backfillable",
        "owners",
        "tags",
    ] {
        assert!(!dag[key].is_null(), "{key} is required: {dag}");
    }
    let details = api.get("/api/v2/dags/chain/details").await.expect(200);
    assert_eq!(details["params"]["n"]["value"], 1);
    let tasks = api.get("/api/v2/dags/chain/tasks").await.expect(200);
    assert_eq!(tasks["tasks"][0]["downstream_task_ids"], json!(["b"]));
    assert_eq!(
        api.get("/api/v2/dagSources/chain").await.expect(200)["content"],
        CHAIN
    );
    api.deploy(&CHAIN.replace("default: 1", "default: 2")).await;
    assert_eq!(
        api.get("/api/v2/dagSources/chain?version_number=1")
            .await
            .expect(200)["content"],
        CHAIN
    );
    assert_eq!(
        api.get("/api/v2/dags/chain/dagVersions/2")
            .await
            .expect(200)["version_number"],
        2
    );
    api.get("/api/v2/dags/chain/dagVersions/9")
        .await
        .expect(404);
    assert_eq!(
        api.get("/api/v2/dags/nope").await.detail(404),
        "Dag with dag_id: 'nope' not found"
    );
    let paused = api
        .patch(
            "/api/v2/dags/chain?update_mask=is_paused",
            json!({ "is_paused": true }),
        )
        .await
        .expect(200);
    assert_eq!(paused["is_paused"], true);
    let events = api.get("/api/v2/eventLogs").await.expect(200);
    assert_eq!(events["event_logs"][0]["event"], "pause_dag");
    assert_eq!(events["event_logs"][0]["owner"], "token test");
    let listed = api
        .get("/api/v2/dags?dag_id_pattern=ain&limit=1")
        .await
        .expect(200);
    assert_eq!(
        (
            listed["dags"].as_array().map(Vec::len),
            &listed["total_entries"]
        ),
        (Some(1), &Value::from(1))
    );
    api.get("/api/v2/dags?limit=x").await.expect(422);
    api.delete("/api/v2/dags/chain").await.expect(200);
    api.get("/api/v2/dags/chain").await.expect(404);
}

#[tokio::test]
async fn an_archive_may_be_larger_than_other_bodies() {
    let api = Api::new().await;
    let noise: String = (0..400_000u32)
        .map(|i| format!("{:08x}", i.wrapping_mul(2_654_435_761) ^ (i << 7)))
        .collect();
    let body = archive(&[("chain.yaml", CHAIN), ("data.txt", &noise)]);
    assert!(body.len() > 1 << 20, "{} bytes", body.len());
    api.with_header(Method::POST, "/api/v2/dags/deploy", ZSTD, body)
        .await
        .expect(200);
}
