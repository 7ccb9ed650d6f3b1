//! A worker in the test's own process, and pipes that tell by their end that a process is dead.
#![allow(
    dead_code,
    reason = "each test binary uses its own part of these helpers"
)]

use gristmill_guardian::{Event, Exited, GuardianClient, GuardianConfig, SpawnRequest};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

/// Only reached by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const FIXTURE: &str = env!("CARGO_BIN_EXE_guardian-fixture");

pub(crate) struct Worker {
    pub(crate) client: GuardianClient,
    pub(crate) events: Receiver<Event>,
}

impl Worker {
    pub(crate) fn start() -> Self {
        let (send, events) = mpsc::channel();
        let config = GuardianConfig {
            program: FIXTURE.into(),
            ..GuardianConfig::default()
        };
        let client =
            GuardianClient::start(config, move |event| drop(send.send(event))).expect("a guardian");
        Worker { client, events }
    }

    pub(crate) fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    /// The next event, which is the start of this task.
    pub(crate) fn spawned(&self, wanted: u64) -> u32 {
        match self.next() {
            Event::Spawned { id, pid } if id == wanted => pid,
            other => panic!("task {wanted} should have started: {other:?}"),
        }
    }

    /// The next event, which is the end of this task.
    pub(crate) fn exited(&self, wanted: u64) -> Exited {
        match self.next() {
            Event::Exited(exited) if exited.id == wanted => exited,
            other => panic!("task {wanted} should have ended: {other:?}"),
        }
    }

    pub(crate) fn run(&self, id: u64, request: SpawnRequest) -> Exited {
        self.client.spawn(id, request).expect("sent");
        self.spawned(id);
        self.exited(id)
    }

    /// Runs a task to its end and returns what it wrote to stdout.
    pub(crate) fn output(&self, mut request: SpawnRequest) -> String {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        request.stdout = Some(writer.into());
        self.client.spawn(1, request).expect("sent");
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        self.spawned(1);
        let exited = self.exited(1);
        assert_eq!(
            exited.status,
            gristmill_guardian::ExitStatus::Code(0),
            "{text}"
        );
        text
    }
}

pub(crate) fn shell(script: &str) -> SpawnRequest {
    let mut request = SpawnRequest::new(["sh", "-c", script]);
    request.env = vec![("PATH".into(), "/usr/bin:/bin".into())];
    request
}

/// A named pipe that only tasks open for writing: its lines are theirs, and its end is the death of all of them.
pub(crate) struct Fifo {
    pub(crate) path: PathBuf,
    lines: Receiver<String>,
}

impl Fifo {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .expect("mkfifo")
                .success()
        );
        let (send, lines) = mpsc::channel();
        let opened = path.clone();
        std::thread::spawn(move || {
            let reader = BufReader::new(File::open(opened).expect("the fifo"));
            reader
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| send.send(line))
        });
        Fifo { path, lines }
    }

    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }

    /// Waits until no process has the pipe open for writing.
    pub(crate) fn wait_for_end(&self) {
        match self.lines.recv_timeout(PATIENCE) {
            Err(RecvTimeoutError::Disconnected) => {}
            other => panic!("processes still hold {}: {other:?}", self.path.display()),
        }
    }

    /// A script whose process (with a child of its own) leaves session and group, is orphaned, ignores SIGTERM, writes its
    /// pid to the pipe and lives on.
    pub(crate) fn daemon(&self) -> String {
        let path = self.path.display();
        let body = format!(
            "trap \"\" TERM HUP INT; exec 9>{path}; echo $$ >&9; while :; do sleep 1000; done"
        );
        format!("(setsid sh -c '{body}' </dev/null >/dev/null 2>&1 &)")
    }
}

/// Not yet reaped. The end of a pipe comes a moment before that, so it only follows from a report or the lock.
pub(crate) fn is_alive(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

pub(crate) fn parent(pid: u32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("alive");
    let fields = stat.rsplit_once(')').expect("a name").1;
    fields
        .split_whitespace()
        .nth(1)
        .expect("ppid")
        .parse()
        .expect("a pid")
}

/// Sends a signal by the name of kill(1).
pub(crate) fn signal(name: &str, pids: &[i32]) {
    let mut kill = Command::new("kill");
    kill.arg(format!("-{name}"))
        .args(pids.iter().map(i32::to_string));
    assert!(
        kill.status().expect("kill").success(),
        "kill -{name} {pids:?}"
    );
}

/// A process that is stopped until this is dropped, also by a failing test.
pub(crate) struct Stopped(i32);

impl Stopped {
    pub(crate) fn new(pid: i32) -> Self {
        signal("STOP", &[pid]);
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .args(["-CONT", &self.0.to_string()])
            .status();
    }
}
