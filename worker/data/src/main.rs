//! The command line of the data engine: reads a request, runs a phase, writes its result.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use gristmill_data::error::{Error, ErrorKind, Result};
use gristmill_data::request::{Failure, FailureBody};
use gristmill_data::spec::DataSpec;
use gristmill_data::{commit, log, part, plan};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Runs one step of a data task; started by a worker.
#[derive(Debug, Parser)]
#[command(name = "gristmill-data", disable_version_flag = true)]
struct Cli {
    /// Print the version of the engine.
    #[arg(long)]
    version: bool,
    #[command(subcommand)]
    phase: Option<Phase>,
}

#[derive(Debug, Subcommand)]
enum Phase {
    /// List the sources, check the queries and cut the work into partitions.
    Plan(Files),
    /// Run `map_sql` over one partition.
    Part(Files),
    /// Run `reduce_sql` over all parts and publish or return the result.
    Commit(Files),
}

#[derive(Debug, Args)]
struct Files {
    /// Where the request (JSON) is; `-` for standard input.
    #[arg(long)]
    request: PathBuf,
    /// Where the result (JSON) is written.
    #[arg(long)]
    result: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.version {
        println!("{}", plan::engine());
        return ExitCode::SUCCESS;
    }
    let Some(phase) = cli.phase else {
        eprintln!("no phase given, expected plan, part or commit; see --help");
        return ExitCode::from(ErrorKind::BadRequest.exit_code());
    };
    let (Phase::Plan(files) | Phase::Part(files) | Phase::Commit(files)) = &phase;
    let (answer, code) = match run(&phase, files) {
        Ok(answer) => (answer, 0),
        Err(error) => {
            log::error(&error);
            (failure(&error), error.kind.exit_code())
        }
    };
    if let Err(error) = write_result(&files.result, &answer) {
        log::error(format_args!(
            "cannot write {}: {error}",
            files.result.display()
        ));
        return ExitCode::from(ErrorKind::Io.exit_code());
    }
    ExitCode::from(code)
}

fn run(phase: &Phase, files: &Files) -> Result<Value> {
    let request = read_request(&files.request)?;
    let spec = request
        .get("spec")
        .cloned()
        .ok_or_else(|| Error::request("request: the key \"spec\" is missing"))?;
    // The shape of the request first: a caller's mistake must not look like a user's.
    match phase {
        Phase::Plan(_) => {
            let request = from_value(request)?;
            let spec = DataSpec::parse(spec)?;
            block_on(spec.resources.cpus, plan::run(request, spec))
        }
        Phase::Part(_) => {
            let request = from_value(request)?;
            let spec = DataSpec::parse(spec)?;
            block_on(spec.resources.cpus, part::run(request, spec))
        }
        Phase::Commit(_) => {
            let request = from_value(request)?;
            let spec = DataSpec::parse(spec)?;
            block_on(spec.resources.cpus, commit::run(request, spec))
        }
    }
}

fn block_on<T: serde::Serialize>(
    threads: usize,
    phase: impl Future<Output = Result<T>>,
) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?;
    let answer = runtime.block_on(phase)?;
    serde_json::to_value(answer)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("cannot write the result: {e}")))
}

fn read_request(path: &Path) -> Result<Value> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|e| Error::request(format!("cannot read {}: {e}", path.display())))?;
    serde_json::from_str(&text).map_err(|e| Error::request(format!("request: not JSON: {e}")))
}

fn from_value<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|e| Error::request(format!("request: {e}")))
}

fn failure(error: &Error) -> Value {
    let failure = Failure {
        error: FailureBody {
            kind: error.kind,
            message: error.message.clone(),
        },
    };
    serde_json::to_value(failure).unwrap_or_default()
}

/// Written aside and renamed, so that a reader never sees half a result.
fn write_result(path: &Path, answer: &Value) -> std::io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".tmp");
    std::fs::write(&aside, serde_json::to_vec(answer)?)?;
    std::fs::rename(&aside, path)
}
