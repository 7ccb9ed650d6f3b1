//! Starting runs and waiting for them.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use wiremock::matchers::{body_json, method, path, query_param};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use super::mock::*;
use super::{Printed, gristmill, gristmill_telling};
use crate::client::{Client, RunName, Sources};
use crate::commands::console::Console;
use crate::commands::exit::Outcome;
use crate::commands::follow::{Options, follow};

#[tokio::test]
async fn a_started_run_is_named() {
    let server = MockServer::start().await;
    dag(&server, false).await;
    let ran = gristmill(&server.uri(), &["run", "sales"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "sales r1\n"));
    let ran = gristmill(&server.uri(), &["run", "sales", "-o", "json"]).await;
    let run: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(run["dag_run_id"], "r1");
}

#[tokio::test]
async fn parameters_are_typed_and_added_to_conf() {
    let server = MockServer::start().await;
    let body = json!({"dag_run_id": "r1", "conf": {"a": true, "n": 5, "other": "x"}});
    Mock::given(method("POST"))
        .and(body_json(body))
        .respond_with(ok(run("queued")))
        .with_priority(1)
        .expect(1)
        .mount(&server)
        .await;
    dag(&server, false).await;
    let args = [
        "run",
        "sales",
        "-p",
        "n=5",
        "-p",
        "other=x",
        "--conf",
        r#"{"a": true, "n": 1}"#,
        "--run-id",
        "r1",
    ];
    assert_eq!(gristmill(&server.uri(), &args).await.code, 0);
}

#[tokio::test]
async fn success_ends_with_0() {
    let server = MockServer::start().await;
    dag(&server, false).await;
    states(&server, &["queued", "running", "success"]).await;
    let ran = gristmill(&server.uri(), &["run", "sales", "--wait"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.err.contains("sales r1 succeeded after 12s: 2 success"),
        "{ran:?}"
    );
    assert!(ran.err.contains("0/2 tasks done: 2 running"), "{ran:?}");
    let ran = gristmill(
        &server.uri(),
        &["runs", "wait", "sales", "r1", "-o", "json"],
    )
    .await;
    let run: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(run["state"], "success");
}

#[tokio::test]
async fn failure_ends_with_1_and_shows_why() {
    let server = MockServer::start().await;
    dag(&server, false).await;
    states(&server, &["failed"]).await;
    let mut failed = instance("clean", "failed", 2);
    failed["reason"] = "exit code 3".into();
    instances(&server, json!([failed])).await;
    let lines: Vec<String> = (1..=30).map(|n| format!("line {n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let at = format!("{RUN}/taskInstances/clean/logs/2");
    answer(&server, "GET", &at, log(&lines, None)).await;
    let ran = gristmill(&server.uri(), &["run", "sales", "--wait"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.err.contains("clean failed: exit code 3\n    line 11\n"),
        "{ran:?}"
    );
    assert!(
        ran.err
            .contains("line 30\nwhole log: gristmill tasks logs sales r1 clean\n"),
        "{ran:?}"
    );
    assert!(!ran.err.contains("line 10\n"), "{ran:?}");
}

#[tokio::test]
async fn a_wrong_command_line_ends_with_2() {
    for args in [
        &["run"][..],
        &["run", "sales", "--conf", "[1]"],
        &["run", "sales", "-p", "n"],
        &["run", "sales", "--timeout", "soon"],
        &["dags", "deploy", "/nowhere"],
    ] {
        let ran = gristmill("http://127.0.0.1:1", args).await;
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
    }
}

#[tokio::test]
async fn a_cancelled_run_ends_with_3() {
    let server = MockServer::start().await;
    dag(&server, false).await;
    let mut cancelled = run("failed");
    cancelled["cancelled"] = true.into();
    answer(&server, "GET", RUN, ok(cancelled)).await;
    let ran = gristmill(&server.uri(), &["run", "sales", "--wait"]).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.contains("was cancelled"), "{ran:?}");
}

#[tokio::test]
async fn a_wait_that_is_too_long_ends_with_4() {
    let server = MockServer::start().await;
    dag(&server, false).await;
    states(&server, &["running", "running"]).await;
    let ran = gristmill(&server.uri(), &["run", "sales", "--timeout", "300ms"]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.err.contains("gristmill runs wait sales r1"), "{ran:?}");
}

#[tokio::test]
async fn no_permission_ends_with_5() {
    for status in [401, 403] {
        let server = MockServer::start().await;
        let refusal =
            ResponseTemplate::new(status).set_body_json(json!({"detail": "Not authenticated"}));
        Mock::given(wiremock::matchers::any())
            .respond_with(refusal)
            .mount(&server)
            .await;
        let ran = gristmill(&server.uri(), &["run", "sales"]).await;
        assert_eq!(ran.code, 5, "{ran:?}");
        assert!(ran.err.contains("Not authenticated"), "{ran:?}");
        assert!(!ran.err.contains("secret"), "{ran:?}");
    }
}

#[tokio::test]
async fn an_absent_api_ends_with_6() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}");
    for args in [
        &["run", "sales", "--wait"][..],
        &["runs", "wait", "sales", "r1"],
        &["queues"],
    ] {
        let ran = gristmill(&url, args).await;
        assert_eq!(ran.code, 6, "{args:?}: {ran:?}");
        assert!(ran.err.contains(&url), "{ran:?}");
    }
}

#[tokio::test]
async fn what_the_api_refuses_ends_with_7() {
    let server = MockServer::start().await;
    dag(&server, true).await;
    let ran = gristmill(&server.uri(), &["run", "sales"]).await;
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(ran.err.contains("gristmill dags unpause sales"), "{ran:?}");
    let ran = gristmill(&server.uri(), &["run", "unknown"]).await;
    assert_eq!(ran.code, 7, "{ran:?}");

    let server = MockServer::start().await;
    let detail = json!({"detail": "params.n: \"x\" is not of type \"integer\"", "violations": []});
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(400).set_body_json(detail))
        .with_priority(1)
        .mount(&server)
        .await;
    dag(&server, false).await;
    let ran = gristmill(&server.uri(), &["run", "sales", "-p", "n=x", "--wait"]).await;
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(ran.err.contains("is not of type"), "{ran:?}");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_key() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(503))
        .up_to_n_times(2)
        .with_priority(1)
        .mount(&server)
        .await;
    dag(&server, false).await;
    assert_eq!(gristmill(&server.uri(), &["run", "sales"]).await.code, 0);
    let requests = server.received_requests().await.unwrap();
    let mut keys: Vec<_> = requests
        .iter()
        .filter_map(|request| request.headers.get("idempotency-key"))
        .collect();
    assert_eq!(keys.len(), 3);
    keys.dedup();
    assert_eq!(keys.len(), 1, "{keys:?}");
}

#[tokio::test]
async fn logs_of_every_attempt_are_shown_once() {
    let server = MockServer::start().await;
    dag(&server, false).await;
    states(&server, &["running", "running", "success"]).await;
    instances(
        &server,
        json!([
            instance("fetch", "success", 2),
            instance("later", "none", 0)
        ]),
    )
    .await;
    let logs = format!("{RUN}/taskInstances/fetch/logs");
    answer(
        &server,
        "GET",
        &format!("{logs}/1"),
        log(&["first try"], None),
    )
    .await;
    for (token, page) in [
        (
            "a",
            Sequence::of([log(&[], Some("a")), log(&["two"], Some("b"))]),
        ),
        (
            "b",
            Sequence::of([log(&[], Some("b")), log(&["three"], None)]),
        ),
    ] {
        Mock::given(path(format!("{logs}/2")))
            .and(query_param("token", token))
            .respond_with(page)
            .with_priority(1)
            .mount(&server)
            .await;
    }
    answer(
        &server,
        "GET",
        &format!("{logs}/2"),
        log(&["one"], Some("a")),
    )
    .await;
    let ran = gristmill(&server.uri(), &["run", "sales", "--logs"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut lines: Vec<&str> = ran.out.lines().collect();
    // Attempts are read at the same time; within one the order stands.
    lines.sort_by_key(|line| line.contains("first try"));
    assert_eq!(
        lines,
        [
            "fetch | one",
            "fetch | two",
            "fetch | three",
            "fetch | first try"
        ]
    );
}

/// Says that it was asked.
#[derive(Debug)]
struct Telling(mpsc::UnboundedSender<()>, ResponseTemplate);

impl Respond for Telling {
    fn respond(&self, _request: &Request) -> ResponseTemplate {
        let _ = self.0.send(());
        self.1.clone()
    }
}

#[tokio::test]
async fn a_restart_of_the_api_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let before = MockServer::builder().listener(listener).start().await;
    dag(&before, false).await;
    answer(&before, "GET", RUN, ok(run("running"))).await;
    let (asked, mut was_asked) = mpsc::unbounded_channel();
    answer(
        &before,
        "GET",
        &format!("{RUN}/wait"),
        Telling(asked, ok(run("running"))),
    )
    .await;

    let err = Printed::new();
    let url = before.uri();
    let waiting = gristmill_telling(&url, &["run", "sales", "--wait"], err.clone());
    let restart = async {
        was_asked.recv().await.unwrap();
        drop(before);
        err.until_it_has("trying again until it is back").await;
        let after = MockServer::builder()
            .listener(TcpListener::bind(address).unwrap())
            .start()
            .await;
        answer(&after, "GET", &format!("{RUN}/wait"), ok(run("success"))).await;
        after
    };
    let (ran, _after) = tokio::join!(waiting, restart);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.err.matches("trying again").count(), 1, "{ran:?}");
    assert!(ran.err.contains("the API is back"), "{ran:?}");
}

#[tokio::test]
async fn a_timeout_holds_while_the_api_is_away() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = MockServer::builder().listener(listener).start().await;
    dag(&server, false).await;
    answer(&server, "GET", RUN, ok(run("running"))).await;
    let (asked, mut was_asked) = mpsc::unbounded_channel();
    answer(
        &server,
        "GET",
        &format!("{RUN}/wait"),
        Telling(asked, ok(run("running"))),
    )
    .await;
    let url = server.uri();
    let waiting = gristmill(&url, &["run", "sales", "--timeout", "1s"]);
    let going = async {
        was_asked.recv().await.unwrap();
        drop(server);
    };
    let (ran, ()) = tokio::join!(waiting, going);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(
        ran.err.contains("trying again until the timeout"),
        "{ran:?}"
    );
}

/// Follows the run `r1`, interrupting it as soon as it is asked about.
async fn interrupted(server: &MockServer, options: Options) -> (Outcome, String) {
    let (asked, mut was_asked) = mpsc::unbounded_channel();
    answer(server, "GET", RUN, Telling(asked, ok(run("running")))).await;
    let client = Client::connect(&server.uri(), &Sources::default())
        .await
        .unwrap();
    let err = Printed::new();
    let console = Console::of(Printed::new(), err.clone());
    let name = RunName {
        dag_id: "sales".to_owned(),
        run_id: "r1".to_owned(),
    };
    let (interrupt, interrupts) = mpsc::channel(1);
    let following = follow(&client, &console, &name, &options, interrupts);
    let interrupting = async {
        was_asked.recv().await.unwrap();
        interrupt.send(()).await.unwrap();
        interrupt
    };
    let (followed, _interrupt) = tokio::join!(following, interrupting);
    (followed.unwrap().outcome, err.text())
}

#[tokio::test]
async fn an_interrupt_leaves_the_run_and_says_how_to_come_back() {
    let server = MockServer::start().await;
    answer(&server, "GET", &format!("{RUN}/wait"), ok(run("running"))).await;
    let (outcome, err) = interrupted(&server, Options::default()).await;
    assert_eq!(outcome, Outcome::Detached);
    assert!(err.contains("gristmill runs wait sales r1"), "{err}");
}

#[tokio::test]
async fn an_interrupt_cancels_the_run_if_it_is_to() {
    let server = MockServer::start().await;
    // The cancel itself meets a restart.
    let answers = [ResponseTemplate::new(503), ok(run("running"))];
    answer(
        &server,
        "POST",
        &format!("{RUN}/cancel"),
        Sequence::of(answers),
    )
    .await;
    let mut cancelled = run("failed");
    cancelled["cancelled"] = true.into();
    let answers = [ok(run("running")), ok(cancelled)];
    answer(
        &server,
        "GET",
        &format!("{RUN}/wait"),
        Sequence::of(answers),
    )
    .await;
    let options = Options {
        cancel_on_interrupt: true,
        known: true,
        pause: Duration::from_millis(20),
        ..Options::default()
    };
    let (outcome, err) = interrupted(&server, options).await;
    assert_eq!(outcome, Outcome::Cancelled, "{err}");
    let requests = server.received_requests().await.unwrap();
    let cancels = requests
        .iter()
        .filter(|request| request.url.path().ends_with("/cancel"));
    assert_eq!(cancels.count(), 2);
}
