//! What the worker asks of the guardian.

use crate::user::User;
use crate::wire::{Reader, WireError, Writer};
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Linux's `MAX_ARG_STRLEN`: the longest single argument or `NAME=value`, its final NUL included.
const MAX_STRING: usize = 128 * 1024;
/// All arguments together, and all of the environment together. Linux's own limit depends on the stack limit and is
/// reported as `SpawnFailureKind::TooBig` if it is lower.
const MAX_STRINGS: usize = 3 * 1024 * 1024;

/// A task to start.
#[derive(Debug)]
pub struct SpawnRequest {
    /// The program and its arguments. A program with a `/` is a path, relative to `cwd`; any other is looked up in the
    /// `PATH` of `env` (without one: `/usr/local/bin:/usr/bin:/bin`).
    pub argv: Vec<OsString>,
    /// The exact environment; nothing is inherited. At most 128 KiB per `NAME=value`, 3 MiB in all.
    pub env: Vec<(OsString, OsString)>,
    pub cwd: PathBuf,
    pub limits: Limits,
    /// `None`: the user of the worker.
    pub user: Option<User>,
    /// The standard streams; `None` is `/dev/null`. Give the task blocking ends, as `std::io::pipe` makes them: `O_NONBLOCK`
    /// is shared with every holder of an end, and most programs cannot cope with it.
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

impl SpawnRequest {
    /// A task with these arguments, an empty environment, `/` as directory, no limits, and `/dev/null` as its streams.
    pub fn new(argv: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        SpawnRequest {
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            limits: Limits::default(),
            user: None,
            stdin: None,
            stdout: None,
            stderr: None,
        }
    }
}

/// What a task may use. A limit that the worker itself has and that is stricter stays. Core files are always off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory of the whole process tree, sampled about ten times a second; the tree is killed when above.
    pub memory_bytes: Option<u64>,
    /// CPU seconds of each single process: SIGXCPU then, SIGKILL 5 s later.
    pub cpu_seconds: Option<u64>,
    /// Descriptors of each single process.
    pub open_files: Option<u64>,
    /// Size of any file that is written: SIGXFSZ when above.
    pub file_size_bytes: Option<u64>,
}

/// Why a request cannot be sent as it is.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("the command is empty")]
    NoProgram,
    #[error("{what} contains a NUL byte, which no process can be given")]
    Nul { what: String },
    #[error("the environment variable name {0:?} is empty or contains '='")]
    BadName(OsString),
    #[error(
        "{what} is {bytes} bytes long and Linux takes at most {MAX_STRING}; hand it over by stdin or a file"
    )]
    StringTooLong { what: String, bytes: usize },
    #[error(
        "{what} is {bytes} bytes in all, above the limit of {MAX_STRINGS}; hand it over by stdin or a file"
    )]
    TooLong { what: &'static str, bytes: usize },
}

/// A [`SpawnRequest`] as it travels: checked, in the form that exec takes, without its descriptors.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SpawnSpec {
    pub(crate) argv: Vec<CString>,
    /// `NAME=value`.
    pub(crate) env: Vec<CString>,
    pub(crate) cwd: CString,
    pub(crate) limits: Limits,
    pub(crate) user: Option<User>,
}

impl SpawnSpec {
    pub(crate) fn check(request: &SpawnRequest) -> Result<Self, RequestError> {
        if request
            .argv
            .first()
            .is_none_or(|program| program.is_empty())
        {
            return Err(RequestError::NoProgram);
        }
        let argv = request
            .argv
            .iter()
            .enumerate()
            .map(|(index, argument)| {
                c_string(argument.as_bytes(), || {
                    format!("argument {index} of the command")
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let env = request
            .env
            .iter()
            .map(|(name, value)| variable(name, value))
            .collect::<Result<Vec<_>, _>>()?;
        for (what, list) in [("the command", &argv), ("the environment", &env)] {
            let bytes = list
                .iter()
                .map(|string| string.as_bytes_with_nul().len())
                .sum();
            if bytes > MAX_STRINGS {
                return Err(RequestError::TooLong { what, bytes });
            }
        }
        let cwd = c_string(request.cwd.as_os_str().as_bytes(), || {
            "the working directory".to_owned()
        })?;
        Ok(SpawnSpec {
            argv,
            env,
            cwd,
            limits: request.limits.clone(),
            user: request.user.clone(),
        })
    }
}

fn variable(name: &OsStr, value: &OsStr) -> Result<CString, RequestError> {
    if name.is_empty() || name.as_bytes().contains(&b'=') {
        return Err(RequestError::BadName(name.to_owned()));
    }
    let joined = [name.as_bytes(), b"=", value.as_bytes()].concat();
    c_string(&joined, || {
        format!("the environment variable {}", name.display())
    })
}

fn c_string(bytes: &[u8], what: impl Fn() -> String) -> Result<CString, RequestError> {
    if bytes.len() >= MAX_STRING {
        return Err(RequestError::StringTooLong {
            what: what(),
            bytes: bytes.len(),
        });
    }
    CString::new(bytes).map_err(|_| RequestError::Nul { what: what() })
}

/// A request as the guardian takes it from the worker's stream.
pub(crate) enum Incoming {
    /// A start, read no further than is needed to hand it on; `request` is the whole of it.
    Spawn {
        id: u64,
        /// How many descriptors came with it.
        descriptors: usize,
        request: Vec<u8>,
    },
    Other(Request),
}

impl Incoming {
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        if reader.0.first() != Some(&SPAWN) {
            return Request::decode(reader).map(Incoming::Other);
        }
        let request = reader.0.to_vec();
        reader.u8()?;
        Ok(Incoming::Spawn {
            id: reader.u64()?,
            descriptors: reader.u8()?.count_ones() as usize,
            request,
        })
    }
}

const SPAWN: u8 = 1;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// `streams`: which of stdin, stdout and stderr come as descriptors.
    Spawn {
        id: u64,
        spec: SpawnSpec,
        streams: [bool; 3],
    },
    Terminate {
        id: u64,
        grace_ms: u32,
    },
    Kill {
        id: u64,
    },
    Deadline {
        boottime_ns: u64,
    },
    Shutdown,
}

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Request::Spawn { id, spec, streams } => {
                let bits = (0..3)
                    .filter(|index| streams[*index])
                    .fold(0, |bits, index| bits | 1 << index);
                let strings = |writer: Writer, string: &CString| writer.bytes(string.as_bytes());
                let writer = Writer::new(SPAWN)
                    .u64(*id)
                    .u8(bits)
                    .list(&spec.argv, strings)
                    .list(&spec.env, strings)
                    .bytes(spec.cwd.as_bytes())
                    .optional(spec.limits.memory_bytes)
                    .optional(spec.limits.cpu_seconds)
                    .optional(spec.limits.open_files)
                    .optional(spec.limits.file_size_bytes);
                let writer = match &spec.user {
                    None => writer.u8(0),
                    Some(user) => writer
                        .u8(1)
                        .u32(user.uid)
                        .u32(user.gid)
                        .list(&user.groups, |w, g| w.u32(*g)),
                };
                writer.finish()
            }
            Request::Terminate { id, grace_ms } => Writer::new(2).u64(*id).u32(*grace_ms).finish(),
            Request::Kill { id } => Writer::new(3).u64(*id).finish(),
            Request::Deadline { boottime_ns } => Writer::new(4).u64(*boottime_ns).finish(),
            Request::Shutdown => Writer::new(5).finish(),
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match reader.u8()? {
            SPAWN => {
                let id = reader.u64()?;
                let bits = reader.u8()?;
                let spec = SpawnSpec {
                    argv: reader.list(Reader::c_string)?,
                    env: reader.list(Reader::c_string)?,
                    cwd: reader.c_string()?,
                    limits: Limits {
                        memory_bytes: reader.optional()?,
                        cpu_seconds: reader.optional()?,
                        open_files: reader.optional()?,
                        file_size_bytes: reader.optional()?,
                    },
                    user: match reader.u8()? {
                        0 => None,
                        _ => Some(User {
                            uid: reader.u32()?,
                            gid: reader.u32()?,
                            groups: reader.list(Reader::u32)?,
                        }),
                    },
                };
                Request::Spawn {
                    id,
                    spec,
                    streams: [bits & 1 != 0, bits & 2 != 0, bits & 4 != 0],
                }
            }
            2 => Request::Terminate {
                id: reader.u64()?,
                grace_ms: reader.u32()?,
            },
            3 => Request::Kill { id: reader.u64()? },
            4 => Request::Deadline {
                boottime_ns: reader.u64()?,
            },
            5 => Request::Shutdown,
            value => {
                return Err(WireError::Unknown {
                    what: "request",
                    value,
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spawn_request_arrives_as_it_was_sent() {
        let mut request = SpawnRequest::new(["sh", "-c", ""]);
        request.env = vec![
            ("A".into(), "x=y".into()),
            ("B".into(), OsStr::from_bytes(b"\xff").to_owned()),
        ];
        request.limits = Limits {
            memory_bytes: Some(0),
            open_files: Some(64),
            ..Limits::default()
        };
        request.user = Some(User {
            uid: 7,
            gid: 8,
            groups: vec![9, 10],
        });
        let spec = SpawnSpec::check(&request).expect("valid");
        assert_eq!(spec.env[0].as_bytes(), b"A=x=y");
        let sent = Request::Spawn {
            id: 1 << 40,
            spec,
            streams: [true, false, true],
        };
        let bytes = sent.encode();
        assert_eq!(
            Request::decode(&mut Reader(&bytes[4..])).expect("decodes"),
            sent
        );
    }

    #[test]
    fn what_no_process_can_be_given_is_named() {
        let error = |change: &dyn Fn(&mut SpawnRequest)| {
            let mut request = SpawnRequest::new(["sh"]);
            change(&mut request);
            SpawnSpec::check(&request).expect_err("refused").to_string()
        };
        assert_eq!(error(&|r| r.argv.clear()), "the command is empty");
        assert!(
            error(&|r| r.argv.push("a\0b".into()))
                .starts_with("argument 1 of the command contains a NUL")
        );
        assert!(error(&|r| r.env.push(("A=B".into(), "".into()))).contains("\"A=B\""));
        let long = error(&|r| r.env.push(("ORDERS".into(), "x".repeat(200_000).into())));
        assert!(
            long.contains("ORDERS is 200007 bytes") && long.contains("stdin or a file"),
            "{long}"
        );
        let all = error(&|r| {
            r.argv
                .extend(std::iter::repeat_n(OsString::from("x".repeat(100_000)), 40))
        });
        assert!(all.starts_with("the command is 40000"), "{all}");
    }
}
