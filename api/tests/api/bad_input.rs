//! Requests that are wrong in shape: each is refused with what is wrong, and changes nothing.

use crate::support::{Answer, Api, CHAIN};
use axum::http::Method;
use rstest::rstest;
use serde_json::{Value, json};

const RUNS: &str = "/api/v2/dags/chain/dagRuns";

async fn trigger(api: &Api, kind: &str, body: impl Into<axum::body::Body>) -> Answer {
    api.with_header(Method::POST, RUNS, ("content-type", kind), body)
        .await
}

#[tokio::test]
async fn bodies_that_cannot_be_read_make_no_run() {
    let api = Api::new().await;
    api.deploy(CHAIN).await;
    let json = "application/json";
    let long = format!("{{\"note\": \"{}\"}}", "x".repeat(2 << 20));
    let too_long = trigger(&api, json, long).await;
    assert_eq!(too_long.headers["connection"], "close");
    assert!(
        too_long
            .detail(413)
            .contains("larger than this operation takes")
    );
    let deep = format!("{{\"conf\": {}1{}}}", "[".repeat(5000), "]".repeat(5000));
    assert!(
        trigger(&api, json, deep)
            .await
            .detail(422)
            .contains("recursion limit")
    );
    let cut = trigger(&api, json, "{\"conf\": {").await;
    assert!(cut.detail(422).contains("json_invalid"));
    let no_utf8 = trigger(&api, json, &b"{\"note\": \"\xff\"}"[..]).await;
    assert!(no_utf8.detail(422).contains("json_invalid"));
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "image/png",
    ] {
        assert!(trigger(&api, kind, "{}").await.detail(415).contains(kind));
    }
    for kind in [
        "application/json; charset=utf-8",
        "application/vnd.api+json",
    ] {
        let wrong = trigger(&api, kind, "{\"cnof\": 1}").await.expect(422);
        assert_eq!(wrong["detail"][0]["loc"], json!(["body", "cnof"]), "{kind}");
    }
    let conf = json!({ "conf": { "n": "x".repeat(900_000) } }).to_string();
    assert!(
        trigger(&api, json, conf)
            .await
            .detail(413)
            .contains("conf has")
    );
    let runs = api.get(RUNS).await.expect(200);
    assert_eq!(runs["total_entries"], 0);
}

#[rstest]
#[case("a/b")]
#[case("../../etc/passwd")]
#[case("x y")]
#[case("r\u{0}")]
#[case("")]
#[case("\u{fc}")]
#[tokio::test]
async fn run_ids_of_other_characters_are_refused(#[case] id: &str) {
    let api = Api::new().await;
    api.deploy(CHAIN).await;
    let wrong = api
        .post(RUNS, json!({ "dag_run_id": id }))
        .await
        .expect(422);
    assert_eq!(wrong["detail"][0]["loc"], json!(["body", "dag_run_id"]));
}

#[rstest]
#[case("/api/v2/dags/..%2F..%2Fetc%2Fpasswd", 404)]
#[case("/api/v2/dags/chain/dagRuns/%2E%2E", 404)]
#[case("/api/v2/dags/%00", 422)]
#[case("/api/v2/dags/%FF", 422)]
#[case("/api/v2/variables/'%20OR%20'1'='1", 404)]
#[case("/api/v2/dags?dag_id_pattern=%00", 422)]
#[case("/api/v2/dags?limit=-1", 422)]
#[case("/api/v2/dags?limit=many", 422)]
#[case("/api/v2/dags?tags_match_mode=some", 422)]
#[case("/api/v2/dags/~/dagRuns?state=cancelled", 422)]
#[case("/api/v2/dags/~/dagRuns?start_date_gte=yesterday", 422)]
#[case("/api/v2/dags/~/dagRuns?duration_gt=NaN", 422)]
#[case("/api/v2/dags/~/dagRuns?order_by=id;DROP", 400)]
#[case("/api/v2/dags/~/dagRuns?cursor=bm9wZQ", 400)]
#[case("/api/v2/dags/~/dagRuns/r/taskInstances", 400)]
#[case("/api/v2/nothing", 404)]
#[tokio::test]
async fn strange_paths_and_queries_are_refused(#[case] path: &str, #[case] status: u16) {
    let api = Api::new().await;
    api.deploy(CHAIN).await;
    let detail = api.get(path).await.detail(status);
    assert!(!detail.is_empty(), "{path}");
}

#[tokio::test]
async fn text_that_looks_like_sql_is_text() {
    let api = Api::new().await;
    api.deploy(CHAIN).await;
    api.trigger("chain", "r1").await;
    for text in ["'+OR+'1'='1", "%25'%3B+DROP+TABLE+dags+--", "%5C", "%22"] {
        for query in [
            format!("/api/v2/dags?dag_id_pattern={text}"),
            format!("/api/v2/dags/~/dagRuns?run_id_pattern={text}"),
            format!("/api/v2/dags/~/dagRuns?run_id_prefix_pattern={text}"),
            format!("/api/v2/dags/~/dagRuns/~/taskInstances?pool={text}"),
            format!("/api/v2/eventLogs?owner_pattern={text}"),
            format!("/api/v2/pools?pool_name_pattern={text}"),
        ] {
            assert_eq!(
                api.get(&query).await.expect(200)["total_entries"],
                0,
                "{query}"
            );
        }
    }
    let all = api.get("/api/v2/dags/~/dagRuns?run_id_pattern=~").await;
    assert_eq!(all.expect(200)["total_entries"], 1);
}

#[rstest]
#[case(Method::PUT, "/api/v2/dags")]
#[case(Method::DELETE, "/api/v2/pools")]
#[case(Method::POST, "/api/v2/dags/chain/dagRuns/r1")]
#[case(Method::POST, "/api/v2/dags/~/dagRuns/~/taskInstances/one")]
#[case(Method::POST, "/api/v2/connections/one")]
#[case(Method::PATCH, "/auth/token")]
#[tokio::test]
async fn a_method_that_a_path_has_not_is_refused(#[case] method: Method, #[case] path: &str) {
    let api = Api::new().await;
    let json = ("content-type", "application/json");
    let answer = api.with_header(method, path, json, "{}").await;
    assert_eq!(answer.detail(405), "Method Not Allowed");
}

#[tokio::test]
async fn a_bulk_change_that_is_wrong_changes_nothing() {
    let api = Api::new().await;
    let pool = |name: &str| json!({ "name": name, "slots": 1 });
    let create = |entities: Vec<Value>| json!({ "action": "create", "entities": entities });
    let bulk = async |actions: Value| {
        let body = json!({ "actions": actions });
        api.patch("/api/v2/pools", body).await
    };
    bulk(json!([{ "action": "explode", "entities": [] }]))
        .await
        .expect(422);
    bulk(json!([create(vec![json!({ "slots": 1 })])]))
        .await
        .expect(422);
    let many = (0..1001).map(|n| pool(&format!("p{n}"))).collect();
    bulk(json!([create(many)])).await.expect(413);
    let done = bulk(json!([create(vec![pool("a"), pool("default_pool")])]))
        .await
        .expect(200);
    assert_eq!(done["create"]["errors"][0]["status_code"], 409);
    let pools = api.get("/api/v2/pools").await.expect(200);
    assert_eq!(pools["total_entries"], 1, "one of the two is there already");
    let mut skip = create(vec![pool("a"), pool("default_pool")]);
    skip["action_on_existence"] = "skip".into();
    let done = bulk(json!([skip])).await.expect(200);
    assert_eq!(done["create"]["success"], json!(["a"]));
    let delete = json!({ "action": "delete", "entities": ["a", "b"] });
    let done = bulk(json!([delete])).await.expect(200);
    assert_eq!(done["delete"]["errors"][0]["status_code"], 404);
    api.get("/api/v2/pools/a").await.expect(200);
}
