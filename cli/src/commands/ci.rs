//! What CI systems want of a run besides its exit code: folded logs, annotations, a summary, outputs, a JUnit report.
//!
//! | | GitHub Actions | GitLab |
//! | --- | --- | --- |
//! | an attempt's log | a group | a section |
//! | a failed task | an error annotation with its last lines | – |
//! | the step's summary and outputs | `$GITHUB_STEP_SUMMARY`, `$GITHUB_OUTPUT` | – |
//!
//! The JUnit report is a file, for these and every other.

mod github;
mod junit;
mod markup;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::console::Console;
use super::exit::CommandError;
use super::follow::MOST_INSTANCES;
use super::report::Report;
use crate::client::{Client, Instance, Run};

pub(super) use markup::Markup;

/// Whose syntax is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum System {
    /// The one in whose jobs it runs
    #[default]
    Auto,
    Github,
    Gitlab,
    None,
}

/// What a command that waits for a run's end leaves for a CI system.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CiArgs {
    /// Write the run's task instances to this file as a JUnit report
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Whose syntax to print: groups of log lines, annotations, a summary
    #[arg(long, value_enum, value_name = "SYSTEM", default_value_t)]
    ci: System,
}

/// What CI systems tell by variables of the environment.
#[derive(Debug, Clone, Default)]
pub(super) struct Environment {
    /// `GITHUB_ACTIONS` is `true`.
    pub(super) github: bool,
    /// `GITLAB_CI` is `true`.
    pub(super) gitlab: bool,
    /// `GITHUB_STEP_SUMMARY`: a file for Markdown.
    pub(super) summary: Option<PathBuf>,
    /// `GITHUB_OUTPUT`: a file for `name=value` lines.
    pub(super) outputs: Option<PathBuf>,
}

impl Environment {
    pub(super) fn of_process() -> Self {
        let is_true = |name| std::env::var(name).is_ok_and(|value| value == "true");
        let path = |name| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty());
            value.map(PathBuf::from)
        };
        Self {
            github: is_true("GITHUB_ACTIONS"),
            gitlab: is_true("GITLAB_CI"),
            summary: path("GITHUB_STEP_SUMMARY"),
            outputs: path("GITHUB_OUTPUT"),
        }
    }
}

/// Where a run is reported to.
#[derive(Debug)]
pub(super) struct Ci {
    pub(super) markup: Markup,
    junit: Option<File>,
    summary: Option<PathBuf>,
    outputs: Option<PathBuf>,
}

impl CiArgs {
    /// Something is written at the run's end, so that has to be waited for.
    pub(super) fn reports(&self) -> bool {
        self.junit.is_some()
    }

    /// Opens what will be written: a file that cannot be is told before a run is started for it.
    pub(super) fn open(&self, environment: &Environment) -> Result<Ci, CommandError> {
        let system = match self.ci {
            System::Auto if environment.github => System::Github,
            System::Auto if environment.gitlab => System::Gitlab,
            other => other,
        };
        let create = |path: &PathBuf| {
            File::create(path).map_err(|error| {
                CommandError::Usage(format!("cannot write {}: {error}", path.display()))
            })
        };
        let of_github = |path: &Option<PathBuf>| path.clone().filter(|_| system == System::Github);
        Ok(Ci {
            markup: Markup::of(system),
            junit: self.junit.as_ref().map(create).transpose()?,
            summary: of_github(&environment.summary),
            outputs: of_github(&environment.outputs),
        })
    }
}

impl Ci {
    /// Whether anything of it shows why tasks failed.
    pub(super) fn shows_failures(&self) -> bool {
        self.junit.is_some() || self.markup.is_github()
    }

    /// Tells which run it is at once: what comes after the step may want to cancel it.
    pub(super) fn started(&self, console: &Console, run: &Run) {
        let outputs = [
            ("dag_id", run.dag_id.as_str()),
            ("dag_run_id", run.dag_run_id.as_str()),
        ];
        self.append(console, self.outputs.as_deref(), &github::outputs(&outputs));
    }

    /// Tells how the run ended, or stood when it was left.
    pub(super) async fn ended(
        &mut self,
        client: &Client,
        console: &Console,
        report: &Report,
    ) -> Result<(), CommandError> {
        let seconds = report.run.seconds().unwrap_or_default().to_string();
        let outputs = [("state", report.state()), ("duration", &seconds)];
        self.append(console, self.outputs.as_deref(), &github::outputs(&outputs));
        if self.markup.is_github() {
            for failure in &report.failures {
                console.note(&github::annotation(&report.run, failure));
            }
        }
        if self.summary.is_none() && self.junit.is_none() {
            return Ok(());
        }
        let name = report.run.name();
        let listing = client.instances(&name, &[], MOST_INSTANCES).await?;
        if listing.total > listing.rows.len() {
            console.note(&format!(
                "the summary and the JUnit report have {} of {} task instances",
                listing.rows.len(),
                listing.total
            ));
        }
        let instances = Instance::all_of(listing.rows)?;
        let summary = || github::summary(report, &instances);
        if let Some(path) = &self.summary {
            self.append(console, Some(path), &summary());
        }
        if let Some(file) = &mut self.junit {
            file.write_all(junit::report(report, &instances)?.as_bytes())?;
        }
        Ok(())
    }

    /// Best effort, as far as the run is concerned: what it came to is known without these files.
    fn append(&self, console: &Console, path: Option<&Path>, text: &str) {
        let Some(path) = path else { return };
        let append = || -> io::Result<()> {
            let mut file = OpenOptions::new().append(true).create(true).open(path)?;
            file.write_all(text.as_bytes())
        };
        if let Err(error) = append() {
            console.note(&format!("cannot write {}: {error}", path.display()));
        }
    }
}
