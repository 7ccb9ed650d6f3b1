//! What the guardian tells the worker.

use crate::client::KnownTask;
use crate::wire::{Reader, WireError, Writer};
use std::fmt;
use std::io;

/// Something that happened; the order is that of happening, per task `Spawned`, then `Exited`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The program runs. `pid` is also its process group and session.
    Spawned { id: u64, pid: u32 },
    /// The program could not be started; nothing of it is left.
    SpawnFailed { id: u64, failure: SpawnFailure },
    /// The task has ended: every process of its tree is dead and reaped.
    Exited(Exited),
    /// The lease deadline passed and `tasks` trees are being killed; each still gets its `Exited`. Tasks are refused until
    /// the deadline is moved into the future.
    DeadlinePassed {
        deadline_boottime_ns: u64,
        tasks: u32,
    },
    /// The guardian has killed everything and exited, as it was asked to. The last event.
    ShutDown,
    /// The guardian died. Its shims kill their trees; the worker should kill what is `known` by its group and exit.
    /// The last event.
    GuardianDied { known: Vec<KnownTask>, how: String },
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exited {
    pub id: u64,
    /// Of the main process.
    pub status: ExitStatus,
    /// The first reason for which the guardian began to end the task, whatever status it then had.
    pub killed_by: KilledBy,
    /// The main process was killed by SIGKILL from outside while the kernel's out-of-memory killer was at work.
    pub oom: bool,
    /// Set exactly when `killed_by` is `Memory`.
    pub memory_limit_hit: Option<MemoryHit>,
    /// Processes that were still alive when the main one had ended by itself, and were killed.
    pub leftovers: u32,
    /// Of the largest single process, as getrusage counts.
    pub max_rss_kb: u64,
    /// Of all processes that were waited for.
    pub user_cpu_ms: u64,
    pub system_cpu_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
    /// Lost, because the shim of the task was killed.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KilledBy {
    /// It ended by itself or by a signal of somebody else.
    None,
    Terminate,
    Kill,
    /// The lease deadline passed.
    Deadline,
    /// The tree was above its memory limit.
    Memory,
    /// The guardian was shut down (or lost its worker, which nobody is left to hear of).
    Shutdown,
    /// Somebody killed the task's shim, so the guardian killed the task.
    ShimLost,
}

/// The measurement for which a task was killed; displayed as `used 513 MiB of limit 512 MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryHit {
    pub used_bytes: u64,
    pub limit_bytes: u64,
}

impl fmt::Display for MemoryHit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1024 * 1024;
        write!(
            f,
            "used {} MiB of limit {} MiB",
            self.used_bytes.div_ceil(MIB),
            self.limit_bytes / MIB
        )
    }
}

/// Why a program could not be started; displayed as a full sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnFailure {
    pub kind: SpawnFailureKind,
    /// Of the system call that failed; 0 if none did.
    pub errno: i32,
    /// What was tried, such as the program or directory by name.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpawnFailureKind {
    /// No such program (or its interpreter, the `#!` line, is missing).
    NotFound,
    /// The program exists and may not be executed, or has no format that Linux knows.
    NotExecutable,
    BadCwd,
    /// The guardian may not become that user.
    BadUser,
    BadLimit,
    /// Arguments and environment are above what Linux takes.
    TooBig,
    /// No memory, process or descriptor is left.
    NoResources,
    /// The lease deadline has passed.
    DeadlinePassed,
    ShuttingDown,
    /// It was killed (by whomever) before it ran.
    Killed,
    Other,
}

impl fmt::Display for SpawnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = &self.detail;
        match self.kind {
            SpawnFailureKind::NotFound => {
                write!(
                    f,
                    "{detail} was not found (or the interpreter that its #! line names)"
                )?;
            }
            SpawnFailureKind::NotExecutable => {
                write!(
                    f,
                    "{detail} cannot be executed; it needs the x bit and a #! line or a binary format"
                )?;
            }
            SpawnFailureKind::BadCwd => {
                write!(f, "the working directory {detail} cannot be entered")?
            }
            SpawnFailureKind::BadUser => write!(
                f,
                "the task cannot run as {detail}; the worker must be root for it"
            )?,
            SpawnFailureKind::BadLimit => write!(f, "the limits cannot be set ({detail})")?,
            SpawnFailureKind::TooBig => {
                write!(
                    f,
                    "arguments and environment of {detail} are too large; use stdin or a file"
                )?;
            }
            SpawnFailureKind::NoResources => {
                write!(
                    f,
                    "the host has no process or memory left to start {detail}"
                )?;
            }
            SpawnFailureKind::DeadlinePassed => {
                write!(f, "the lease deadline of the worker has passed")?
            }
            SpawnFailureKind::ShuttingDown => write!(f, "the guardian is shutting down")?,
            SpawnFailureKind::Killed => write!(f, "it was killed before it ran ({detail})")?,
            SpawnFailureKind::Other => write!(f, "{detail} could not be started")?,
        }
        if self.errno == 0 {
            Ok(())
        } else {
            write!(f, ": {}", io::Error::from_raw_os_error(self.errno))
        }
    }
}

/// The variants of the two enums in the order of their numbers on the wire.
const FAILURES: [SpawnFailureKind; 11] = [
    SpawnFailureKind::NotFound,
    SpawnFailureKind::NotExecutable,
    SpawnFailureKind::BadCwd,
    SpawnFailureKind::BadUser,
    SpawnFailureKind::BadLimit,
    SpawnFailureKind::TooBig,
    SpawnFailureKind::NoResources,
    SpawnFailureKind::DeadlinePassed,
    SpawnFailureKind::ShuttingDown,
    SpawnFailureKind::Killed,
    SpawnFailureKind::Other,
];
const REASONS: [KilledBy; 7] = [
    KilledBy::None,
    KilledBy::Terminate,
    KilledBy::Kill,
    KilledBy::Deadline,
    KilledBy::Memory,
    KilledBy::Shutdown,
    KilledBy::ShimLost,
];

impl KilledBy {
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        REASONS.get(usize::from(number)).copied()
    }
}

/// What travels to the worker, and from a shim to the guardian: events, and the guardian's sign that it is ready.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Report {
    Ready,
    Spawned {
        id: u64,
        pid: u32,
    },
    SpawnFailed {
        id: u64,
        failure: SpawnFailure,
    },
    Exited(Exited),
    DeadlinePassed {
        deadline_boottime_ns: u64,
        tasks: u32,
    },
}

/// Longest text in a report, so that each fits into one atomic write to a pipe (4096 bytes).
const MAX_DETAIL: usize = 2048;

impl Report {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Report::Ready => Writer::new(1).finish(),
            Report::Spawned { id, pid } => Writer::new(2).u64(*id).u32(*pid).finish(),
            Report::SpawnFailed { id, failure } => {
                let detail = &failure.detail[..failure.detail.floor_char_boundary(MAX_DETAIL)];
                Writer::new(3)
                    .u64(*id)
                    .u8(failure.kind as u8)
                    .u32(failure.errno as u32)
                    .bytes(detail.as_bytes())
                    .finish()
            }
            Report::Exited(exited) => {
                let (kind, value) = match exited.status {
                    ExitStatus::Code(code) => (0, code),
                    ExitStatus::Signal(signal) => (1, signal),
                    ExitStatus::Unknown => (2, 0),
                };
                Writer::new(4)
                    .u64(exited.id)
                    .u8(kind)
                    .u32(value as u32)
                    .u8(exited.killed_by.number())
                    .u8(u8::from(exited.oom))
                    .optional(exited.memory_limit_hit.map(|hit| hit.used_bytes))
                    .u64(exited.memory_limit_hit.map_or(0, |hit| hit.limit_bytes))
                    .u32(exited.leftovers)
                    .u64(exited.max_rss_kb)
                    .u64(exited.user_cpu_ms)
                    .u64(exited.system_cpu_ms)
                    .finish()
            }
            Report::DeadlinePassed {
                deadline_boottime_ns,
                tasks,
            } => Writer::new(5)
                .u64(*deadline_boottime_ns)
                .u32(*tasks)
                .finish(),
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match reader.u8()? {
            1 => Report::Ready,
            2 => Report::Spawned {
                id: reader.u64()?,
                pid: reader.u32()?,
            },
            3 => {
                let id = reader.u64()?;
                let kind = reader.u8()?;
                let unknown = WireError::Unknown {
                    what: "spawn failure",
                    value: kind,
                };
                let kind = *FAILURES.get(usize::from(kind)).ok_or(unknown)?;
                let failure = SpawnFailure {
                    kind,
                    errno: reader.u32()? as i32,
                    detail: reader.text()?,
                };
                Report::SpawnFailed { id, failure }
            }
            4 => Report::Exited(decode_exited(reader)?),
            5 => Report::DeadlinePassed {
                deadline_boottime_ns: reader.u64()?,
                tasks: reader.u32()?,
            },
            value => {
                return Err(WireError::Unknown {
                    what: "report",
                    value,
                });
            }
        })
    }
}

fn decode_exited(reader: &mut Reader<'_>) -> Result<Exited, WireError> {
    let id = reader.u64()?;
    let status = match (reader.u8()?, reader.u32()? as i32) {
        (0, code) => ExitStatus::Code(code),
        (1, signal) => ExitStatus::Signal(signal),
        (2, _) => ExitStatus::Unknown,
        (value, _) => {
            return Err(WireError::Unknown {
                what: "exit status",
                value,
            });
        }
    };
    let reason = reader.u8()?;
    Ok(Exited {
        id,
        status,
        killed_by: KilledBy::from_number(reason).ok_or(WireError::Unknown {
            what: "reason of a kill",
            value: reason,
        })?,
        oom: reader.u8()? != 0,
        memory_limit_hit: match (reader.optional()?, reader.u64()?) {
            (Some(used_bytes), limit_bytes) => Some(MemoryHit {
                used_bytes,
                limit_bytes,
            }),
            (None, _) => None,
        },
        leftovers: reader.u32()?,
        max_rss_kb: reader.u64()?,
        user_cpu_ms: reader.u64()?,
        system_cpu_ms: reader.u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(report: Report) {
        let bytes = report.encode();
        assert!(bytes.len() <= 4096, "one atomic pipe write");
        assert_eq!(
            Report::decode(&mut Reader(&bytes[4..])).expect("decodes"),
            report
        );
    }

    #[test]
    fn reports_survive_the_wire() {
        for killed_by in REASONS {
            for status in [
                ExitStatus::Code(-1),
                ExitStatus::Signal(9),
                ExitStatus::Unknown,
            ] {
                let memory_limit_hit = Some(MemoryHit {
                    used_bytes: 3 << 20,
                    limit_bytes: 2 << 20,
                });
                round_trip(Report::Exited(Exited {
                    id: 5,
                    status,
                    killed_by,
                    oom: true,
                    memory_limit_hit,
                    leftovers: 1,
                    max_rss_kb: 2,
                    user_cpu_ms: 3,
                    system_cpu_ms: 4,
                }));
            }
        }
        for kind in FAILURES {
            round_trip(Report::SpawnFailed {
                id: 9,
                failure: SpawnFailure {
                    kind,
                    errno: 2,
                    detail: "é".into(),
                },
            });
        }
        round_trip(Report::Ready);
        round_trip(Report::Spawned { id: 1, pid: 2 });
        round_trip(Report::DeadlinePassed {
            deadline_boottime_ns: 1,
            tasks: 2,
        });
    }

    #[test]
    fn a_long_detail_is_cut_to_what_one_write_holds() {
        let failure = SpawnFailure {
            kind: SpawnFailureKind::NotFound,
            errno: 2,
            detail: "é".repeat(9000),
        };
        let bytes = Report::SpawnFailed { id: 9, failure }.encode();
        assert!(bytes.len() < 4096);
        assert!(Report::decode(&mut Reader(&bytes[4..])).is_ok());
    }

    #[test]
    fn failures_and_hits_read_as_sentences() {
        let failure = SpawnFailure {
            kind: SpawnFailureKind::BadCwd,
            errno: 2,
            detail: "\"/nope\"".into(),
        };
        let text = "the working directory \"/nope\" cannot be entered: No such file or directory (os error 2)";
        assert_eq!(failure.to_string(), text);
        let hit = MemoryHit {
            used_bytes: (513 << 20) - 5,
            limit_bytes: 512 << 20,
        };
        assert_eq!(hit.to_string(), "used 513 MiB of limit 512 MiB");
    }
}
