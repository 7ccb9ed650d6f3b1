//! The `http` task against a real HTTP server.

use crate::support::{Deployment, SOON};
use serde_json::json;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{basic_auth, body_json, body_string, header, method, path, query_param},
};

#[tokio::test(flavor = "multi_thread")]
async fn requests_carry_what_the_task_says_and_answers_become_xcoms() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path("/orders"))
        .and(query_param("country", "kr"))
        .and(header("x-run", "orders"))
        .respond_with(
            ResponseTemplate::new(200).set_body_json(json!({"ids": [1, 2, 3], "ok": true})),
        )
        .expect(1)
        .mount(&server)
        .await;
    Mock::given(method("POST"))
        .and(path("/bill"))
        .and(body_json(json!({"ids": [1, 2, 3]})))
        .respond_with(ResponseTemplate::new(201).set_body_string("billed"))
        .expect(1)
        .mount(&server)
        .await;
    Mock::given(method("POST"))
        .and(path("/form"))
        .and(header("content-type", "application/x-www-form-urlencoded"))
        .and(body_string("answer=billed"))
        .respond_with(ResponseTemplate::new(204))
        .expect(1)
        .mount(&server)
        .await;
    Mock::given(method("GET"))
        .and(path("/private"))
        .and(basic_auth("ann", "open sesame"))
        .respond_with(ResponseTemplate::new(200).set_body_string("welcome"))
        .expect(1)
        .mount(&server)
        .await;
    let deployment = Deployment::small().await;
    let connection = json!({
        "connection_id": "shop", "conn_type": "http", "host": server.uri(), "login": "ann", "password": "open sesame",
    });
    deployment.client.post("/connections", &connection).await;
    let yaml = format!(
        "dag_id: orders
params: {{country: {{type: string, default: kr}}}}
tasks:
  fetch:
    http:
      url: {base}/orders
      query: {{country: \"{{{{ params.country }}}}\"}}
      headers: {{x-run: \"{{{{ dag.dag_id }}}}\"}}
      expect: {{check: json.ok and status == 200}}
  bill:
    depends_on: [fetch]
    http: {{method: POST, url: {base}/bill, json: {{ids: \"{{{{ ti.xcom_pull('fetch').ids }}}}\"}}, expect: {{status: [201]}}}}
  form:
    depends_on: [bill]
    http: {{method: POST, url: {base}/form, form: {{answer: \"{{{{ ti.xcom_pull('bill') }}}}\"}}}}
  private:
    http: {{connection: shop, url: /private}}
",
        base = server.uri()
    );
    let run = deployment.client.start("orders", &yaml).await;
    deployment.succeeds(&run, SOON).await;
    assert_eq!(
        deployment.client.xcom(&run, "fetch").await["ids"],
        json!([1, 2, 3])
    );
    assert_eq!(deployment.client.xcom(&run, "bill").await, "billed");
    assert_eq!(deployment.client.xcom(&run, "private").await, "welcome");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_server_is_asked_again_and_a_refusal_is_not() {
    let server = MockServer::start().await;
    Mock::given(path("/busy"))
        .respond_with(ResponseTemplate::new(503).insert_header("retry-after", "1"))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    Mock::given(path("/busy"))
        .respond_with(ResponseTemplate::new(200).set_body_string("at last"))
        .mount(&server)
        .await;
    Mock::given(path("/gone"))
        .respond_with(ResponseTemplate::new(404).set_body_string("no such thing"))
        .expect(1)
        .mount(&server)
        .await;
    Mock::given(path("/odd"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"ok": false})))
        .expect(1)
        .mount(&server)
        .await;
    let deployment = Deployment::small().await;
    let yaml = format!(
        "dag_id: answers
tasks:
  busy: {{http: {base}/busy}}
  gone: {{http: {base}/gone}}
  odd: {{http: {{url: {base}/odd, expect: {{check: json.ok}}}}}}
",
        base = server.uri()
    );
    let run = deployment.client.start("answers", &yaml).await;
    assert_eq!(deployment.client.ended(&run, SOON).await["state"], "failed");
    let busy = deployment.client.instance(&run, "busy").await;
    assert_eq!(
        (&busy["state"], &busy["try_number"]),
        (&json!("success"), &json!(1))
    );
    let gone = deployment.client.instance(&run, "gone").await;
    let reason = gone["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("404") && reason.contains("no such thing"),
        "{reason}"
    );
    let odd = deployment.client.instance(&run, "odd").await;
    let reason = odd["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("json.ok"), "{reason}");
}
