//! Callbacks and deadlines, delivered to a real listener.

use crate::support::{Deployment, Run, SOON};
use gristmill_testkit::wait;
use serde_json::{Value, json};
use std::time::Duration;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{header, path},
};

/// What was posted to a path of the listener, in order.
async fn posted(server: &MockServer, to: &str) -> Vec<Value> {
    let requests = server.received_requests().await.unwrap();
    let ours = requests.iter().filter(|request| request.url.path() == to);
    ours.map(|request| serde_json::from_slice(&request.body).unwrap())
        .collect()
}

async fn until_posted(server: &MockServer, to: &str, n: usize) -> Vec<Value> {
    wait::until(&format!("{n} posts to {to}"), SOON, async || {
        let posted = posted(server, to).await;
        (posted.len() >= n).then_some(posted)
    })
    .await
    .unwrap()
}

async fn listener() -> MockServer {
    let server = MockServer::start().await;
    Mock::given(path("/hook"))
        .respond_with(ResponseTemplate::new(200))
        .mount(&server)
        .await;
    server
}

async fn calls(deployment: &Deployment, query: &str) -> Vec<Value> {
    let page = deployment.client.get(&format!("/callbacks?{query}")).await;
    page["callbacks"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_tells_of_what_happens() {
    let server = listener().await;
    let deployment = Deployment::small().await;
    let client = &deployment.client;
    let connection = json!({
        "connection_id": "alerts", "conn_type": "http", "host": "unused",
        "extra": json!({"url": format!("{}/hook", server.uri()), "token": "s3cret"}).to_string(),
    });
    client.post("/connections", &connection).await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/dags");
    let yaml = std::fs::read_to_string(format!("{folder}/callbacks.yaml")).unwrap();
    client.deploy(&yaml).await;
    let made = client
        .post("/dags/callbacks/dagRuns", &json!({"conf": {"fail": true}}))
        .await;
    let run = Run {
        dag_id: "callbacks".to_owned(),
        run_id: made["dag_run_id"].as_str().unwrap().to_owned(),
    };
    assert_eq!(client.ended(&run, SOON).await["state"], "failed");
    let told = until_posted(&server, "/hook", 3).await;
    let retry = told
        .iter()
        .find(|body| body["event"] == "on_retry")
        .unwrap();
    assert_eq!(
        (
            &retry["task_id"],
            &retry["try_number"],
            &retry["dag_run_id"]
        ),
        (&json!("load"), &json!(1), &json!(run.run_id))
    );
    let failure = told
        .iter()
        .find(|body| body["event"] == "on_failure")
        .unwrap();
    let message = failure["message"].as_str().unwrap();
    assert!(
        message.contains("failed 2 times") && message.contains("exit code 1"),
        "{message}"
    );
    let chat = told.iter().find(|body| body["text"].is_string()).unwrap();
    assert!(
        chat["text"]
            .as_str()
            .unwrap()
            .starts_with("callbacks: the run failed"),
        "{chat}"
    );
    for request in server.received_requests().await.unwrap() {
        assert_eq!(request.headers["authorization"], "Bearer s3cret");
        assert!(
            request.headers["idempotency-key"]
                .to_str()
                .unwrap()
                .starts_with("gristmill-callback-")
        );
    }
    let listed = wait::until("all to be noted as delivered", SOON, async || {
        let listed = calls(&deployment, "state=delivered&dag_id=callbacks").await;
        (listed.len() == 3).then_some(listed)
    })
    .await
    .unwrap();
    assert!(!json!(listed).to_string().contains("s3cret"), "{listed:?}");
    let shown = deployment
        .command(&["callbacks", "list", "--dag", "callbacks"])
        .await;
    assert!(
        shown.contains("on_retry") && shown.contains("delivered"),
        "{shown}"
    );
    // Again, by hand.
    let id = listed[0]["callback_id"].to_string();
    deployment.command(&["callbacks", "retry", &id]).await;
    until_posted(&server, "/hook", 4).await;
    let good = client.trigger("callbacks").await;
    deployment.succeeds(&good, SOON).await;
    let told = until_posted(&server, "/hook", 5).await;
    let text = format!("{}: all is loaded", good.run_id);
    assert!(told.contains(&json!({"text": text})), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_hangs_or_fails_holds_up_nobody_else() {
    let server = listener().await;
    Mock::given(path("/hangs"))
        .respond_with(ResponseTemplate::new(200).set_delay(Duration::from_secs(120)))
        .mount(&server)
        .await;
    Mock::given(path("/flaky"))
        .respond_with(ResponseTemplate::new(503).set_body_string("not now"))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    Mock::given(path("/flaky"))
        .and(header("x-run", "known"))
        .respond_with(ResponseTemplate::new(204))
        .mount(&server)
        .await;
    // Another host: a target of its own.
    let slow = MockServer::start().await;
    Mock::given(path("/hangs"))
        .respond_with(ResponseTemplate::new(200).set_delay(Duration::from_secs(120)))
        .mount(&slow)
        .await;
    let deployment = Deployment::small().await;
    let client = &deployment.client;
    let (base, hanging) = (server.uri(), slow.uri());
    let yaml = format!(
        "dag_id: hangs
tasks:
  many:
    expand: {{n: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]}}
    noop:
    on_success: {{webhook: \"{hanging}/hangs\", timeout: 30s}}
  one:
    depends_on: [many]
    noop:
    on_success:
      - {{webhook: \"{base}/hook\"}}
      - {{webhook: \"{base}/flaky\", method: PUT, headers: {{x-run: \"{{{{ 'known' if run_id else '' }}}}\"}}}}
      - {{webhook: \"{base}/{{{{ params[run_id] }}}}\"}}
"
    );
    let run = client.start("hangs", &yaml).await;
    deployment.succeeds(&run, SOON).await;
    // The hanging ones are under way, and more of them wait.
    until_posted(&slow, "/hangs", 4).await;
    let told = until_posted(&server, "/hook", 1).await;
    assert_eq!(told[0]["task_id"], "one");
    until_posted(&server, "/flaky", 2).await;
    let failed = calls(&deployment, "state=failed").await;
    assert_eq!(failed.len(), 1);
    let why = failed[0]["last_error"].as_str().unwrap();
    assert!(
        why.starts_with("webhook: ") && why.contains("undefined"),
        "{why}"
    );
    let waiting = calls(&deployment, "state=pending&dag_id=hangs").await;
    assert_eq!(waiting.len(), 12, "those that hang");
    let under_way = posted(&slow, "/hangs").await.len();
    assert!(under_way < 12, "they take turns: {under_way}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missed_deadline_calls_once() {
    let server = listener().await;
    let deployment = Deployment::small().await;
    let client = &deployment.client;
    let hook = format!("{{webhook: \"{}/hook\"}}", server.uri());
    let yaml = format!(
        "dag_id: late
deadlines:
  - {{reference: queued, after: 1s, call: {hook}}}
  - {{reference: queued, after: 1h, call: {hook}}}
  - {{reference: average_runtime, after: 1h, call: {hook}}}
tasks:
  quick: {{noop: , deadlines: [{{reference: start, after: 1s, call: {hook}}}]}}
  slow:
    depends_on: [quick]
    shell: \"until [ -e $TEST_DIR/go ]; do sleep 0.1; done\"
    deadlines: [{{reference: start, after: 2s, call: {hook}}}]
"
    );
    let run = client.start("late", &yaml).await;
    let told = until_posted(&server, "/hook", 2).await;
    assert_eq!(
        (&told[0]["event"], &told[0]["task_id"], &told[0]["state"]),
        (&json!("deadline"), &Value::Null, &json!("running"))
    );
    assert_eq!(
        (&told[1]["event"], &told[1]["task_id"]),
        (&json!("deadline"), &json!("slow"))
    );
    std::fs::write(deployment.dir().join("go"), "").unwrap();
    deployment.succeeds(&run, SOON).await;
    let shown = client.get(&format!("{}/deadlines", run.path())).await;
    let missed = |deadline: &Value| !deadline["missed_at"].is_null();
    let shown = shown["deadlines"].as_array().unwrap();
    assert_eq!(shown.len(), 4, "{shown:?}");
    assert_eq!(shown.iter().filter(|deadline| missed(deadline)).count(), 2);
    assert_eq!(
        posted(&server, "/hook").await.len(),
        2,
        "each is called once"
    );
}
