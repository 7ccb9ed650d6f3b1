//! A shim takes one task after the other, and nothing of one reaches the next.

mod common;

use common::{PATIENCE, Worker, is_alive, parent, shell, signal};
use gristmill_guardian::{Event, ExitStatus, KilledBy, SpawnRequest};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

fn shim_of_a_task(worker: &Worker) -> String {
    worker.output(shell("echo $PPID")).trim().to_owned()
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

fn children(pid: u32) -> usize {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    list.expect("alive").split_ascii_whitespace().count()
}

#[test]
fn tasks_in_a_row_cost_one_process_each_and_one_shim_in_all() {
    let worker = Worker::start();
    let shims: BTreeSet<String> = (0..20).map(|_| shim_of_a_task(&worker)).collect();
    assert_eq!(shims.len(), 1, "{shims:?}");
    assert_eq!(children(worker.client.pid()), 1);
}

#[test]
fn tasks_at_one_time_have_a_shim_each() {
    let worker = Worker::start();
    let mut shims = BTreeSet::new();
    for id in 0..4 {
        worker
            .client
            .spawn(id, SpawnRequest::new(["sleep", "1000"]))
            .expect("sent");
        shims.insert(parent(worker.spawned(id)));
    }
    assert_eq!(shims.len(), 4, "{shims:?}");
}

#[test]
fn a_request_too_long_for_a_waiting_shim_gets_a_new_one() {
    let worker = Worker::start();
    let first = shim_of_a_task(&worker);
    let mut request = shell("echo $PPID ${#LONG}");
    request
        .env
        .push(("LONG".into(), "x".repeat(100_000).into()));
    let answer = worker.output(request);
    let (second, length) = answer.trim().split_once(' ').expect("two words");
    assert_eq!(length, "100000");
    assert_ne!(first, second);
    assert!(is_alive(&first), "it waits on");
}

#[test]
fn usage_is_counted_anew_for_each_task() {
    let worker = Worker::start();
    let heavy = "x=$(head -c 40000000 /dev/zero | tr '\\0' a); \
                 i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    let heavy = worker.run(1, shell(heavy));
    let light = worker.run(2, shell("true"));
    assert!(heavy.max_rss_kb > 40_000, "{heavy:?}");
    assert!(light.max_rss_kb < heavy.max_rss_kb / 2, "{light:?}");
    let cpu = |exited: &gristmill_guardian::Exited| exited.user_cpu_ms + exited.system_cpu_ms;
    assert!(cpu(&light) < cpu(&heavy) / 2, "{heavy:?} {light:?}");
}

#[test]
fn an_order_for_a_task_that_has_just_ended_does_not_meet_the_next() {
    let worker = Worker::start();
    for round in 0..300 {
        let (ending, next) = (2 * round, 2 * round + 1);
        worker.client.spawn(ending, shell("exit 1")).expect("sent");
        worker.spawned(ending);
        // The ending may be on its way, so that the shim has the order when the task is gone.
        if round % 2 == 0 {
            worker.client.kill(ending).expect("sent");
        } else {
            let grace = Duration::from_secs(1000);
            worker.client.terminate(ending, grace).expect("sent");
        }
        worker.exited(ending);
        let exited = worker.run(next, shell("exit 3"));
        assert_eq!(
            (exited.status, exited.killed_by),
            (ExitStatus::Code(3), KilledBy::None),
            "round {round}"
        );
    }
}

#[test]
fn a_shim_that_is_killed_while_it_waits_is_replaced() {
    let worker = Worker::start();
    let shim = shim_of_a_task(&worker);
    signal("KILL", &[shim.parse().expect("a pid")]);
    wait_until("the shim is reaped", || !is_alive(&shim));
    assert_ne!(shim_of_a_task(&worker), shim);
}

#[test]
fn a_waiting_shim_ends_with_its_guardian() {
    let worker = Worker::start();
    let shim = shim_of_a_task(&worker);
    signal("KILL", &[worker.client.pid() as i32]);
    assert!(matches!(worker.next(), Event::GuardianDied { .. }));
    wait_until("the shim has ended", || !is_alive(&shim));
}

#[test]
fn all_but_one_end_when_there_is_nothing_to_do() {
    let worker = Worker::start();
    for id in 0..8 {
        worker
            .client
            .spawn(id, SpawnRequest::new(["sleep", "1000"]))
            .expect("sent");
        worker.spawned(id);
    }
    for id in 0..8 {
        worker.client.kill(id).expect("sent");
        worker.exited(id);
    }
    assert_eq!(children(worker.client.pid()), 8);
    wait_until("seven shims have ended", || {
        children(worker.client.pid()) == 1
    });
    assert_eq!(worker.run(9, shell("true")).status, ExitStatus::Code(0));
}
