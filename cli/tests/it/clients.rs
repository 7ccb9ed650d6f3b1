//! Clients that others wrote, unchanged, on real servers: Airflow's official client, which judges every answer by its
//! models, and schemathesis, which makes up requests from `/openapi.json`. `make setup` installs both.

use crate::support::Deployment;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// Operations of Airflow's API, signing in among them.
const OPERATIONS: u64 = 129;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/tests/clients")
}

/// A program of the virtual environment that has the clients.
fn program(name: &str) -> PathBuf {
    let venv = std::env::var_os("GRISTMILL_TEST_CLIENTS").map_or_else(
        || {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
            cache
                .unwrap_or_else(|| home().join(".cache"))
                .join("gristmill-test/clients")
        },
        PathBuf::from,
    );
    let program = venv.join("bin").join(name);
    assert!(
        program.exists(),
        "{} is not there: run `make setup`",
        program.display()
    );
    program
}

/// A deployment with the suite's DAGs, a broken file, and a token of a viewer.
async fn prepared() -> (Deployment, String) {
    let deployment = Deployment::small().await;
    let mut files: Vec<_> = std::fs::read_dir(folder().join("airflow/dags"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        let yaml = std::fs::read_to_string(&file).unwrap();
        deployment.client.deploy(&yaml).await;
    }
    let viewer = format!("gm_{}", uuid::Uuid::new_v4().simple());
    deployment
        .sql(&format!(
            "INSERT INTO api_tokens (hash, name, role, created_at)
             VALUES (encode(sha256('{viewer}'), 'hex'), 'viewer', 'viewer', now());
             INSERT INTO import_errors (filename, error, at) VALUES ('broken.yaml', 'line 3: unknown key', now())"
        ))
        .await;
    (deployment, viewer)
}

/// Runs to the end without holding the runtime up, which serves the deployment's logs.
async fn run_to_end(mut command: Command) -> Output {
    command.stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_reads_every_answer() {
    let python = program("python");
    let (deployment, viewer) = prepared().await;
    let summary = deployment.dir().join("summary.json");
    let mut command = Command::new(python);
    command
        .arg(folder().join("airflow/suite.py"))
        .arg(&summary)
        .env("GRISTMILL_API_URL", &deployment.client.address)
        .env("GRISTMILL_ADMIN_TOKEN", &deployment.client.token)
        .env("GRISTMILL_VIEWER_TOKEN", viewer)
        .env("GRISTMILL_ADMIN_PASSWORD", "for-tests-only")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "127.0.0.1");
    let output = run_to_end(command).await;
    let told = String::from_utf8_lossy(&output.stdout);
    println!("{told}");
    assert!(
        output.status.success(),
        "{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let summary: Value = serde_json::from_slice(&std::fs::read(summary).unwrap()).unwrap();
    assert_eq!(summary["operations"], OPERATIONS, "{summary}");
    // What the document says has no counterpart is what was seen to have none.
    assert_eq!(summary["absent"], absent(), "docs/api-compatibility.md");
}

/// Requests made up from the document, many of them strange: every status has to be one that the document has for the
/// operation (500 is none), every body of the type and shape that it says.
#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing() {
    let schemathesis = program("schemathesis");
    let (deployment, _) = prepared().await;
    let client = &deployment.client;
    let run = client.trigger("shop").await;
    client.ended(&run, crate::support::SOON).await;
    // Waiting takes its time, signing in is slowed down when it fails, and a deployment is no JSON.
    let left_out = "/wait$|^/auth/token$|/dags/deploy$";
    let mut command = Command::new(schemathesis);
    command
        .current_dir(deployment.dir())
        .arg("run")
        .arg(format!("{}/openapi.json", client.address))
        .args([
            "--header",
            &format!("Authorization: Bearer {}", client.token),
        ])
        .args([
            "--phases",
            "fuzzing",
            "--max-examples",
            "4",
            "--workers",
            "4",
        ])
        .args([
            "--checks",
            "status_code_conformance,content_type_conformance,response_schema_conformance",
        ])
        .args(["--exclude-path-regex", left_out])
        .args(["--seed", "20261121", "--request-timeout", "30"])
        .args([
            "--generation-database",
            "none",
            "--suppress-health-check",
            "all",
        ])
        .arg("--no-color")
        .env("NO_PROXY", "127.0.0.1");
    let output = run_to_end(command).await;
    let told = String::from_utf8_lossy(&output.stdout);
    let summary = told.find("= SUMMARY =").map_or("", |at| &told[at..]);
    println!("{summary}");
    assert!(
        output.status.success() && summary.contains("Tested:"),
        "{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `METHOD /path` of what docs/api-compatibility.md says has no counterpart.
fn absent() -> Value {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api-compatibility.md");
    let text = std::fs::read_to_string(document).unwrap();
    let mut absent: Vec<String> = text
        .lines()
        .filter(|line| line.contains("| 501 |"))
        .filter_map(|line| Some(line.split('`').nth(1)?.to_owned()))
        .collect();
    absent.sort();
    absent.into()
}
