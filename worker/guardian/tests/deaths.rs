//! kill -9 of any of worker, guardian and shim, alone and together: no process of a task is left.

mod common;

use common::{FIXTURE, Fifo, PATIENCE, Worker, is_alive, parent, shell, signal};
use gristmill_guardian::{ClientError, Event, ExitStatus, KilledBy, KnownTask};
use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;

/// A worker process with one task that has a daemon.
struct Process {
    child: Child,
    guardian: i32,
    lock: File,
    /// Its end would end the worker.
    stdin: Option<ChildStdin>,
}

impl Process {
    fn start(folder: &Path, fifo: &Fifo) -> Self {
        let lock = folder.join("lock");
        let script = format!("{}; sleep 1000", fifo.daemon());
        let mut command = Command::new(FIXTURE);
        command
            .arg("worker")
            .arg(&lock)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("the fixture");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("text");
        let guardian = line
            .trim()
            .strip_prefix("guardian ")
            .expect("the first line")
            .parse()
            .expect("a pid");
        let lock = File::open(lock).expect("the lock file");
        assert!(
            matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
            "the worker has the lock"
        );
        Process {
            stdin: child.stdin.take(),
            child,
            guardian,
            lock,
        }
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Waits for the flock, as the next start would; the daemon must be dead when it is free.
    fn assert_all_dead(mut self, daemon: &str, fifo: &Fifo) {
        let (send, locked) = mpsc::channel();
        let lock = self.lock;
        std::thread::spawn(move || send.send(lock.lock()));
        locked
            .recv_timeout(PATIENCE)
            .expect("the lock is let go of")
            .expect("the lock");
        assert!(
            !is_alive(daemon),
            "the lock was let go of before all was dead"
        );
        fifo.wait_for_end();
        self.child.wait().expect("killed");
    }
}

#[test]
fn when_the_worker_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = Fifo::new(folder.path(), "fifo");
    let process = Process::start(folder.path(), &fifo);
    let daemon = fifo.line();
    signal("KILL", &[process.pid()]);
    process.assert_all_dead(&daemon, &fifo);
}

#[test]
fn when_worker_and_guardian_are_killed_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..5 {
        let fifo = Fifo::new(folder.path(), &format!("fifo{round}"));
        let process = Process::start(folder.path(), &fifo);
        let daemon = fifo.line();
        signal("KILL", &[process.pid(), process.guardian]);
        process.assert_all_dead(&daemon, &fifo);
    }
}

#[test]
fn when_the_worker_ends_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = Fifo::new(folder.path(), "fifo");
    let mut process = Process::start(folder.path(), &fifo);
    let daemon = fifo.line();
    drop(process.stdin.take());
    process.assert_all_dead(&daemon, &fifo);
}

#[test]
fn when_the_guardian_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = Fifo::new(folder.path(), "fifo");
    let worker = Worker::start();
    worker
        .client
        .spawn(1, shell(&format!("{}; sleep 1000", fifo.daemon())))
        .expect("sent");
    let pid = worker.spawned(1);
    fifo.line();
    signal("KILL", &[worker.client.pid() as i32]);
    match worker.next() {
        Event::GuardianDied { known, how } => {
            assert_eq!(
                known,
                [KnownTask {
                    id: 1,
                    pid: Some(pid)
                }]
            );
            assert!(how.contains("signal: 9"), "{how}");
        }
        other => panic!("{other:?}"),
    }
    worker.client.kill_known_groups();
    fifo.wait_for_end();
    let next = worker.client.spawn(2, shell("true"));
    assert!(matches!(next, Err(ClientError::Gone)), "{next:?}");
    assert!(worker.events.recv().is_err(), "the event was the last");
}

#[test]
fn when_a_shim_is_killed_only_its_task_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let worker = Worker::start();
    let fifos = [Fifo::new(folder.path(), "0"), Fifo::new(folder.path(), "1")];
    let daemons: Vec<(u32, String)> = (0..2)
        .map(|id| {
            worker
                .client
                .spawn(
                    id,
                    shell(&format!("{}; sleep 1000", fifos[id as usize].daemon())),
                )
                .expect("sent");
            (worker.spawned(id), fifos[id as usize].line())
        })
        .collect();
    signal("KILL", &[parent(daemons[0].0)]);
    let exited = worker.exited(0);
    assert_eq!(
        (exited.status, exited.killed_by),
        (ExitStatus::Unknown, KilledBy::ShimLost)
    );
    assert!(!is_alive(&daemons[0].1) && !is_alive(&daemons[0].0.to_string()));
    assert!(is_alive(&daemons[1].1));
    fifos[0].wait_for_end();
    // The guardian goes on.
    assert_eq!(worker.run(2, shell("true")).status, ExitStatus::Code(0));
    worker.client.kill(1).expect("sent");
    assert_eq!(worker.exited(1).killed_by, KilledBy::Kill);
}

#[test]
fn shutdown_reports_every_ending_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = Fifo::new(folder.path(), "fifo");
    let worker = Worker::start();
    worker
        .client
        .spawn(1, shell(&format!("{}; sleep 1000", fifo.daemon())))
        .expect("sent");
    worker.spawned(1);
    let daemon = fifo.line();
    worker.client.shutdown().expect("sent");
    assert_eq!(worker.exited(1).killed_by, KilledBy::Shutdown);
    assert!(!is_alive(&daemon));
    assert_eq!(worker.next(), Event::ShutDown);
    fifo.wait_for_end();
}

#[test]
fn dropping_the_client_shuts_down() {
    let worker = Worker::start();
    worker.client.spawn(1, shell("sleep 1000")).expect("sent");
    worker.spawned(1);
    let Worker { client, events } = worker;
    drop(client);
    let rest: Vec<Event> = events.iter().collect();
    assert!(
        matches!(&rest[..], [Event::Exited(_), Event::ShutDown]),
        "{rest:?}"
    );
}

#[test]
fn signals_of_an_operator_do_not_end_the_guardian() {
    let worker = Worker::start();
    worker.client.spawn(1, shell("sleep 1000")).expect("sent");
    let shim = parent(worker.spawned(1));
    for name in ["TERM", "INT", "HUP", "QUIT", "USR1"] {
        signal(name, &[worker.client.pid() as i32, shim]);
    }
    assert_eq!(worker.run(2, shell("true")).status, ExitStatus::Code(0));
    worker.client.kill(1).expect("sent");
    assert_eq!(worker.exited(1).killed_by, KilledBy::Kill);
}
