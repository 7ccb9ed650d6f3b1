//! What a task gets, and what is told of it.

mod common;

use common::{Worker, shell};
use gristmill_guardian::{
    ClientError, Event, ExitStatus, KilledBy, Limits, SpawnFailure, SpawnFailureKind, SpawnRequest,
    User,
};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

fn failure(worker: &Worker, request: SpawnRequest) -> SpawnFailure {
    worker.client.spawn(7, request).expect("sent");
    match worker.next() {
        Event::SpawnFailed { id: 7, failure } => failure,
        other => panic!("it should not have started: {other:?}"),
    }
}

#[test]
fn codes_signals_and_usage_are_reported() {
    let worker = Worker::start();
    let exited = worker.run(1, shell("exit 3"));
    assert_eq!(
        (exited.status, exited.killed_by, exited.oom),
        (ExitStatus::Code(3), KilledBy::None, false)
    );
    assert!(exited.max_rss_kb > 0);
    let exited = worker.run(2, shell("kill -SEGV $$"));
    assert_eq!(
        (exited.status, exited.killed_by),
        (ExitStatus::Signal(11), KilledBy::None)
    );
    let exited = worker.run(
        3,
        shell("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"),
    );
    assert!(exited.user_cpu_ms + exited.system_cpu_ms > 0, "{exited:?}");
    assert!(worker.client.known_tasks().is_empty());
}

#[test]
fn streams_are_those_given() {
    let worker = Worker::start();
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let mut request = shell("cat; echo to stderr >&2");
    request.stdin = Some(reader.into());
    writer.write_all(b"through stdin\n").expect("room");
    drop(writer);
    assert_eq!(worker.output(request), "through stdin\n");
    assert_eq!(
        worker.output(shell("readlink /proc/self/fd/0 /proc/self/fd/2")),
        "/dev/null\n/dev/null\n"
    );
    // Nothing but the streams and what ls opens itself.
    assert_eq!(worker.output(shell("ls /proc/self/fd")), "0\n1\n2\n3\n");
}

#[test]
fn the_environment_is_exact() {
    let worker = Worker::start();
    let mut request = SpawnRequest::new(["env", "-0"]);
    let value = "y".repeat(100 * 1024);
    request.env = vec![
        ("A".into(), "x=1\n2".into()),
        ("PATH".into(), "/usr/bin".into()),
        ("B".into(), (&value).into()),
    ];
    request.cwd = "/tmp".into();
    assert_eq!(
        worker.output(request),
        format!("A=x=1\n2\0PATH=/usr/bin\0B={value}\0")
    );
    let mut request = SpawnRequest::new(["/bin/pwd"]);
    request.cwd = "/usr".into();
    assert_eq!(worker.output(request), "/usr\n");
}

#[test]
fn a_mebibyte_of_arguments_passes() {
    let worker = Worker::start();
    let mut request = shell("echo $#");
    request
        .argv
        .extend(std::iter::repeat_n("z".repeat(1023).into(), 1024));
    assert_eq!(worker.output(request), "1023\n");
}

#[test]
fn signals_privileges_and_standing_are_as_in_a_fresh_login() {
    let worker = Worker::start();
    let status = worker.output(shell("cat /proc/self/status; cat /proc/self/oom_score_adj"));
    for line in [
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(line), "{line} in {status}");
    }
    assert!(status.ends_with("\n500\n"), "{status}");
    // pid, process group and session are one.
    let ids = worker.output(SpawnRequest::new([
        "cut",
        "-d ",
        "-f1,5,6",
        "/proc/self/stat",
    ]));
    let ids: Vec<&str> = ids.split_whitespace().collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
}

#[test]
fn limits_hold() {
    let worker = Worker::start();
    let mut request = shell("ulimit -n; ulimit -c; ulimit -t; ulimit -f");
    let limits = Limits {
        open_files: Some(77),
        cpu_seconds: Some(9),
        file_size_bytes: Some(1 << 20),
        ..Limits::default()
    };
    request.limits = limits;
    assert_eq!(worker.output(request), "77\n0\n9\n2048\n");
    let mut busy = shell("while :; do :; done");
    busy.limits.cpu_seconds = Some(1);
    assert_eq!(
        worker.run(2, busy).status,
        ExitStatus::Signal(24),
        "SIGXCPU"
    );
}

#[test]
fn a_program_that_cannot_start_is_named_with_the_reason() {
    let worker = Worker::start();
    let folder = tempfile::tempdir().expect("a folder");
    let missing = failure(&worker, SpawnRequest::new(["no-such-program"]));
    assert_eq!(
        (missing.kind, missing.errno),
        (SpawnFailureKind::NotFound, 2)
    );
    assert!(
        missing
            .to_string()
            .starts_with("\"no-such-program\" was not found"),
        "{missing}"
    );

    let script = folder.path().join("plain");
    fs::write(&script, "echo").expect("written");
    assert_eq!(
        failure(&worker, SpawnRequest::new([&script])).kind,
        SpawnFailureKind::NotExecutable
    );
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("mode");
    let no_format = failure(&worker, SpawnRequest::new([&script]));
    assert_eq!(
        (no_format.kind, no_format.errno),
        (SpawnFailureKind::NotExecutable, 8)
    );

    let mut request = shell("true");
    request.cwd = folder.path().join("none");
    let cwd = failure(&worker, request);
    assert_eq!(cwd.kind, SpawnFailureKind::BadCwd);
    assert!(cwd.to_string().contains("none"), "{cwd}");

    let mut request = shell("true");
    request.env.push(("BIG".into(), "x".repeat(100_000).into()));
    request
        .env
        .extend((0..28).map(|index| (format!("BIG{index}").into(), "x".repeat(100_000).into())));
    let big = failure(&worker, request);
    assert_eq!(big.kind, SpawnFailureKind::TooBig, "{big}");
    // It still works.
    assert_eq!(worker.run(1, shell("true")).status, ExitStatus::Code(0));
}

#[test]
fn another_user_is_taken_on_whole_or_refused() {
    let worker = Worker::start();
    let user = User {
        uid: 4242,
        gid: 4343,
        groups: vec![4444],
    };
    let mut request = shell("id -u; id -g; id -G");
    request.user = Some(user.clone());
    let me = worker.output(shell("id -u"));
    if me.trim() == "0" {
        assert_eq!(worker.output(request), "4242\n4343\n4343 4444\n");
    } else {
        assert_eq!(failure(&worker, request).kind, SpawnFailureKind::BadUser);
    }
}

#[test]
fn an_id_in_use_is_refused_and_free_again_after_the_end() {
    let worker = Worker::start();
    worker
        .client
        .spawn(1, SpawnRequest::new(["sleep", "1000"]))
        .expect("sent");
    let second = worker.client.spawn(1, shell("true"));
    assert!(
        matches!(second, Err(ClientError::DuplicateId(1))),
        "{second:?}"
    );
    let pid = worker.spawned(1);
    assert_eq!(
        worker.client.known_tasks(),
        [gristmill_guardian::KnownTask {
            id: 1,
            pid: Some(pid)
        }]
    );
    worker.client.kill(1).expect("sent");
    let exited = worker.exited(1);
    assert_eq!(
        (exited.status, exited.killed_by),
        (ExitStatus::Signal(9), KilledBy::Kill)
    );
    assert_eq!(worker.run(1, shell("true")).status, ExitStatus::Code(0));
}

#[test]
fn many_at_once_are_all_reported() {
    let worker = Worker::start();
    const COUNT: u64 = 500;
    for id in 0..COUNT {
        worker.client.spawn(id, shell("true")).expect("sent");
    }
    let mut spawned = vec![false; COUNT as usize];
    let mut exited = spawned.clone();
    while !exited.iter().all(|seen| *seen) {
        match worker.next() {
            Event::Spawned { id, .. } => {
                assert!(!std::mem::replace(&mut spawned[id as usize], true))
            }
            Event::Exited(end) => {
                assert_eq!(end.status, ExitStatus::Code(0));
                assert!(
                    spawned[end.id as usize]
                        && !std::mem::replace(&mut exited[end.id as usize], true)
                );
            }
            other => panic!("{other:?}"),
        }
    }
}
