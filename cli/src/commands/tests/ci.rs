//! What CI systems are told.

use std::path::Path;

use serde_json::json;
use wiremock::MockServer;

use super::mock::*;
use super::{Printed, Ran, gristmill_in};
use crate::commands::ci::Environment;

/// A run of two tasks of which one failed with hostile lines.
async fn failed_run() -> MockServer {
    let server = MockServer::start().await;
    dag(&server, false).await;
    states(&server, &["running", "failed"]).await;
    let mut failed = instance("clean", "failed", 2);
    failed["reason"] = "exit code 3".into();
    instances(&server, json!([failed, instance("load", "success", 1)])).await;
    let logs = format!("{RUN}/taskInstances");
    let hostile = ["::error::not ours", "100 %"];
    answer(
        &server,
        "GET",
        &format!("{logs}/clean/logs/1"),
        log(&["first try"], None),
    )
    .await;
    answer(
        &server,
        "GET",
        &format!("{logs}/clean/logs/2"),
        log(&hostile, None),
    )
    .await;
    answer(
        &server,
        "GET",
        &format!("{logs}/load/logs/1"),
        log(&["loaded"], None),
    )
    .await;
    server
}

async fn wait(server: &MockServer, environment: &Environment, more: &[&str]) -> Ran {
    let args = [&["run", "sales", "--wait"], more].concat();
    gristmill_in(&server.uri(), &args, environment, Printed::new()).await
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn github_gets_groups_annotations_summary_and_outputs() {
    let server = failed_run().await;
    let dir = tempfile::tempdir().unwrap();
    let environment = Environment {
        github: true,
        summary: Some(dir.path().join("summary.md")),
        outputs: Some(dir.path().join("outputs")),
        ..Environment::default()
    };
    let ran = wait(&server, &environment, &["--logs"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let token = ran.out.split("::stop-commands::").nth(1).unwrap();
    let token = token.lines().next().unwrap().to_owned();
    let group = |title: &str, lines: &str| {
        format!("::group::{title}\n::stop-commands::{token}\n{lines}\n::{token}::\n::endgroup::\n")
    };
    let expected = [
        group("clean", "first try"),
        group("clean, try 2", "::error::not ours\n100 %"),
        group("load", "loaded"),
    ];
    assert_eq!(ran.out, expected.concat());
    let annotation =
        "::error title=sales%3A clean failed::exit code 3%0A::error::not ours%0A100 %25\n";
    assert!(ran.err.contains(annotation), "{ran:?}");
    // Beside annotations there are only those that switch commands off and on.
    let other = |line: &&str| line.starts_with("::") && !line.starts_with("::error title=");
    let commands: Vec<&str> = ran.err.lines().filter(other).collect();
    let switches = [format!("::stop-commands::{token}"), format!("::{token}::")];
    assert_eq!(commands, switches);
    assert_eq!(
        read(&dir.path().join("outputs")),
        "dag_id=sales\ndag_run_id=r1\nstate=failed\nduration=12\n"
    );
    let summary = read(&dir.path().join("summary.md"));
    assert!(
        summary.starts_with("### sales failed after 12s\n\nRun `r1`: 2 failed\n"),
        "{summary}"
    );
    assert!(
        summary.contains("| clean | failed | 2 | 1.5s |\n| load | success | 1 | 1.5s |\n"),
        "{summary}"
    );
    assert!(
        summary.contains("```text\n::error::not ours\n100 %\n```"),
        "{summary}"
    );
}

#[tokio::test]
async fn gitlab_gets_sections() {
    let server = failed_run().await;
    let environment = Environment {
        gitlab: true,
        ..Environment::default()
    };
    let ran = wait(&server, &environment, &["--logs"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let sections = ran.out.matches("section_start:").count();
    assert_eq!((sections, ran.out.matches("section_end:").count()), (3, 3));
    assert!(
        ran.out
            .contains(":gristmill_3[collapsed=true]\r\x1b[0Kload\nloaded\n"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn none_is_spoken_to_who_asks_for_none() {
    let server = failed_run().await;
    let environment = Environment {
        github: true,
        ..Environment::default()
    };
    let ran = wait(&server, &environment, &["--logs", "--ci", "none"]).await;
    assert!(ran.out.contains("load | loaded\n"), "{ran:?}");
    assert!(!ran.err.contains("::error title"), "{ran:?}");
}

#[tokio::test]
async fn a_run_is_a_junit_report() {
    let server = failed_run().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.xml");
    let args = ["--junit", file.to_str().unwrap()];
    let ran = wait(&server, &Environment::default(), &args).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let xml = read(&file);
    assert!(
        xml.contains(r#"<testsuite name="sales" tests="2" skipped="0" errors="0" failures="1""#),
        "{xml}"
    );
    assert!(
        xml.contains(r#"<failure message="exit code 3" type="failed">::error::not ours"#),
        "{xml}"
    );
    assert!(
        xml.contains(r#"<testcase name="load" classname="sales""#),
        "{xml}"
    );
}

#[tokio::test]
async fn a_report_that_cannot_be_written_starts_no_run() {
    let server = MockServer::start().await;
    let args = ["--junit", "/nowhere/report.xml"];
    let ran = wait(&server, &Environment::default(), &args).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(
        ran.err.contains("cannot write /nowhere/report.xml"),
        "{ran:?}"
    );
    assert!(server.received_requests().await.unwrap().is_empty());
}
