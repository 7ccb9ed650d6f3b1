//! How a CI system is told that lines belong together.

use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::System;

/// Syntax around log lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) enum Markup {
    /// None: lines of several tasks come as they come.
    Plain,
    /// Workflow commands; source: docs.github.com, "Workflow commands for GitHub Actions". A task's own lines must not be
    /// taken for such, so commands are switched off around them, until this token comes.
    GitHub { token: String },
    /// Sections; source: docs.gitlab.com, "GitLab CI/CD job logs".
    GitLab,
}

impl Markup {
    pub(super) fn of(system: System) -> Self {
        match system {
            System::Github => Self::GitHub {
                token: Uuid::new_v4().simple().to_string(),
            },
            System::Gitlab => Self::GitLab,
            System::Auto | System::None => Self::Plain,
        }
    }

    pub(in crate::commands) fn is_github(&self) -> bool {
        matches!(self, Self::GitHub { .. })
    }

    /// Lines are shown in groups, one after the other.
    pub(in crate::commands) fn has_groups(&self) -> bool {
        *self != Self::Plain
    }

    /// Opens the group of this number; what is printed next is of a task's own.
    pub(in crate::commands) fn open(&self, number: usize, title: &str) -> String {
        match self {
            Self::Plain => title.to_owned(),
            Self::GitHub { token } => format!("::group::{title}\n::stop-commands::{token}"),
            Self::GitLab => format!(
                "\x1b[0Ksection_start:{}:gristmill_{number}[collapsed=true]\r\x1b[0K{title}",
                unix_now()
            ),
        }
    }

    /// Closes it.
    pub(in crate::commands) fn close(&self, number: usize) -> String {
        match self {
            Self::Plain => String::new(),
            Self::GitHub { token } => format!("::{token}::\n::endgroup::"),
            Self::GitLab => format!(
                "\x1b[0Ksection_end:{}:gristmill_{number}\r\x1b[0K",
                unix_now()
            ),
        }
    }

    /// Text that may have a task's own words in it, outside a group.
    pub(in crate::commands) fn quote(&self, text: &str) -> String {
        match self {
            Self::GitHub { token } => format!("::stop-commands::{token}\n{text}\n::{token}::"),
            Self::Plain | Self::GitLab => text.to_owned(),
        }
    }
}

fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
