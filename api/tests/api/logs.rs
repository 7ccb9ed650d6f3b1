//! Logs: by pages, streamed, followed.

use crate::support::{Api, CHAIN, events};
use axum::http::Method;
use gristmill_common::{message::Ending, row::TiRow};
use gristmill_objects::logs::{LogKey, LogWriter};
use gristmill_presence::Presence;
use std::time::Duration;

const LOGS: &str = "/api/v2/dags/chain/dagRuns/r1/taskInstances/a/logs";

async fn writer(api: &Api, ti: &TiRow) -> LogWriter {
    let key = LogKey {
        dag_id: "chain".into(),
        run_id: "r1".into(),
        task_id: "a".into(),
        map_index: -1,
        try_number: 1,
        attempt: ti.attempt.unwrap(),
    };
    LogWriter::open(&api.parts.objects, &key).await.unwrap()
}

fn line(event: &str) -> String {
    format!("{{\"timestamp\":\"2026-01-01T00:00:00Z\",\"level\":\"info\",\"event\":\"{event}\"}}\n")
}

async fn running(api: &Api) -> TiRow {
    api.deploy(CHAIN).await;
    let run = api.trigger("chain", "r1").await;
    api.start_runs().await;
    let ti = api.ti(run, "a").await;
    api.apply(events::started(&ti)).await;
    ti
}

#[tokio::test]
async fn a_log_is_read_by_pages_until_its_attempt_has_ended() {
    let api = Api::new().await;
    let ti = running(&api).await;
    let empty = api.get(&format!("{LOGS}/1")).await.expect(200);
    assert_eq!(empty["continuation_token"], "0");
    let mut log = writer(&api, &ti).await;
    log.write(format!("{}{}half", line("one"), line("two")).as_bytes())
        .await
        .unwrap();
    log.flush().await.unwrap();
    let page = api.get(&format!("{LOGS}/1")).await.expect(200);
    assert_eq!(
        page["content"].as_array().map(Vec::len),
        Some(2),
        "half a line waits: {page}"
    );
    assert_eq!(page["content"][1]["event"], "two");
    let token = page["continuation_token"].as_str().unwrap().to_owned();
    log.write(b" a line\n").await.unwrap();
    log.finish().await.unwrap();
    api.apply(events::finished(&ti, Ending::Success, vec![]))
        .await;
    let rest = api
        .get(&format!("{LOGS}/1?token={token}"))
        .await
        .expect(200);
    assert_eq!(rest["content"][0]["event"], "half a line");
    assert!(rest["continuation_token"].is_null(), "{rest}");
    let tail = api.get(&format!("{LOGS}/1?tail=2")).await.expect(200);
    assert_eq!(tail["content"][0]["event"], "two");
    assert_eq!(
        api.get(&format!("{LOGS}/latest")).await.expect(200)["content"]
            .as_array()
            .map(Vec::len),
        Some(3)
    );
    api.get(&format!("{LOGS}/2")).await.expect(404);
    api.get(&format!("{LOGS}/x")).await.expect(422);
    api.get(&format!("{LOGS}/1?token=forged")).await.expect(400);
    let raw = api
        .with_header(
            Method::GET,
            &format!("{LOGS}/1"),
            ("accept", "application/x-ndjson"),
            "",
        )
        .await;
    assert_eq!(raw.headers["content-type"], "application/x-ndjson");
    assert_eq!(
        raw.text,
        format!("{}{}half a line\n", line("one"), line("two"))
    );
    let text = api
        .with_header(
            Method::GET,
            &format!("{LOGS}/1"),
            ("accept", "text/plain"),
            "",
        )
        .await;
    assert!(
        text.text.starts_with("2026-01-01T00:00:00Z one\n"),
        "{}",
        text.text
    );
}

#[tokio::test]
async fn a_followed_log_ends_with_its_attempt() {
    let api = Api::new().await;
    let ti = running(&api).await;
    let mut log = writer(&api, &ti).await;
    let path = format!("{LOGS}/1?follow=true");
    let following = api.with_header(Method::GET, &path, ("accept", "application/x-ndjson"), "");
    let writing = async {
        for (seq, event) in ["one", "two", "three"].into_iter().enumerate() {
            let text = line(event);
            log.write(text.as_bytes()).await.unwrap();
            log.flush().await.unwrap();
            api.presence
                .append_log(ti.attempt.unwrap(), seq as u64 + 1, text.into())
                .await
                .unwrap();
            tokio::task::yield_now().await;
        }
        log.finish().await.unwrap();
        api.apply(events::finished(&ti, Ending::Success, vec![]))
            .await;
    };
    let (answer, ()) = tokio::join!(
        tokio::time::timeout(Duration::from_secs(30), following),
        writing
    );
    assert_eq!(
        answer.expect("ends").text,
        ["one", "two", "three"].map(line).concat()
    );
}
