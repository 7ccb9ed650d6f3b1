//! Options of `run`.

use crate::{
    deployment::{Layout, ServerChoice},
    error::{LoadError, Result},
    report::Format,
};
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// Puts a steady load on a deployment, a private one or any other, and measures latency, throughput and cost
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// What to run
    #[arg(long, value_enum)]
    pub(super) scenario: RunScenario,
    /// Runs per second, due at fixed times whatever became of the earlier ones
    #[arg(long, default_value_t = 5.0, value_parser = rate)]
    pub(super) rate: f64,
    /// For how long runs are due: 30s, 5m, 1h
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(super) duration: Duration,
    /// Afterwards: how long the last runs may take to end
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub(super) drain: Duration,
    /// Runs that are waited for at one time; while so many have not ended, no other is asked for
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) in_flight: u32,
    /// What tasks do
    #[arg(long, value_enum, default_value_t)]
    pub(super) work: Work,
    /// Mapped tasks of a fan-out
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) width: u32,
    /// Bytes of each run's conf (24 KiB at most) and of the XCom that its first task hands to the others
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60 * 1024 * 1024))]
    pub(super) payload_size: u64,
    /// Share of tasks that fail once and are tried again, from 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub(super) failure_rate: f64,
    /// Which tasks fail: the same seed, the same tasks
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Ended task instances in the database of long-history
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1000..=1_000_000_000))]
    pub(super) history: u64,
    /// API server of the deployment to put under load; without it a private deployment is started
    #[arg(long, env = "GRISTMILL_API_URL")]
    pub(super) url: Option<String>,
    /// Token of a user who may deploy and delete DAGs there; better given by the environment
    #[arg(long, env = "GRISTMILL_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
    /// Start `gristmill standalone` instead of roles on PostgreSQL, RabbitMQ and Redis
    #[arg(long, conflicts_with = "url")]
    pub(super) standalone: bool,
    /// Schedulers of the private deployment
    #[arg(long, default_value_t = 1, value_parser = count())]
    schedulers: u32,
    /// Workers of the private deployment
    #[arg(long, default_value_t = 1, value_parser = count())]
    workers: u32,
    /// API servers of the private deployment; requests go round them
    #[arg(long, default_value_t = 1, value_parser = count())]
    apis: u32,
    /// Slots of each worker of the private deployment
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(super) concurrency: u32,
    /// Leave out what has to be waited for: what idling costs, which is taken off otherwise, and the broker's counts
    #[arg(long)]
    pub(super) quick: bool,
    /// What to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
    /// Also write the figures to this file, for `report` and `compare`
    #[arg(long)]
    pub(super) save: Option<PathBuf>,
}

/// What to put on the deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RunScenario {
    /// Ten tasks, one after the other
    Chain,
    /// Many mapped tasks side by side
    Fanout,
    /// Diamonds of four tasks, fifty at once
    DiamondBurst,
    /// Single tasks, chains, fan-outs and diamonds in turn
    Mixed,
    /// One run of 100,000 mapped tasks against runs of 1,000; without a rate
    #[value(name = "mapped-100k")]
    Mapped100k,
    /// New tasks in a database full of ended ones against an empty one; without a rate
    LongHistory,
}

/// What tasks do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Work {
    /// Start a process
    #[default]
    Shell,
    /// Nothing, on a worker
    Noop,
}

impl RunScenario {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Chain => "chain",
            Self::Fanout => "fanout",
            Self::DiamondBurst => "diamond-burst",
            Self::Mixed => "mixed",
            Self::Mapped100k => "mapped-100k",
            Self::LongHistory => "long-history",
        }
    }

    fn has_rate(self) -> bool {
        !matches!(self, Self::Mapped100k | Self::LongHistory)
    }
}

impl RunArgs {
    /// Refuses what does not go together.
    pub(super) fn check(&self) -> Result<()> {
        if self.work == Work::Noop && self.failure_rate > 0.0 {
            return Err(LoadError::Usage(
                "--failure-rate needs --work shell: a task that does nothing cannot fail",
            ));
        }
        if self.scenario == RunScenario::LongHistory && (self.standalone || self.url.is_some()) {
            return Err(LoadError::Usage(
                "long-history fills a PostgreSQL of its own: leave out --standalone and --url (GRISTMILL_API_URL)",
            ));
        }
        Ok(())
    }

    pub(super) fn layout(&self) -> Layout {
        Layout {
            schedulers: self.schedulers as usize,
            workers: self.workers as usize,
            apis: self.apis as usize,
            concurrency: self.concurrency,
            servers: ServerChoice::NamedOrPrivate,
            proxied: false,
            movable_clocks: false,
            environment: Vec::new(),
        }
    }

    /// What a reader must know to repeat it.
    pub(super) fn settings(&self) -> BTreeMap<String, Value> {
        let mut settings: BTreeMap<String, Value> =
            [("scenario".to_owned(), self.scenario.name().into())].into();
        let mut put = |name: &str, value: Value| settings.insert(name.to_owned(), value);
        if self.scenario.has_rate() {
            put("rate", self.rate.into());
            put(
                "duration",
                format!("{}s", self.duration.as_secs_f64()).into(),
            );
            put("payload-size", self.payload_size.into());
            put("failure-rate", self.failure_rate.into());
            put("seed", self.seed.into());
        }
        if self.scenario == RunScenario::LongHistory {
            put("history", self.history.into());
        }
        if self.url.is_none() {
            put("concurrency", self.concurrency.into());
        }
        if self.url.is_none() && !self.standalone {
            put("schedulers", self.schedulers.into());
            put("workers", self.workers.into());
            put("apis", self.apis.into());
        }
        settings
    }
}

fn count() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=64)
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("give runs per second, from 0.001 to 100000".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("give a share from 0 to 1, such as 0.05".to_owned()),
    }
}

/// `30s`, `5m`, `1h`, `500ms`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => f64::NAN,
    };
    digits
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * factor).ok())
        .filter(|duration| !duration.is_zero() && duration.as_secs() <= 7 * 24 * 3600)
        .ok_or_else(|| "give a duration of at most 168h, such as 30s, 5m or 1h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::duration;
    use std::time::Duration;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("20"), Ok(Duration::from_secs(20)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "s", "5d", "-1s", "0s", "1e300h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
