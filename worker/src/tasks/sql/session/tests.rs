//! The three databases, real ones: values go in and come out, and what runs is stopped.

use super::*;
use gristmill_testkit::{shared, wait};
use serde_json::json;

/// A connection as the deployment keeps it, of a URL.
fn of_url(kind: &str, url: &str) -> Value {
    let url = url::Url::parse(url).unwrap();
    json!({
        "conn_type": kind, "host": url.host_str(), "port": url.port(), "login": url.username(),
        "password": url.password(), "schema": url.path().trim_start_matches('/'),
    })
}

async fn open(connection: &Value) -> (Session, Stopper) {
    let target = Target::of(connection).unwrap();
    Session::open(target, Arc::default()).await.unwrap()
}

async fn rows(session: &mut Session, text: &str, values: &[Value]) -> Value {
    let done = session.run(text, values, Keep::UpTo(10)).await;
    json!(done.unwrap_or_else(|error| panic!("{text}: {error}")).rows)
}

async fn error(session: &mut Session, text: &str, values: &[Value]) -> String {
    let done = session.run(text, values, Keep::UpTo(2)).await;
    done.unwrap_err().to_string()
}

#[tokio::test]
async fn postgres_takes_and_gives_values_by_its_types() {
    let database = shared::postgres_database().await.unwrap();
    let (mut session, _) = open(&of_url("postgres", database.url())).await;
    let make = "CREATE TYPE mood AS ENUM ('good', 'bad')";
    session.run(make, &[], Keep::None).await.unwrap();
    let make = "CREATE TABLE t (i int, b bigint, s smallint, f real, d double precision, n numeric(12, 4), x text, c char(2), day date, \
                at timestamptz, here timestamp, u uuid, j jsonb, m mood, tags text[], yes boolean, ids int[])";
    session.run(make, &[], Keep::None).await.unwrap();
    let values = [
        json!(7),
        json!("8"),
        json!(9),
        json!(0.5),
        json!(0.25),
        json!("12.3400"),
        json!("ö"),
        json!("ab"),
        json!("2026-01-02"),
        json!("2026-01-02T03:04:05+09:00"),
        json!("2026-01-02 03:04:05"),
        json!("6f9619ff-8b86-d011-b42d-00c04fc964ff"),
        json!({"a": [1]}),
        json!("bad"),
        json!(["x", "y"]),
        json!(true),
        json!([1, 2]),
    ];
    let insert = "INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17), \
                  (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)";
    let done = session.run(insert, &values, Keep::None).await.unwrap();
    assert_eq!(done.count, 2);
    let wanted = json!([{
        "i": 7, "b": 8, "s": 9, "f": 0.5, "d": 0.25, "n": 12.34, "x": "ö", "c": "ab", "day": "2026-01-02",
        "at": "2026-01-01T18:04:05Z", "here": "2026-01-02T03:04:05", "u": "6f9619ff-8b86-d011-b42d-00c04fc964ff",
        "j": {"a": [1]}, "m": "bad", "tags": ["x", "y"], "yes": true, "ids": [1, 2],
    }]);
    assert_eq!(
        rows(
            &mut session,
            "SELECT * FROM t WHERE day = $1",
            &[json!("2026-01-02")]
        )
        .await,
        wanted
    );
    let sums = rows(
        &mut session,
        "SELECT sum(b) AS big, avg(i) AS mean, max(x) AS none FROM t WHERE b > $1",
        &[json!(5)],
    )
    .await;
    assert_eq!(sums, json!([{"big": 8, "mean": 7.0, "none": "ö"}]));
    assert_eq!(
        rows(&mut session, "SELECT i FROM t WHERE i IS NULL", &[]).await,
        json!([{"i": null}])
    );
    let wrong = error(
        &mut session,
        "SELECT 1 FROM t WHERE day = $1",
        &[json!("soon")],
    )
    .await;
    assert_eq!(
        wrong,
        "parameter 1 is a date for the database, and \"soon\" is none"
    );
    let wrong = error(&mut session, "SELECT i, b AS i FROM t", &[]).await;
    assert!(wrong.contains("two columns are called \"i\""), "{wrong}");
    let wrong = error(&mut session, "SELECT '1 day'::interval AS span", &[]).await;
    assert!(
        wrong.contains("\"span\" is of the type interval"),
        "{wrong}"
    );
    let wrong = error(&mut session, "SELECT generate_series(1, 3) AS n", &[]).await;
    assert!(wrong.contains("more than 2 rows"), "{wrong}");
    session.close().await;
}

#[tokio::test]
async fn mysql_takes_and_gives_values_by_its_types() {
    let url = shared::mysql().await.unwrap();
    let (mut session, _) = open(&of_url("mysql", &url)).await;
    session
        .run("DROP TABLE IF EXISTS t", &[], Keep::None)
        .await
        .unwrap();
    let make = "CREATE TABLE t (i INT, b BIGINT UNSIGNED, d DOUBLE, n DECIMAL(12, 4), x VARCHAR(20), e ENUM('good', 'bad'), day DATE, \
                at DATETIME, yes BOOLEAN, body TEXT)";
    session.run(make, &[], Keep::None).await.unwrap();
    let values = [
        json!(7),
        json!("8"),
        json!(0.25),
        json!("12.34"),
        json!("ö"),
        json!("bad"),
        json!("2026-01-02"),
        json!("2026-01-02 03:04:05"),
        json!(true),
        json!({"a": 1}),
    ];
    let insert = "INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    assert_eq!(
        session
            .run(insert, &values, Keep::None)
            .await
            .unwrap()
            .count,
        1
    );
    let wanted = json!([{
        "i": 7, "b": 8, "d": 0.25, "n": 12.34, "x": "ö", "e": "bad", "day": "2026-01-02", "at": "2026-01-02T03:04:05",
        "yes": 1, "body": "{\"a\":1}",
    }]);
    // With parameters it is prepared, without any it is not: both give the same.
    let prepared = rows(&mut session, "SELECT * FROM t WHERE i = ?", &[json!(7)]).await;
    let plain = rows(&mut session, "SELECT * FROM t", &[]).await;
    for mut found in [prepared, plain] {
        let yes = found[0]["yes"].take();
        assert!(yes == json!(1) || yes == json!(true), "{yes}");
        found[0]["yes"] = json!(1);
        assert_eq!(found, wanted);
    }
    let procedure = "CREATE OR REPLACE PROCEDURE p() BEGIN DELETE FROM t; SELECT 5 AS five; END";
    session.run(procedure, &[], Keep::None).await.unwrap();
    assert_eq!(
        rows(&mut session, "CALL p()", &[]).await,
        json!([{"five": 5}])
    );
    session.close().await;
}

#[tokio::test]
async fn sqlite_takes_and_gives_values() {
    let folder = tempfile::tempdir().unwrap();
    let connection =
        json!({"conn_type": "sqlite", "host": folder.path().join("new.db").to_str().unwrap()});
    let (mut session, _) = open(&connection).await;
    session.begin().await.unwrap();
    session
        .run("CREATE TABLE t (i INTEGER, x)", &[], Keep::None)
        .await
        .unwrap();
    let insert = session
        .run(
            "INSERT INTO t VALUES (?1, ?2), (2, 0.5)",
            &[json!(1), json!("ö")],
            Keep::None,
        )
        .await;
    assert_eq!(insert.unwrap().count, 2);
    // Not those of the statement before.
    assert_eq!(
        session
            .run("SELECT 1 WHERE 0", &[], Keep::None)
            .await
            .unwrap()
            .count,
        0
    );
    session.commit().await.unwrap();
    assert_eq!(
        rows(&mut session, "SELECT * FROM t", &[]).await,
        json!([{"i": 1, "x": "ö"}, {"i": 2, "x": 0.5}])
    );
    let first = session
        .run("SELECT i FROM t", &[], Keep::First)
        .await
        .unwrap();
    assert_eq!((first.count, first.rows.len()), (2, 1));
    session.begin().await.unwrap();
    session.run("DELETE FROM t", &[], Keep::None).await.unwrap();
    session.close().await;
    let (mut session, _) = open(&connection).await;
    assert_eq!(
        rows(&mut session, "SELECT count(*) AS n FROM t", &[]).await,
        json!([{"n": 2}])
    );
}

/// Runs `text`, stops it once `running` says that it runs, and gives its error.
async fn stopped(connection: &Value, text: &str, running: impl AsyncFn() -> bool) -> SqlError {
    let (mut session, stopper) = open(connection).await;
    let work = session.run(text, &[], Keep::None);
    let stop = async {
        let asked = wait::until("the query to run", Duration::from_secs(30), async || {
            running().await.then_some(())
        });
        asked.await.unwrap();
        stopper.stop().await.unwrap();
    };
    let (done, ()) = tokio::join!(work, stop);
    done.unwrap_err()
}

#[tokio::test]
async fn a_query_is_stopped_at_its_server() {
    let database = shared::postgres_database().await.unwrap();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND datname = current_database()";
    let runs = async || database.sql(running).await.unwrap().trim() == "1";
    stopped(
        &of_url("postgres", database.url()),
        "SELECT pg_sleep(600)",
        runs,
    )
    .await;
    assert_eq!(database.sql(running).await.unwrap().trim(), "0");

    let connection = of_url("mysql", &shared::mysql().await.unwrap());
    let (other, _) = open(&connection).await;
    let other = tokio::sync::Mutex::new(other);
    let count = async || {
        let query = "SELECT count(*) AS n FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'";
        rows(&mut *other.lock().await, query, &[]).await[0]["n"] == 1
    };
    stopped(&connection, "SELECT SLEEP(600)", &count).await;
    assert!(!count().await);

    let folder = tempfile::tempdir().unwrap();
    let connection =
        json!({"conn_type": "sqlite", "host": folder.path().join("a.db").to_str().unwrap()});
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let error = stopped(&connection, endless, async || true).await;
    assert!(error.to_string().contains("interrupted"), "{error}");
}
