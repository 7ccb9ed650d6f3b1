//! The servers start, survive what tests do to them, and leave nothing behind.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use gristmill_testkit::{Database, MySql, Postgres, RabbitMq, Redis, RedisDb, shared, wait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Sends inline Redis commands to the server of `url`; gives the answers.
async fn redis(url: &str, commands: &str) -> std::io::Result<String> {
    let url = url::Url::parse(url).unwrap();
    let address = format!("127.0.0.1:{}", url.port().unwrap());
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("SELECT {}\r\n{commands}\r\nQUIT\r\n", &url.path()[1..]);
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn postgres_keeps_committed_rows_over_kill() {
    let server = Postgres::start().await.unwrap();
    let database = Database::create(&server.url(), None).await.unwrap();
    database
        .sql("CREATE TABLE t AS SELECT 42 AS n")
        .await
        .unwrap();
    server.kill().await.unwrap();
    assert!(!server.is_up().await);
    assert!(database.sql("SELECT n FROM t").await.is_err());
    server.restart().await.unwrap();
    assert_eq!(database.sql("SELECT n FROM t").await.unwrap().trim(), "42");
    server.stop().await.unwrap();
    assert!(!server.is_up().await);
    server.restart_empty().await.unwrap();
    assert!(database.sql("SELECT 1").await.is_err());
}

#[tokio::test]
async fn postgres_copies_a_template_database() {
    let template = shared::postgres_database().await.unwrap();
    template.sql("CREATE TABLE t (n int)").await.unwrap();
    let copy = shared::postgres_database_like(&template).await.unwrap();
    assert_eq!(
        copy.sql("SELECT count(*) FROM t").await.unwrap().trim(),
        "0"
    );
}

#[tokio::test]
async fn redis_finds_its_data_after_kill_and_loses_it_when_emptied() {
    let server = Redis::start().await.unwrap();
    redis(&server.url(), "SET k v").await.unwrap();
    server.restart().await.unwrap();
    assert!(
        redis(&server.url(), "GET k")
            .await
            .unwrap()
            .contains("\r\nv\r\n")
    );
    server.restart_empty().await.unwrap();
    assert!(redis(&server.url(), "GET k").await.unwrap().contains("$-1"));
}

#[tokio::test]
async fn mysql_starts_again_after_a_kill() {
    let server = MySql::start().await.unwrap();
    server.kill().await.unwrap();
    assert!(!server.is_up().await);
    server.restart().await.unwrap();
    assert!(server.is_up().await);
}

#[tokio::test]
async fn redis_answers_nothing_while_paused() {
    let server = Redis::start().await.unwrap();
    server.pause().unwrap();
    assert!(!server.is_up().await);
    server.resume().unwrap();
    let up = async || server.is_up().await.then_some(());
    wait::until("the resumed server", Duration::from_secs(10), up)
        .await
        .unwrap();
}

#[tokio::test]
async fn redis_databases_are_apart() {
    let server = Redis::start().await.unwrap();
    let a = RedisDb::create(&server.url()).await.unwrap();
    let b = RedisDb::create(&server.url()).await.unwrap();
    assert_ne!(a.number(), b.number());
    redis(a.url(), "SET k v").await.unwrap();
    assert!(redis(b.url(), "GET k").await.unwrap().contains("$-1"));
}

#[tokio::test]
async fn two_rabbitmq_nodes_live_side_by_side_and_survive_kill() {
    let (a, b) = tokio::try_join!(RabbitMq::start(), RabbitMq::start()).unwrap();
    let vhost = a.vhost().await.unwrap();
    assert!(vhost.url().ends_with(vhost.name()));
    a.kill().await.unwrap();
    assert!(!a.is_up().await);
    assert!(b.is_up().await);
    a.restart().await.unwrap();
    assert!(a.is_up().await);
    b.stop().await.unwrap();
    b.restart_empty().await.unwrap();
    assert!(b.is_up().await);
}

/// The test program of this crate runs itself, is killed with -9, and its server and folder must vanish.
#[tokio::test]
async fn servers_and_folders_vanish_with_a_killed_test_process() {
    const CHILD: &str = "GRISTMILL_TESTKIT_CHILD_REPORT";
    if let Some(report) = std::env::var_os(CHILD) {
        let server = Redis::start().await.unwrap();
        let folder = server.log().parent().unwrap().to_owned();
        let text = format!("{}\n{}\n.\n", server.url(), folder.display());
        std::fs::write(report, text).unwrap();
        std::future::pending::<()>().await;
    }
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "servers_and_folders_vanish_with_a_killed_test_process",
        ])
        .env(CHILD, &report)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Duration::from_secs(60);
    let text = wait::until("the child's report", deadline, async || {
        std::fs::read_to_string(&report)
            .ok()
            .filter(|t| t.ends_with(".\n"))
    })
    .await
    .unwrap();
    let (url, data) = text.split_once('\n').unwrap();
    let data = PathBuf::from(data.lines().next().unwrap());
    assert!(data.is_dir());
    assert!(redis(url, "PING").await.unwrap().contains("PONG"));
    child.kill().unwrap();
    child.wait().unwrap();
    wait::until(
        "the server and its folder to vanish",
        deadline,
        async || (redis(url, "PING").await.is_err() && !data.exists()).then_some(()),
    )
    .await
    .unwrap();
}

/// Also run by the next test, with servers named by the environment.
#[tokio::test]
async fn every_test_has_its_own_corner_of_the_shared_servers() {
    let (a, b) =
        tokio::try_join!(shared::postgres_database(), shared::postgres_database()).unwrap();
    a.sql("CREATE TABLE t ()").await.unwrap();
    assert_eq!(
        b.sql("SELECT to_regclass('t') IS NULL")
            .await
            .unwrap()
            .trim(),
        "t"
    );
    let (a, b) = tokio::try_join!(shared::redis_db(), shared::redis_db()).unwrap();
    assert_ne!(a.number(), b.number());
    let (a, b) = tokio::try_join!(shared::rabbitmq_vhost(), shared::rabbitmq_vhost()).unwrap();
    assert_ne!(a.name(), b.name());
}

#[test]
fn the_servers_command_shares_its_servers_with_tests() {
    let output = Command::new(env!("CARGO_BIN_EXE_gristmill-testkit"))
        .args(["servers", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "every_test_has_its_own_corner_of_the_shared_servers",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{output:?}"
    );
}

#[test]
fn a_missing_server_is_named_with_its_package_and_variable() {
    let output = Command::new(env!("CARGO_BIN_EXE_gristmill-testkit"))
        .args(["servers", "--", "/bin/true"])
        .env("PATH", "/nonexistent")
        // Named, so that Redis alone is started.
        .env("GRISTMILL_TEST_DATABASE_URL", "postgres://unused")
        .env("GRISTMILL_TEST_AMQP_URL", "amqp://unused")
        .env_remove("GRISTMILL_TEST_REDIS_URL")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        text.contains("install -y --no-install-recommends redis-server"),
        "{text}"
    );
    assert!(text.contains("GRISTMILL_TEST_REDIS_URL="), "{text}");
}

#[test]
fn the_servers_command_hands_over_urls_and_exit_code() {
    let start = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_gristmill-testkit"))
        .args(["servers", "--", "sh", "-c"])
        .env_remove("GRISTMILL_TEST_AMQP_URL")
        .env_remove("GRISTMILL_TEST_AMQP_ADMIN_URL")
        .arg("env | grep -o '^GRISTMILL_TEST_[A-Z_]*URL' | sort; exit 7")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let names: Vec<&str> = text.lines().collect();
    assert_eq!(
        names,
        [
            "GRISTMILL_TEST_AMQP_ADMIN_URL",
            "GRISTMILL_TEST_AMQP_URL",
            "GRISTMILL_TEST_DATABASE_URL",
            "GRISTMILL_TEST_REDIS_URL"
        ],
        "after {:?}: {}",
        start.elapsed(),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(7));
}
