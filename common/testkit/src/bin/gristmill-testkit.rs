//! `gristmill-testkit servers -- COMMAND [ARG…]`: runs a command with one private server of each kind around it.
//!
//! The command finds them in `GRISTMILL_TEST_DATABASE_URL`, `GRISTMILL_TEST_AMQP_URL`, `GRISTMILL_TEST_AMQP_ADMIN_URL`
//! and `GRISTMILL_TEST_REDIS_URL`. A server that is already named there is not started. Exits with the command's code.

use std::process::{Command, ExitCode, ExitStatus};

use gristmill_testkit::{Postgres, RabbitMq, Recipe, Redis, Result, Server, env};

const USAGE: &str = "usage: gristmill-testkit servers -- COMMAND [ARG...]\n\
    Starts private PostgreSQL, RabbitMQ and Redis servers on loopback, runs COMMAND with\n\
    GRISTMILL_TEST_DATABASE_URL, GRISTMILL_TEST_AMQP_URL, GRISTMILL_TEST_AMQP_ADMIN_URL and\n\
    GRISTMILL_TEST_REDIS_URL naming them, removes them, and exits with COMMAND's code.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["servers", "--", program, ref rest @ ..] => run(program, rest).unwrap_or_else(|e| {
            eprintln!("gristmill-testkit: {e}");
            ExitCode::FAILURE
        }),
        ["--help" | "-h"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(program: &str, args: &[&str]) -> Result<ExitCode> {
    let (postgres, rabbitmq, redis): (Option<Postgres>, Option<RabbitMq>, Option<Redis>) = tokio::try_join!(
        start_unless(env::DATABASE_URL),
        start_unless(env::AMQP_URL),
        start_unless(env::REDIS_URL),
    )?;
    let mut command = Command::new(program);
    command.args(args);
    if let Some(server) = &postgres {
        command.env(env::DATABASE_URL, server.url());
    }
    if let Some(server) = &rabbitmq {
        command.env(env::AMQP_URL, server.url());
        command.env(env::AMQP_ADMIN_URL, server.admin_url());
    }
    if let Some(server) = &redis {
        command.env(env::REDIS_URL, server.url());
    }
    // Ctrl-C reaches the command through the terminal's process group; we stay to clean up after it.
    let mut interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .map_err(|source| io_error("watching for Ctrl-C", source))?;
    let mut terminations =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .map_err(|source| io_error("watching for SIGTERM", source))?;
    let mut child = tokio::process::Command::from(command)
        .spawn()
        .map_err(|source| io_error(&format!("starting `{program}`"), source))?;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.map_err(|e| io_error("waiting for the command", e))?,
            _ = interrupts.recv() => {}
            _ = terminations.recv() => if let Some(pid) = child.id() {
                gristmill_testkit::sys::send_signal(pid, libc::SIGTERM)
                    .map_err(|e| io_error("passing SIGTERM on", e))?;
            },
        }
    };
    Ok(exit_code(status))
}

async fn start_unless<R: Recipe>(variable: &str) -> Result<Option<Server<R>>> {
    if std::env::var_os(variable).is_some_and(|v| !v.is_empty()) {
        return Ok(None);
    }
    Server::start().await.map(Some)
}

/// Shell convention: 128 + signal for a command that was killed.
fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn io_error(what: &str, source: std::io::Error) -> gristmill_testkit::TestkitError {
    gristmill_testkit::TestkitError::Io {
        what: what.to_owned(),
        source,
    }
}
