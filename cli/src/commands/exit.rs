//! How a command ends, and the exit code that says so: the only place where codes are chosen.

use std::io;

use crate::client::ClientError;

/// A command that did its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// The run that was waited for failed.
    RunFailed,
    /// The run that was waited for was cancelled.
    Cancelled,
    /// The run goes on; the wait for it was limited.
    WaitTimedOut,
    /// The user went away with Ctrl-C; the run goes on.
    Detached,
}

/// A command that could not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    /// The command line, or a file that it names, is not right.
    #[error("{0}")]
    Usage(String),
    /// As [`CommandError::Usage`], and everything about it has been printed.
    #[error("the input is not right")]
    BadInput,
    /// The command was understood, and cannot be done as things are.
    #[error("{0}")]
    Rejected(String),
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// What the user still has to be told.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::BadInput => None,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            other => Some(other.to_string()),
        }
    }
}

/// The process's exit code.
pub(super) fn code(result: &Result<Outcome, CommandError>) -> u8 {
    match result {
        Ok(Outcome::Done) => 0,
        Ok(Outcome::RunFailed) => 1,
        Ok(Outcome::Cancelled) => 3,
        Ok(Outcome::WaitTimedOut) => 4,
        // As a shell reports a command that SIGINT ended.
        Ok(Outcome::Detached) => 130,
        Err(CommandError::Usage(_) | CommandError::BadInput) => 2,
        Err(CommandError::Rejected(_)) => 7,
        // `gristmill runs list | head`: the reader has what it wanted.
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(CommandError::Output(_)) => 2,
        Err(CommandError::Client(error)) => match error {
            ClientError::Settings(_) => 2,
            ClientError::Auth { .. } => 5,
            ClientError::Unreachable { .. }
            | ClientError::Server { .. }
            | ClientError::Answer { .. }
            | ClientError::Shape { .. } => 6,
            ClientError::Rejected { .. } => 7,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::StatusCode;
    use rstest::rstest;
    use url::Url;

    #[rstest]
    #[case(Ok(Outcome::Done), 0)]
    #[case(Ok(Outcome::RunFailed), 1)]
    #[case(Err(CommandError::Usage("x".into())), 2)]
    #[case(Err(CommandError::BadInput), 2)]
    #[case(Ok(Outcome::Cancelled), 3)]
    #[case(Ok(Outcome::WaitTimedOut), 4)]
    #[case(Err(CommandError::Rejected("x".into())), 7)]
    #[case(Ok(Outcome::Detached), 130)]
    #[case(Err(io::Error::from(io::ErrorKind::BrokenPipe).into()), 0)]
    #[case(Err(io::Error::from(io::ErrorKind::StorageFull).into()), 2)]
    fn every_ending_has_its_code(
        #[case] result: Result<Outcome, CommandError>,
        #[case] expected: u8,
    ) {
        assert_eq!(code(&result), expected);
    }

    #[rstest]
    #[case(400, 7)]
    #[case(401, 5)]
    #[case(403, 5)]
    #[case(404, 7)]
    #[case(409, 7)]
    #[case(413, 7)]
    #[case(422, 7)]
    #[case(429, 6)]
    #[case(500, 6)]
    #[case(503, 6)]
    fn every_status_has_its_code(#[case] status: u16, #[case] expected: u8) {
        let url = Url::parse("http://127.0.0.1").unwrap();
        let error = ClientError::of_status(&url, StatusCode::from_u16(status).unwrap(), "", true);
        assert_eq!(code(&Err(error.into())), expected);
    }
}
