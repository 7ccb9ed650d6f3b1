//! A task's process: started through the guardian, its output in the log, ended by exit, timeout or wish.

use crate::{
    held::Wish,
    log::{LogSender, Stream},
    processes::NotStarted,
    run::{Execution, Outcome},
};
use gristmill_common::{message::Ending, span::Span};
use gristmill_guardian::{ExitStatus, Exited, KilledBy, SpawnRequest};
use std::{
    io::{PipeReader, PipeWriter, Write},
    os::fd::OwnedFd,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::unix::pipe::Receiver,
};

/// A longer last line is no XCom; it is cut in the log anyway.
const LONGEST_LINE: usize = 1024 * 1024;

/// What to start, and how to end it.
pub(crate) struct Spec {
    pub(crate) request: SpawnRequest,
    pub(crate) stdin: Option<Vec<u8>>,
    pub(crate) grace: Span,
    /// Bytes of output that the log keeps.
    pub(crate) output_limit: u64,
}

/// How a process ended, and the last line that it printed.
pub(crate) struct Ended {
    pub(crate) exited: Exited,
    pub(crate) pid: u32,
    pub(crate) last_line: Option<String>,
    /// The end of its standard error, for the reason of a failure.
    pub(crate) last_error: Option<String>,
}

impl Ended {
    /// The outcome of an end that is not an exit with a code: `Err`. `Ok` gives the code.
    pub(crate) fn code(&self, timed_out: Option<Span>) -> Result<i32, Outcome> {
        let reason = match (&self.exited.status, self.exited.killed_by) {
            _ if self.exited.memory_limit_hit.is_some() => {
                let hit = self
                    .exited
                    .memory_limit_hit
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                format!("out of memory: {hit}")
            }
            _ if timed_out.is_some() => {
                format!("timed out after {}", timed_out.unwrap_or_default())
            }
            (_, KilledBy::Deadline | KilledBy::ShimLost | KilledBy::Shutdown) => {
                return Err(Outcome {
                    pid: Some(self.pid as i32),
                    reason: Some("its worker lost its lease or its guardian".to_owned()),
                    ..Outcome::default()
                });
            }
            (ExitStatus::Code(code), _) => return Ok(*code),
            (ExitStatus::Signal(signal), _) if self.exited.oom => {
                format!("out of memory: killed by the kernel (signal {signal})")
            }
            (ExitStatus::Signal(signal), _) => {
                format!("killed by signal {signal} ({})", signal_name(*signal))
            }
            (ExitStatus::Unknown, _) => "ended in a way that could not be observed".to_owned(),
        };
        Err(Outcome {
            ending: Some(Ending::Failed),
            pid: Some(self.pid as i32),
            reason: Some(reason),
            ..Outcome::default()
        })
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU: its CPU time is over",
        25 => "SIGXFSZ: its file is too large",
        _ => "see `kill -l`",
    }
}

/// Runs a process to the end of its whole tree. `Err` is the attempt's outcome when it was not its own end.
pub(crate) async fn run(execution: &Execution, spec: Spec) -> Result<Ended, Outcome> {
    let Spec {
        mut request,
        stdin,
        grace,
        output_limit,
    } = spec;
    let (stdout, out) = pipe()?;
    let (stderr, err) = pipe()?;
    request.stdout = Some(OwnedFd::from(out));
    request.stderr = Some(OwnedFd::from(err));
    if let Some(text) = stdin {
        let (reader, writer) = std::io::pipe().map_err(|error| no_pipe(&error))?;
        request.stdin = Some(OwnedFd::from(reader));
        feed(writer, text);
    }
    if !execution.worker.lease.holds() {
        return Err(Outcome::wished(Wish::Interrupt));
    }
    let mut child = execution
        .worker
        .processes
        .spawn(request)
        .await
        .map_err(|why| {
            let worker = &execution.worker;
            match why {
                NotStarted::Failed(reason)
                    if worker.lease.holds() && !worker.processes.guardian_is_dead() =>
                {
                    Outcome::failed(format!("cannot start: {reason}"))
                }
                _ => Outcome::wished(Wish::Interrupt),
            }
        })?;
    let pid = child.pid;
    execution.report_started(Some(pid as i32));
    let budget = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(output_limit));
    let stdout = tokio::spawn(pump(
        stdout,
        Stream::Stdout,
        execution.log.clone(),
        budget.clone(),
    ));
    let stderr = tokio::spawn(pump(stderr, Stream::Stderr, execution.log.clone(), budget));
    let timeout = execution.message.task.execution_timeout;
    let (exited, ended_by) = watch(execution, &mut child, grace, timeout).await;
    let (last_line, last_error) = (
        stdout.await.unwrap_or_default(),
        stderr.await.unwrap_or_default(),
    );
    let Some(exited) = exited else {
        return Err(Outcome::wished(Wish::Interrupt));
    };
    let ended = Ended {
        exited,
        pid,
        last_line,
        last_error,
    };
    match ended_by {
        EndedBy::Itself => Ok(ended),
        EndedBy::Timeout(after) => Err(ended
            .code(Some(after))
            .err()
            .unwrap_or_else(|| Outcome::failed("timed out"))),
        EndedBy::Wish(wish) => Err(Outcome {
            pid: Some(pid as i32),
            ..Outcome::wished(wish)
        }),
    }
}

enum EndedBy {
    Itself,
    Timeout(Span),
    Wish(Wish),
}

async fn watch(
    execution: &Execution,
    child: &mut crate::processes::Child,
    grace: Span,
    timeout: Option<Span>,
) -> (Option<Exited>, EndedBy) {
    let timer = async {
        match timeout {
            Some(after) => {
                tokio::time::sleep(after.duration()).await;
                after
            }
            None => std::future::pending().await,
        }
    };
    let ended_by = tokio::select! {
        exited = child.exited() => return (exited, EndedBy::Itself),
        after = timer => EndedBy::Timeout(after),
        wish = execution.wished() => EndedBy::Wish(wish),
    };
    let note = match &ended_by {
        EndedBy::Timeout(after) => {
            format!("Timed out after {after}: SIGTERM, and SIGKILL after {grace}")
        }
        EndedBy::Wish(Wish::Cancel) => format!("Cancelled: SIGTERM, and SIGKILL after {grace}"),
        _ => format!("Its worker stops: SIGTERM, and SIGKILL after {grace}"),
    };
    execution.log.note(&note).await;
    if child.terminate(grace.duration()).is_err() {
        return (None, ended_by);
    }
    (child.exited().await, ended_by)
}

fn pipe() -> Result<(Receiver, PipeWriter), Outcome> {
    let (reader, writer): (PipeReader, PipeWriter) =
        std::io::pipe().map_err(|error| no_pipe(&error))?;
    let reader = Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(|error| no_pipe(&error))?;
    Ok((reader, writer))
}

fn no_pipe(error: &std::io::Error) -> Outcome {
    Outcome::failed(format!("cannot make a pipe: {error}"))
}

/// Writes the standard input on a thread of its own; a task that does not read it all ends the writing by its exit.
fn feed(mut writer: PipeWriter, text: Vec<u8>) {
    tokio::task::spawn_blocking(move || {
        let _ = writer.write_all(&text);
    });
}

/// Brings output into the log, line by line, as far as the budget goes; answers the last line that is not empty.
async fn pump(
    reader: Receiver,
    stream: Stream,
    log: LogSender,
    budget: std::sync::Arc<std::sync::atomic::AtomicU64>,
) -> Option<String> {
    use std::sync::atomic::Ordering;
    let level = if stream == Stream::Stderr {
        "warning"
    } else {
        "info"
    };
    // A task that prints nothing needs no buffer.
    let _ = reader.readable().await;
    let mut reader = BufReader::new(reader);
    let mut last = None;
    let mut line = Vec::new();
    let mut cut_off = false;
    loop {
        line.clear();
        let read = (&mut reader)
            .take(LONGEST_LINE as u64)
            .read_until(b'\n', &mut line)
            .await;
        match read {
            Ok(0) | Err(_) => return last,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        let left = budget.load(Ordering::Relaxed);
        if left >= line.len() as u64 {
            budget.store(left - line.len() as u64, Ordering::Relaxed);
            log.line(stream, level, text).await;
        } else if !cut_off {
            cut_off = true;
            budget.store(0, Ordering::Relaxed);
            log.error("Output limit reached: what is printed from here on is not kept")
                .await;
        }
        if !text.trim().is_empty() {
            last = Some(text.to_owned());
        }
    }
}
