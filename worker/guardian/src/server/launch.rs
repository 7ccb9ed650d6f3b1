//! From a request to a running program: the lookup of the program, and what to say when it does not run.

use crate::event::{SpawnFailure, SpawnFailureKind};
use crate::request::{Limits, SpawnSpec};
use crate::sys::{self, ExecError, ExecPlan, Pid, Stage};
use std::ffi::CString;
use std::os::fd::RawFd;

/// Where programs are looked up for a task without `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";
/// Of 1000: a task dies before the worker does, and before its guardian.
const OOM_SCORE_ADJ: &[u8] = b"500";
/// CPU seconds between SIGXCPU and SIGKILL.
const CPU_GRACE: u64 = 5;

/// Starts the program of the request as a child of this process.
pub(super) fn launch(spec: &SpawnSpec, stdio: [RawFd; 3]) -> Result<Pid, SpawnFailure> {
    let programs = candidates(spec);
    let limits = rlimits(&spec.limits);
    let plan = ExecPlan {
        programs: &programs,
        argv: &spec.argv,
        env: &spec.env,
        cwd: &spec.cwd,
        stdio,
        limits: &limits,
        user: spec
            .user
            .as_ref()
            .map(|user| (user.uid, user.gid, user.groups.as_slice())),
        oom_score_adj: OOM_SCORE_ADJ,
    };
    sys::spawn_exec(&plan).map_err(|error| failure(spec, &error))
}

/// The paths to try in order: one for a program with a slash, else one for each directory of `PATH`.
fn candidates(spec: &SpawnSpec) -> Vec<CString> {
    let program = spec.argv[0].as_bytes();
    if program.contains(&b'/') {
        return vec![spec.argv[0].clone()];
    }
    let path = spec
        .env
        .iter()
        .find_map(|variable| variable.as_bytes().strip_prefix(b"PATH="))
        .unwrap_or(DEFAULT_PATH);
    let in_directory = |directory: &[u8]| match directory {
        // As in every shell: an empty entry is the working directory.
        b"" => [b"./", program].concat(),
        _ => [directory, b"/", program].concat(),
    };
    path.split(|byte| *byte == b':')
        .filter_map(|directory| CString::new(in_directory(directory)).ok())
        .collect()
}

fn rlimits(limits: &Limits) -> Vec<(u32, u64, u64)> {
    let mut list = vec![(libc::RLIMIT_CORE, 0, 0)];
    if let Some(seconds) = limits.cpu_seconds {
        list.push((libc::RLIMIT_CPU, seconds, seconds.saturating_add(CPU_GRACE)));
    }
    if let Some(files) = limits.open_files {
        list.push((libc::RLIMIT_NOFILE, files, files));
    }
    if let Some(bytes) = limits.file_size_bytes {
        list.push((libc::RLIMIT_FSIZE, bytes, bytes));
    }
    list
}

fn failure(spec: &SpawnSpec, error: &ExecError) -> SpawnFailure {
    let errno = error.error.raw_os_error().unwrap_or(0);
    let kind = match (error.stage, errno) {
        (_, libc::ENOMEM | libc::EAGAIN | libc::ENFILE | libc::EMFILE) => {
            SpawnFailureKind::NoResources
        }
        (Stage::Exec, libc::ENOENT | libc::ENOTDIR) => SpawnFailureKind::NotFound,
        (Stage::Exec, libc::EACCES | libc::ENOEXEC | libc::EPERM | libc::EISDIR) => {
            SpawnFailureKind::NotExecutable
        }
        (Stage::Exec, libc::E2BIG) => SpawnFailureKind::TooBig,
        (Stage::Cwd, _) => SpawnFailureKind::BadCwd,
        (Stage::User, _) => SpawnFailureKind::BadUser,
        (Stage::Limits, _) => SpawnFailureKind::BadLimit,
        (Stage::Process | Stage::Streams | Stage::Exec, _) => SpawnFailureKind::Other,
    };
    let detail = match (kind, &spec.user) {
        (SpawnFailureKind::BadCwd, _) => format!("{:?}", spec.cwd),
        (SpawnFailureKind::BadUser, Some(user)) => format!("uid {} and gid {}", user.uid, user.gid),
        (SpawnFailureKind::BadLimit, _) => format!("{:?}", spec.limits),
        (SpawnFailureKind::Other, _) => format!("{:?} (step: {:?})", spec.argv[0], error.stage),
        _ => format!("{:?}", spec.argv[0]),
    };
    SpawnFailure {
        kind,
        errno,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::SpawnRequest;

    #[test]
    fn a_bare_name_is_looked_up_in_the_path_of_the_task() {
        let of = |program: &str, path: Option<&str>| {
            let mut request = SpawnRequest::new([program]);
            request
                .env
                .extend(path.map(|path| ("PATH".into(), path.into())));
            let list = candidates(&SpawnSpec::check(&request).expect("valid"));
            list.into_iter()
                .map(|path| path.into_string().expect("UTF-8"))
                .collect::<Vec<_>>()
        };
        assert_eq!(of("x", Some("/a::/b")), ["/a/x", "./x", "/b/x"]);
        assert_eq!(of("./x", Some("/a")), ["./x"]);
        assert_eq!(of("x", None), ["/usr/local/bin/x", "/usr/bin/x", "/bin/x"]);
    }
}
