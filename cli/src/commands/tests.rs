//! Commands as users give them, against an API that a mock server plays.

mod ci;
mod mock;
mod read;
mod wait;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use clap::Parser;
use tokio::sync::watch;

use super::ci::Environment;
use super::console::Console;
use super::{Command, Context, Globals, dispatch, exit};

#[derive(Debug, Parser)]
#[command(name = "gristmill")]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What a command printed, to be waited for while it runs.
#[derive(Debug, Clone)]
struct Printed {
    text: Arc<Mutex<String>>,
    changed: watch::Sender<()>,
}

impl Printed {
    fn new() -> Self {
        Self {
            text: Arc::default(),
            changed: watch::Sender::new(()),
        }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    async fn until_it_has(&self, part: &str) {
        let mut changed = self.changed.subscribe();
        let wait = changed.wait_for(|()| self.text().contains(part));
        let waited = tokio::time::timeout(std::time::Duration::from_secs(30), wait).await;
        assert!(waited.is_ok(), "no {part:?} in {:?}", self.text());
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
        self.text.lock().unwrap().push_str(text);
        self.changed.send_replace(());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How a command ended, and what it printed.
#[derive(Debug)]
struct Ran {
    code: u8,
    out: String,
    err: String,
}

/// Runs `gristmill --api-url <url> --token secret <args>`.
async fn gristmill(url: &str, args: &[&str]) -> Ran {
    gristmill_telling(url, args, Printed::new()).await
}

/// As [`gristmill`]; standard error can be watched.
async fn gristmill_telling(url: &str, args: &[&str], err: Printed) -> Ran {
    gristmill_in(url, args, &Environment::default(), err).await
}

/// As [`gristmill`], where a CI system has told of itself.
async fn gristmill_in(url: &str, args: &[&str], environment: &Environment, err: Printed) -> Ran {
    let line = [&["gristmill", "--api-url", url, "--token", "secret"], args].concat();
    let out = Printed::new();
    let code = match Cli::try_parse_from(line) {
        Err(error) => {
            let _ = writeln!(err.clone(), "{error}");
            u8::try_from(error.exit_code()).unwrap()
        }
        Ok(cli) => {
            let console = Console::of(out.clone(), err.clone());
            let context = Context {
                globals: &cli.globals,
                console: &console,
                environment,
            };
            let result = dispatch(cli.command, &context).await;
            if let Some(text) = result.as_ref().err().and_then(|error| error.text()) {
                console.note(&format!("error: {text}"));
            }
            exit::code(&result)
        }
    };
    Ran {
        code,
        out: out.text(),
        err: err.text(),
    }
}

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}
