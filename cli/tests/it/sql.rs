//! The `sql` task on real databases.

use crate::support::{Deployment, LATER, Run, SOON};
use gristmill_testkit::{shared, wait};
use serde_json::{Value, json};
use std::path::Path;

/// Makes a connection of a server's URL.
async fn connect(deployment: &Deployment, id: &str, kind: &str, url: &str) {
    let url = url::Url::parse(url).unwrap();
    let password = url.password().unwrap_or("a-password-that-nobody-asks-for");
    let connection = json!({
        "connection_id": id, "conn_type": kind, "host": url.host_str(), "port": url.port(),
        "login": url.username(), "password": password, "schema": url.path().trim_start_matches('/'),
    });
    deployment.client.post("/connections", &connection).await;
}

async fn log(deployment: &Deployment, run: &Run, task: &str) -> String {
    let path = format!("{}/taskInstances/{task}/logs/1", run.path());
    deployment.client.text(&path).await
}

async fn reason(deployment: &Deployment, run: &Run, task: &str) -> String {
    let explained = ["tasks", "explain", &run.dag_id, &run.run_id, task];
    deployment.command(&explained).await
}

/// A DAG over a table of the database behind `db`: what goes in comes out, and what a check refuses is not there.
fn orders(table: &str) -> String {
    format!(
        "dag_id: orders
tasks:
  fill:
    sql:
      connection: db
      statements:
        - CREATE TABLE {table} (region VARCHAR(20), price INT, day DATE)
        - |
          INSERT INTO {table} VALUES ('eu; really', 5, :day), (:region, :price, :day);
      parameters: {{region: asia, price: \"{{{{ 40 + 2 }}}}\", day: \"2026-01-02\"}}
      output: count
  refused:
    depends_on: [fill]
    retries: 1
    retry_delay: 0s
    retry_rules: [{{output: not true, then: fail}}]
    sql:
      connection: db
      statements: [DELETE FROM {table}, \"SELECT count(*) AS n FROM {table}\"]
      checks: [\"rows[0].n > 0\"]
  sum:
    depends_on: [refused]
    trigger_rule: all_failed
    sql:
      connection: db
      statements: SELECT region, price, day FROM {table} WHERE day = :day ORDER BY price
      parameters: {{day: \"2026-01-02\"}}
      output: rows
  each:
    depends_on: [sum]
    expand_kwargs: \"{{{{ ti.xcom_pull('sum') }}}}\"
    shell: echo \"$R {{{{ map.price }}}}\"
    env: {{R: \"{{{{ map.region }}}}\"}}
  secret:
    sql: {{connection: db, statements: \"SELECT '{{{{ conn.db.password }}}}' AS p\", output: value}}
  wrong: {{sql: {{connection: db, statements: SELECT nothing FROM nowhere_at_all}}}}
"
    )
}

async fn all_of_it_works(deployment: &Deployment, table: &str, password: &str) {
    let run = deployment.client.start("orders", &orders(table)).await;
    deployment.client.ended(&run, SOON).await;
    assert_eq!(deployment.client.xcom(&run, "fill").await, 2);
    let refused = deployment.client.instance(&run, "refused").await;
    assert_eq!(
        (&refused["state"], &refused["try_number"]),
        (&json!("failed"), &json!(1)),
        "{refused}"
    );
    let why = reason(deployment, &run, "refused").await;
    assert!(
        why.contains("the check \"rows[0].n > 0\" is false") && why.contains("{\"n\":0}"),
        "{why}"
    );
    assert_eq!(
        deployment.client.xcom(&run, "sum").await,
        json!([
            {"region": "eu; really", "price": 5, "day": "2026-01-02"},
            {"region": "asia", "price": 42, "day": "2026-01-02"},
        ])
    );
    let each = deployment.client.instances(&run).await;
    let each = each
        .iter()
        .filter(|instance| instance["task_id"] == "each" && instance["state"] == "success");
    assert_eq!(each.count(), 2);
    let log = log(deployment, &run, "secret").await;
    assert!(
        log.contains("SELECT '***' AS p: 1 row") && !log.contains(password),
        "{log}"
    );
    let why = reason(deployment, &run, "wrong").await;
    assert!(
        why.contains("sql on db, statement 1") && why.contains("nowhere_at_all"),
        "{why}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_run_on_postgres_and_stop_with_their_task() {
    let mut deployment = Deployment::small().await;
    let url = deployment.servers.database_url.clone();
    connect(&deployment, "db", "postgres", &url).await;
    all_of_it_works(
        &deployment,
        "gm_test_orders",
        "a-password-that-nobody-asks-for",
    )
    .await;

    let yaml = "dag_id: slow
tasks:
  late: {execution_timeout: 1s, sql: {connection: db, statements: [CREATE TABLE gm_test_late (n int), SELECT pg_sleep(601)]}}
  long: {retries: 1, sql: {connection: db, statements: SELECT pg_sleep(600)}}
";
    let run = deployment.client.start("slow", yaml).await;
    let running = async |seconds: u32| {
        let query = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep({seconds})' AND application_name = 'gristmill-worker' \
             AND datname = current_database()"
        );
        deployment.sql(&query).await
    };
    deployment.client.task_is(&run, "late", "failed").await;
    assert_eq!(running(601).await, "0");
    assert_eq!(
        deployment
            .sql("SELECT to_regclass('gm_test_late') IS NULL")
            .await,
        "t"
    );
    wait::until("the long query", SOON, async || {
        (running(600).await == "1").then_some(())
    })
    .await
    .unwrap();
    // A worker that dies takes its query with it, before another one runs it anew.
    deployment.workers.remove(0).kill().await.unwrap();
    let running = async |deployment: &Deployment| {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND datname = current_database()";
        deployment.sql(query).await
    };
    wait::until("the query's end", SOON, async || {
        (running(&deployment).await == "0").then_some(())
    })
    .await
    .unwrap();
    deployment.add_worker(4, &[]);
    wait::until("the query again", LATER, async || {
        (running(&deployment).await == "1").then_some(())
    })
    .await
    .unwrap();
    deployment
        .client
        .post(&format!("{}/cancel", run.path()), &json!({}))
        .await;
    let ended = deployment.client.ended(&run, SOON).await;
    assert_eq!(ended["state"], "failed", "{ended}");
    assert_eq!(running(&deployment).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_run_on_mysql_and_stop_with_their_task() {
    let deployment = Deployment::small().await;
    let url = shared::mysql().await.unwrap();
    connect(&deployment, "db", "mysql", &url).await;
    let table = format!("t_{}", uuid::Uuid::new_v4().simple());
    all_of_it_works(&deployment, &table, "'gristmill'").await;
    let yaml = "dag_id: slow
tasks:
  late: {execution_timeout: 1s, sql: {connection: db, statements: SELECT SLEEP(60)}}
  after:
    depends_on: [late]
    trigger_rule: all_failed
    sql: {connection: db, output: value, statements: \"SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(60%'\"}
";
    let run = deployment.client.start("slow", yaml).await;
    deployment.client.ended(&run, SOON).await;
    assert_eq!(deployment.client.xcom(&run, "after").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_fills_and_sums_a_file() {
    let deployment = Deployment::small().await;
    let file = deployment.dir().join("shop.db").display().to_string();
    let set = [
        "connections",
        "set",
        "shop",
        "--type",
        "sqlite",
        "--host",
        &file,
    ];
    deployment.command(&set).await;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/dags");
    deployment
        .command(&["dags", "deploy", examples.to_str().unwrap()])
        .await;
    for _ in 0..2 {
        let run = deployment.client.trigger("sql_report").await;
        deployment.succeeds(&run, SOON).await;
        assert_eq!(deployment.client.xcom(&run, "load").await, 3);
        let wanted: Value = json!([
            {"region": "asia", "orders": 1, "revenue": 240.0},
            {"region": "eu", "orders": 2, "revenue": 99.5},
        ]);
        assert_eq!(deployment.client.xcom(&run, "sum").await, wanted);
    }
}
