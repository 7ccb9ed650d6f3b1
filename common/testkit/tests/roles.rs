//! Process control and the proxy, shown on a shell in place of the shipped binary.

use std::time::Duration;

use gristmill_testkit::{Proxy, Redis, roles::Setup, sys};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const SOON: Duration = Duration::from_secs(30);

fn shell(folder: &tempfile::TempDir) -> Setup {
    Setup::new("/bin/sh", folder.path()).env("WORD", "hello")
}

#[tokio::test]
async fn a_role_logs_is_waited_for_and_ends_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let script = "sleep 1000 & echo $WORD; wait";
    let role = shell(&folder).start("talker", &["-c", script]).unwrap();
    role.wait_for_log("hello", SOON).await.unwrap();
    let children = sys::descendants(role.pid().unwrap());
    assert_eq!(children.len(), 1);
    drop(role);
    assert!(!sys::is_alive(children[0]));
}

#[tokio::test]
async fn waiting_for_a_log_line_of_an_ended_process_fails_at_once_and_shows_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let role = shell(&folder)
        .start("brief", &["-c", "echo last words; exit 3"])
        .unwrap();
    let error = role
        .wait_for_log("never", Duration::from_secs(3600))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("last words"), "{error}");
    let status = role.wait(SOON).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(3));
}

#[tokio::test]
async fn a_restarted_role_keeps_its_log_and_takes_new_variables() {
    let folder = tempfile::tempdir().unwrap();
    let mut role = shell(&folder)
        .start("again", &["-c", "echo $WORD; sleep 1000"])
        .unwrap();
    role.wait_for_log("hello", SOON).await.unwrap();
    role.restart_with(&[("WORD", "bye")]).await.unwrap();
    role.wait_for_log("bye", SOON).await.unwrap();
    assert_eq!(role.log_text(), "hello\nbye\n");
}

/// Sends one command; gives the answer, which has to fit one packet.
async fn ask(stream: &mut TcpStream, command: &[u8]) -> std::io::Result<String> {
    stream.write_all(command).await?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

async fn ping(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"PING\r\n").await?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn the_proxy_forwards_stalls_cuts_and_restores() {
    let server = Redis::start().await.unwrap();
    let target = server.url();
    let target = target.trim_start_matches("redis://").trim_end_matches("/0");
    let proxy = Proxy::to(target).await.unwrap();
    assert!(proxy.url(&server.url()).contains(&proxy.address()));
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(ping(&mut stream).await.unwrap(), "+PONG\r\n");

    proxy.stall();
    let limit = Duration::from_millis(300);
    assert!(
        tokio::time::timeout(limit, ping(&mut stream))
            .await
            .is_err()
    );
    proxy.restore();
    let mut late = [0; 7];
    stream.read_exact(&mut late).await.unwrap();
    assert_eq!(&late, b"+PONG\r\n");

    proxy.lose_answers();
    stream
        .write_all(b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n")
        .await
        .unwrap();
    let mut direct = TcpStream::connect(target).await.unwrap();
    let start = std::time::Instant::now();
    while ask(&mut direct, b"*2\r\n$3\r\nGET\r\n$1\r\nn\r\n")
        .await
        .unwrap()
        != "$1\r\n1\r\n"
    {
        assert!(start.elapsed() < SOON, "the request did not arrive");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.restore();
    let mut nothing = [0; 1];
    // Closed, and the answer never came.
    assert!(!matches!(stream.read(&mut nothing).await, Ok(1..)));
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(ping(&mut stream).await.unwrap(), "+PONG\r\n");

    proxy.cut();
    assert!(ping(&mut stream).await.is_err());
    let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(ping(&mut refused).await.is_err());

    proxy.restore();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(ping(&mut stream).await.unwrap(), "+PONG\r\n");
}
