//! What a run of chaos comes to.

use super::{ChaosArgs, fault::Fault, stage::Stage};
use crate::{
    check::Verdict,
    error::{LoadError, Result},
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Everything that is to be said in the end.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) faults: Vec<Fault>,
    pub(crate) runs: usize,
    pub(crate) took: Duration,
    /// Processes that ended by themselves and were started again.
    pub(crate) exits: usize,
    /// What had not ended when nothing moved any more.
    pub(crate) stuck: Option<String>,
    pub(crate) verdict: Verdict,
    /// Where logs, ledger and database were put, if something is wrong.
    pub(crate) kept: Option<PathBuf>,
}

impl Outcome {
    pub(crate) fn is_good(&self) -> bool {
        self.stuck.is_none() && self.verdict.holds()
    }

    pub(crate) fn text(&self, args: &ChaosArgs) -> String {
        let mut text = format!("{}\n", self.verdict);
        if let Some(stuck) = &self.stuck {
            text += &format!("nothing moved any more, and this had not ended:\n{stuck}");
        }
        text += &format!(
            "{} faults, {} runs, {} processes ended by themselves and were started again, {:.0} s\n",
            self.faults.len(),
            self.runs,
            self.exits,
            self.took.as_secs_f32()
        );
        if let Some(kept) = &self.kept {
            text += &format!("logs, ledger and database are in {}\n", kept.display());
        }
        if !self.is_good() {
            text += &format!("to replay: {}\n", args.replay());
        }
        text
    }

    pub(crate) fn json(&self, args: &ChaosArgs) -> Value {
        let breaches: Vec<String> = self
            .verdict
            .breaches
            .iter()
            .map(ToString::to_string)
            .collect();
        json!({
            "good": self.is_good(),
            "seed": args.seed,
            "replay": args.replay(),
            "faults": self.faults,
            "runs": self.runs,
            "seconds": self.took.as_secs_f32(),
            "exits": self.exits,
            "stuck": self.stuck,
            "breaches": breaches,
            "checked": self.verdict.counted,
            "kept": self.kept,
        })
    }
}

/// Copies logs, ledger, store and database to a folder that stays.
pub(crate) async fn keep(stage: &Stage, folder: &Path, to: &Path) -> Result<()> {
    let servers = stage.servers()?;
    // Only a database that was stopped can be copied.
    servers.postgres()?.stop().await?;
    let sources = [
        Some(folder),
        stage.deployment.folder(),
        Some(servers.postgres()?.folder()),
        Some(servers.redis()?.folder()),
    ];
    std::fs::create_dir_all(to).map_err(LoadError::Folder)?;
    for source in sources.into_iter().flatten() {
        let status = Command::new("cp").arg("-a").arg(source).arg(to).status();
        status.map_err(LoadError::Folder)?;
    }
    Ok(())
}
