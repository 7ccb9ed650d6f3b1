//! Nothing of a task outlives its reported ending, however it ends.

mod common;

use common::{Fifo, Stopped, Worker, is_alive, parent, shell, signal};
use gristmill_guardian::{
    Event, ExitStatus, KilledBy, SpawnFailureKind, SpawnRequest, boottime_now_ns,
};
use std::time::{Duration, Instant};

#[test]
fn a_daemon_is_dead_before_the_ending_is_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let worker = Worker::start();
    for id in 0..20 {
        let fifo = Fifo::new(folder.path(), &format!("{id}"));
        // The task goes on until the daemon has written, then ends by itself.
        let ready = folder.path().join(format!("go{id}"));
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&ready)
                .status()
                .expect("mkfifo")
                .success()
        );
        worker
            .client
            .spawn(
                id,
                shell(&format!(
                    "{}; read x <{}; exit 4",
                    fifo.daemon(),
                    ready.display()
                )),
            )
            .expect("sent");
        worker.spawned(id);
        let pid = fifo.line();
        assert!(is_alive(&pid));
        std::fs::write(&ready, "go\n").expect("read by the task");
        let exited = worker.exited(id);
        assert!(
            !is_alive(&pid),
            "the daemon outlived the report of the ending"
        );
        assert_eq!(
            (exited.status, exited.killed_by),
            (ExitStatus::Code(4), KilledBy::None)
        );
        assert!(exited.leftovers >= 1, "{exited:?}");
        fifo.wait_for_end();
    }
}

#[test]
fn terminate_asks_first_and_kills_the_whole_tree_after_the_grace() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = Fifo::new(folder.path(), "fifo");
    let worker = Worker::start();
    worker
        .client
        .spawn(
            1,
            shell(&format!(
                "trap '' TERM; {}; while :; do sleep 1000; done",
                fifo.daemon()
            )),
        )
        .expect("sent");
    worker.spawned(1);
    let pid = fifo.line();
    let start = Instant::now();
    worker
        .client
        .terminate(1, Duration::from_millis(300))
        .expect("sent");
    let exited = worker.exited(1);
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!(!is_alive(&pid));
    assert_eq!(
        (exited.status, exited.killed_by),
        (ExitStatus::Signal(9), KilledBy::Terminate)
    );
    fifo.wait_for_end();
}

#[test]
fn what_a_terminated_shell_leaves_keeps_the_rest_of_the_grace() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = Fifo::new(folder.path(), "fifo");
    let worker = Worker::start();
    // The inner shell tidies up on SIGTERM; the outer dies of it at once.
    let inner = format!(
        "exec 9>{}; trap \"sleep 0.2; echo tidy >&9; exit\" TERM; echo on >&9; while :; do sleep 0.05; done",
        fifo.path.display()
    );
    worker
        .client
        .spawn(1, shell(&format!("sh -c '{inner}'; true")))
        .expect("sent");
    worker.spawned(1);
    assert_eq!(fifo.line(), "on");
    worker
        .client
        .terminate(1, Duration::from_secs(50))
        .expect("sent");
    let exited = worker.exited(1);
    assert_eq!(
        (exited.status, exited.killed_by),
        (ExitStatus::Signal(15), KilledBy::Terminate)
    );
    assert_eq!(fifo.line(), "tidy");
    fifo.wait_for_end();
}

#[test]
fn kill_shortens_a_grace() {
    let worker = Worker::start();
    worker
        .client
        .spawn(
            1,
            shell("trap '' TERM; echo >&2; while :; do sleep 1000; done"),
        )
        .expect("sent");
    worker.spawned(1);
    worker
        .client
        .terminate(1, Duration::from_secs(1000))
        .expect("sent");
    worker.client.kill(1).expect("sent");
    assert_eq!(worker.exited(1).killed_by, KilledBy::Terminate);
    // Unknown tasks are no error.
    worker.client.kill(1).expect("sent");
    worker.client.terminate(99, Duration::ZERO).expect("sent");
    assert_eq!(worker.run(2, shell("true")).status, ExitStatus::Code(0));
}

#[test]
fn a_stopped_task_is_terminated_too() {
    let worker = Worker::start();
    worker
        .client
        .spawn(1, SpawnRequest::new(["sleep", "1000"]))
        .expect("sent");
    let pid = worker.spawned(1);
    signal("STOP", &[pid as i32]);
    worker
        .client
        .terminate(1, Duration::from_secs(1000))
        .expect("sent");
    assert_eq!(worker.exited(1).status, ExitStatus::Signal(15));
}

#[test]
fn the_deadline_kills_and_refuses_until_it_is_moved() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = Fifo::new(folder.path(), "fifo");
    let worker = Worker::start();
    worker
        .client
        .spawn(1, shell(&format!("{}; sleep 1000", fifo.daemon())))
        .expect("sent");
    worker.spawned(1);
    let pid = fifo.line();
    let far = boottime_now_ns() + 1_000_000_000_000;
    let near = boottime_now_ns() + 200_000_000;
    worker.client.set_deadline(near).expect("sent");
    // Whether the guardian or the shim is first to see it, both are told.
    let mut told = [worker.next(), worker.next()];
    let now = boottime_now_ns();
    assert!(now >= near);
    told.sort_by_key(|event| matches!(event, Event::Exited(_)));
    assert_eq!(
        told[0],
        Event::DeadlinePassed {
            deadline_boottime_ns: near,
            tasks: 1
        }
    );
    let Event::Exited(exited) = &told[1] else {
        panic!("{told:?}")
    };
    assert_eq!(
        (exited.status, exited.killed_by),
        (ExitStatus::Signal(9), KilledBy::Deadline)
    );
    assert!(!is_alive(&pid));
    fifo.wait_for_end();

    worker.client.spawn(2, shell("true")).expect("sent");
    match worker.next() {
        Event::SpawnFailed { id: 2, failure } => {
            assert_eq!(failure.kind, SpawnFailureKind::DeadlinePassed)
        }
        other => panic!("{other:?}"),
    }
    worker.client.set_deadline(far).expect("sent");
    // Backward is ignored.
    worker.client.set_deadline(near).expect("sent");
    assert_eq!(worker.run(3, shell("true")).status, ExitStatus::Code(0));
}

#[test]
fn the_deadline_moved_in_time_kills_nothing() {
    let worker = Worker::start();
    let start = boottime_now_ns();
    worker
        .client
        .set_deadline(start + 1_000_000_000)
        .expect("sent");
    worker.client.spawn(1, shell("sleep 1.5")).expect("sent");
    worker.spawned(1);
    worker
        .client
        .set_deadline(start + 1_000_000_000_000)
        .expect("sent");
    assert_eq!(worker.exited(1).status, ExitStatus::Code(0));
    assert!(boottime_now_ns() > start + 1_000_000_000);
}

#[test]
fn a_stopped_guardian_does_not_stop_the_deadline() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = Fifo::new(folder.path(), "fifo");
    let worker = Worker::start();
    let guardian = worker.client.pid() as i32;
    worker
        .client
        .spawn(1, shell(&format!("{}; sleep 1000", fifo.daemon())))
        .expect("sent");
    worker.spawned(1);
    fifo.line();
    worker
        .client
        .set_deadline(boottime_now_ns() + 300_000_000)
        .expect("sent");
    // Answered in order, so the deadline is set when this is reported.
    assert_eq!(worker.run(2, shell("true")).status, ExitStatus::Code(0));
    let stopped = Stopped::new(guardian);
    fifo.wait_for_end();
    drop(stopped);
    let mut told = [worker.next(), worker.next()];
    told.sort_by_key(|event| matches!(event, Event::Exited(_)));
    assert!(
        matches!(&told, [Event::DeadlinePassed { .. }, Event::Exited(e)] if e.killed_by == KilledBy::Deadline),
        "{told:?}"
    );
}

#[test]
fn a_stopped_shim_does_not_stop_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = Fifo::new(folder.path(), "fifo");
    let worker = Worker::start();
    worker
        .client
        .spawn(1, shell(&format!("{}; sleep 1000", fifo.daemon())))
        .expect("sent");
    let task = worker.spawned(1);
    let pid = fifo.line();
    signal("STOP", &[parent(task)]);
    worker.client.set_deadline(boottime_now_ns()).expect("sent");
    assert!(matches!(
        worker.next(),
        Event::DeadlinePassed { tasks: 1, .. }
    ));
    let exited = worker.exited(1);
    assert_eq!(
        (exited.status, exited.killed_by),
        (ExitStatus::Unknown, KilledBy::Deadline)
    );
    assert!(!is_alive(&pid));
    fifo.wait_for_end();
}

#[test]
fn above_its_memory_limit_the_tree_is_killed_and_the_numbers_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = Fifo::new(folder.path(), "fifo");
    let worker = Worker::start();
    // The memory is taken by a grandchild; tail keeps a line without end in memory.
    let mut request = shell(&format!(
        "{}; (tail -n1 /dev/zero & wait) & wait",
        fifo.daemon()
    ));
    request.limits.memory_bytes = Some(64 << 20);
    worker.client.spawn(1, request).expect("sent");
    worker.spawned(1);
    let pid = fifo.line();
    let exited = worker.exited(1);
    assert_eq!(exited.killed_by, KilledBy::Memory, "{exited:?}");
    let hit = exited.memory_limit_hit.expect("the measurement");
    assert!(hit.used_bytes > hit.limit_bytes && hit.limit_bytes == 64 << 20);
    assert!(hit.to_string().ends_with("MiB of limit 64 MiB"), "{hit}");
    assert!(!is_alive(&pid));
    fifo.wait_for_end();
    // Far below the limit nothing happens.
    let mut request = shell("sleep 0.5");
    request.limits.memory_bytes = Some(64 << 20);
    assert_eq!(worker.run(2, request).status, ExitStatus::Code(0));
}

#[test]
fn a_tree_that_keeps_forking_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let fifo = Fifo::new(folder.path(), "fifo");
    let worker = Worker::start();
    // Each process replaces itself by an orphan, in a new session, over and over.
    let script = folder.path().join("hydra");
    let body = format!(
        "exec 9>{}; [ -n \"$1\" ] && echo on >&9; setsid sh {} & exit",
        fifo.path.display(),
        script.display()
    );
    std::fs::write(&script, body).expect("written");
    let start = format!("sh {0} first; sh {0} second; sleep 1000", script.display());
    worker.client.spawn(1, shell(&start)).expect("sent");
    worker.spawned(1);
    assert_eq!(fifo.line(), "on");
    assert_eq!(fifo.line(), "on");
    worker.client.kill(1).expect("sent");
    assert_eq!(worker.exited(1).killed_by, KilledBy::Kill);
    fifo.wait_for_end();
}
