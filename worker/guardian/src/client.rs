//! The worker's side: starts the guardian, sends requests, and turns its reports into events.

use crate::event::{Event, Report};
use crate::request::{Request, RequestError, SpawnRequest, SpawnSpec};
use crate::sys;
use crate::wire::FrameBuffer;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the guardian may take to read a request: it does nothing slow, so beyond this it is stopped or starved.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to start, on a host that is busy starting everything else.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How to start the guardian.
#[derive(Debug)]
pub struct GuardianConfig {
    /// The program whose `args` lead to [`run_guardian`](crate::run_guardian).
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Stays open in the guardian and its shims, and in no task, until the last of them is gone. With a `flock` on it,
    /// the next start can wait until everything of this one is dead.
    pub hold_fd: Option<OwnedFd>,
}

impl Default for GuardianConfig {
    /// The running executable itself, also if its file was replaced meanwhile, with the argument `guardian`.
    fn default() -> Self {
        GuardianConfig {
            program: "/proc/self/exe".into(),
            args: vec!["guardian".into()],
            hold_fd: None,
        }
    }
}

/// Why the guardian could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the socket to the guardian cannot be made: {0}")]
    Socket(io::Error),
    #[error("the guardian cannot be started from {}: {source}", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("the guardian did not get ready ({how}); its message is on the worker's stderr")]
    NotReady { how: String },
}

/// Why a request could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("task {0} is already known to the guardian and has not ended")]
    DuplicateId(u64),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("the guardian is gone")]
    Gone,
    #[error("the guardian has not read a request for {} s (is it stopped?); give the worker up", SEND_TIMEOUT.as_secs())]
    Stalled,
}

/// A task that was asked for and has not been reported as ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownTask {
    pub id: u64,
    /// Of its main process, which is also its process group; `None` until it runs.
    pub pid: Option<u32>,
}

/// The worker's handle of its guardian. Clones are the same handle; when the last is dropped the guardian kills
/// everything and exits.
#[derive(Debug, Clone)]
pub struct GuardianClient(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    pid: u32,
    /// Locked for one whole message at a time. `None` after a message went in part, when the stream makes no sense any more.
    socket: Mutex<Option<UnixStream>>,
    shared: Arc<Shared>,
}

/// What the reader thread has too; it must not keep the handle alive.
#[derive(Debug, Default)]
struct Shared {
    known: Mutex<HashMap<u64, Option<u32>>>,
    /// The guardian's end was asked for.
    closing: AtomicBool,
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, HashMap<u64, Option<u32>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self) -> Vec<KnownTask> {
        self.known()
            .iter()
            .map(|(id, pid)| KnownTask { id: *id, pid: *pid })
            .collect()
    }
}

impl GuardianClient {
    /// Starts the guardian and waits until it is ready (some milliseconds); then one thread calls `on_event` for each
    /// event, in order. The last event is [`Event::ShutDown`] or [`Event::GuardianDied`].
    ///
    /// `on_event` must not wait long: meanwhile endings pile up in the guardian. Sending into an unbounded channel is meant.
    pub fn start(
        config: GuardianConfig,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, StartError> {
        let (ours, theirs) = UnixStream::pair().map_err(StartError::Socket)?;
        ours.set_write_timeout(Some(SEND_TIMEOUT))
            .map_err(StartError::Socket)?;
        ours.set_read_timeout(Some(START_TIMEOUT))
            .map_err(StartError::Socket)?;
        let mut child = Command::new(&config.program)
            .arg0("gristmill")
            .args(&config.args)
            // Tasks run as the same user, who may read the environment of a process: it gets none of the worker's secrets.
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(config.hold_fd.map_or_else(Stdio::null, Stdio::from))
            .spawn()
            .map_err(|source| StartError::Spawn {
                program: config.program,
                source,
            })?;
        let reader = match ours.try_clone().and_then(ReportReader::ready) {
            Ok(reader) => reader,
            Err(error) => {
                return Err(StartError::NotReady {
                    how: give_up(&mut child, &error),
                });
            }
        };
        let shared = Arc::new(Shared::default());
        let handle = Handle {
            pid: child.id(),
            socket: Mutex::new(Some(ours)),
            shared: shared.clone(),
        };
        std::thread::Builder::new()
            .name("guardian-reader".to_owned())
            .spawn(move || read_events(reader, child, &shared, on_event))
            .map_err(StartError::Socket)?;
        Ok(GuardianClient(Arc::new(handle)))
    }

    /// The guardian's process id.
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// Asks for a task under an id of the worker's choice; one [`Event::Spawned`] or [`Event::SpawnFailed`] answers. The
    /// request's descriptors are closed here, whatever comes of it. An id may be used again after its ending was reported.
    pub fn spawn(&self, id: u64, request: SpawnRequest) -> Result<(), ClientError> {
        let spec = SpawnSpec::check(&request)?;
        let streams = [&request.stdin, &request.stdout, &request.stderr];
        let fds: Vec<BorrowedFd<'_>> = streams
            .iter()
            .filter_map(|fd| fd.as_ref())
            .map(|fd| fd.as_fd())
            .collect();
        let bytes = Request::Spawn {
            id,
            spec,
            streams: streams.map(|fd| fd.is_some()),
        }
        .encode();
        {
            let mut known = self.0.shared.known();
            if known.contains_key(&id) {
                return Err(ClientError::DuplicateId(id));
            }
            known.insert(id, None);
        }
        self.send(&bytes, &fds).inspect_err(|_| {
            self.0.shared.known().remove(&id);
        })
    }

    /// SIGTERM to the task's process group, and SIGKILL to its whole tree after `grace`. No effect on an unknown id.
    pub fn terminate(&self, id: u64, grace: Duration) -> Result<(), ClientError> {
        let grace_ms = u32::try_from(grace.as_millis())
            .unwrap_or(u32::MAX)
            .min(i32::MAX as u32);
        self.send(&Request::Terminate { id, grace_ms }.encode(), &[])
    }

    /// SIGKILL to the task's whole tree. No effect on an unknown id.
    pub fn kill(&self, id: u64) -> Result<(), ClientError> {
        self.send(&Request::Kill { id }.encode(), &[])
    }

    /// Moves the lease deadline (`CLOCK_BOOTTIME`, see [`boottime_now_ns`](crate::boottime_now_ns)) forward; an earlier one
    /// than the present is ignored. Until the first call there is none.
    pub fn set_deadline(&self, boottime_ns: u64) -> Result<(), ClientError> {
        self.send(&Request::Deadline { boottime_ns }.encode(), &[])
    }

    /// Kills everything; each ending is still reported, then [`Event::ShutDown`].
    pub fn shutdown(&self) -> Result<(), ClientError> {
        self.0.shared.closing.store(true, Ordering::SeqCst);
        self.send(&Request::Shutdown.encode(), &[])
    }

    /// The tasks that were asked for and are not reported as ended.
    pub fn known_tasks(&self) -> Vec<KnownTask> {
        self.0.shared.list()
    }

    /// After [`Event::GuardianDied`]: SIGKILL to the process group of each known task, in case its shim is dead too.
    /// Returns how many groups still had a process. Not for use while the guardian lives, whose endings it would race.
    pub fn kill_known_groups(&self) -> usize {
        let pids = self.known_tasks().into_iter().filter_map(|task| task.pid);
        pids.filter(|pid| sys::kill_group(*pid as sys::Pid, libc::SIGKILL))
            .count()
    }

    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        let mut slot = self.0.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = slot.as_mut().ok_or(ClientError::Gone)?;
        let sent = send_all(socket, bytes, fds);
        let Err(error) = sent else { return Ok(()) };
        // The message may have gone in part. Without a socket the guardian takes the worker for dead, as it should.
        let _ = socket.shutdown(std::net::Shutdown::Write);
        *slot = None;
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Err(ClientError::Stalled),
            _ => Err(ClientError::Gone),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        // The reader thread has the same socket, so closing this descriptor alone would tell the guardian nothing.
        let slot = self
            .socket
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = slot {
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
    }
}

fn send_all(socket: &mut UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let sent = loop {
        match sys::send_with_fds(socket.as_fd(), bytes, fds) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    socket.write_all(&bytes[sent..])
}

/// Ends a guardian that did not get ready, and says what it looked like.
fn give_up(child: &mut Child, error: &io::Error) -> String {
    let _ = child.kill();
    match child.wait() {
        Ok(status) => format!("{error}; it ended with {status}"),
        Err(wait) => format!("{error}; waiting for it failed: {wait}"),
    }
}

/// Cuts the guardian's stream into reports.
struct ReportReader {
    socket: UnixStream,
    frames: FrameBuffer,
    chunk: Box<[u8]>,
}

impl ReportReader {
    /// Waits for the report that the guardian is ready.
    fn ready(socket: UnixStream) -> io::Result<Self> {
        let chunk = vec![0; 64 * 1024].into_boxed_slice();
        let mut reader = ReportReader {
            socket,
            frames: FrameBuffer::default(),
            chunk,
        };
        match reader.next()? {
            Some(Report::Ready) => reader.socket.set_read_timeout(None).map(|()| reader),
            Some(other) => Err(io::Error::other(format!("it began with {other:?}"))),
            None => Err(io::Error::other("it closed the socket")),
        }
    }

    /// The next report; `None` is the end of the stream.
    fn next(&mut self) -> io::Result<Option<Report>> {
        loop {
            if let Some(report) = self.frames.next(Report::decode).map_err(io::Error::other)? {
                return Ok(Some(report));
            }
            match self.socket.read(&mut self.chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.frames.extend(&self.chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn read_events(
    mut reader: ReportReader,
    mut child: Child,
    shared: &Shared,
    mut on_event: impl FnMut(Event),
) {
    let broken = loop {
        let event = match reader.next() {
            Ok(Some(Report::Ready)) => continue,
            Ok(Some(Report::Spawned { id, pid })) => {
                shared.known().insert(id, Some(pid));
                Event::Spawned { id, pid }
            }
            Ok(Some(Report::SpawnFailed { id, failure })) => {
                shared.known().remove(&id);
                Event::SpawnFailed { id, failure }
            }
            Ok(Some(Report::Exited(exited))) => {
                shared.known().remove(&exited.id);
                Event::Exited(exited)
            }
            Ok(Some(Report::DeadlinePassed {
                deadline_boottime_ns,
                tasks,
            })) => Event::DeadlinePassed {
                deadline_boottime_ns,
                tasks,
            },
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        on_event(event);
    };
    if broken.is_some() {
        // It cannot be understood any more. Its death makes the shims kill everything.
        let _ = child.kill();
    }
    let ended = child.wait();
    let clean = broken.is_none() && ended.as_ref().is_ok_and(ExitStatus::success);
    if clean && shared.closing.load(Ordering::SeqCst) {
        on_event(Event::ShutDown);
        return;
    }
    let how = match (broken, ended) {
        (Some(error), _) => error.to_string(),
        (None, Ok(status)) => status.to_string(),
        (None, Err(error)) => format!("waiting for it failed: {error}"),
    };
    on_event(Event::GuardianDied {
        known: shared.list(),
        how,
    });
}
