//! kill -9 in the middle of concurrent transactions: what was acknowledged is there.

mod support;

use gristmill_store::{Backend, Reads, Tx};
use gristmill_store_sqlite::SqliteStore;
use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};
use tokio::task::JoinSet;

/// Set in the child: the file to write to.
const CHILD: &str = "GRISTMILL_TEST_CRASH_CHILD";
const WRITERS: usize = 16;
const ACKNOWLEDGED: usize = 500;

#[test]
fn kill_loses_nothing_that_was_acknowledged() {
    if let Some(path) = std::env::var_os(CHILD) {
        return write_until_killed(Path::new(&path));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gristmill.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "kill_loses_nothing_that_was_acknowledged",
            "--nocapture",
        ])
        .env(CHILD, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = HashSet::new();
    let note = |line: String, seen: &mut HashSet<String>| {
        if let Some(name) = line.strip_prefix("ack ") {
            seen.insert(name.to_owned());
        }
    };
    while acknowledged.len() < ACKNOWLEDGED {
        note(lines.next().unwrap().unwrap(), &mut acknowledged);
    }
    child.kill().unwrap();
    // What it had said before it died counts too.
    for line in lines {
        note(line.unwrap(), &mut acknowledged);
    }
    child.wait().unwrap();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let kept: HashSet<String> = runtime.block_on(async {
        // The dead child's lock is gone with it.
        let store = SqliteStore::open(&path).await.unwrap();
        store.check_schema().await.unwrap();
        let letters = store.dead_letters(1_000_000).await.unwrap();
        letters.into_iter().map(|letter| letter.reason).collect()
    });
    let lost: Vec<_> = acknowledged.difference(&kept).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

fn write_until_killed(path: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(path).await.unwrap();
        store.migrate().await.unwrap();
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let store = store.clone();
            writers.spawn(async move {
                for n in 0.. {
                    let name = format!("{writer}-{n}");
                    let mut tx = store.begin().await.unwrap();
                    tx.put_dead_letter("test", &name, b"").await.unwrap();
                    tx.commit().await.unwrap();
                    // One write for the whole line, past the test harness's capture.
                    let line = format!("\nack {name}\n");
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            });
        }
        writers.join_all().await;
    });
}
