//! When a DAG's scheduled runs are due. Pure: the caller brings `now`.
//!
//! A schedule is a set of *ticks*: the instants at which a run becomes due (`run_after`). With
//! [`DataInterval::Preceding`] a run covers the interval from the tick before to its own tick and its `logical_date` is
//! the interval's start; with [`DataInterval::None`] everything is the tick itself. A jitter moves the instant at which the
//! run is made, and nothing else.

use crate::spec::{DagSpec, DataInterval, Schedule};
use chrono::{DateTime, Duration, TimeZone, Utc};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

mod cron;

use cron::CronTicks;
pub use cron::{PRESETS, check_cron};

/// One scheduled run, due or to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextRun {
    pub logical_date: DateTime<Utc>,
    pub interval_start: DateTime<Utc>,
    pub interval_end: DateTime<Utc>,
    /// The run is made at this time, not before.
    pub run_after: DateTime<Utc>,
}

/// Why a schedule cannot be followed; the DAG file parser lets none of these pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimetableError {
    #[error("{expression:?} is no cron expression: {problem}")]
    Cron { expression: String, problem: String },
    #[error("a schedule cannot repeat every 0 s")]
    ZeroInterval,
}

/// From one continuous run to the next at least, so that runs that end at once do not come without a pause.
const CONTINUOUS_PAUSE: Duration = Duration::seconds(1);

/// A DAG's schedule, ready to be asked.
#[derive(Debug, Clone)]
pub struct Timetable {
    ticks: Ticks,
    /// A run is made so much after its tick.
    delay: Duration,
    interval: DataInterval,
    /// Of the file: the first run's logical date is not before it.
    start_date: Option<DateTime<Utc>>,
    /// Without a `start_date`: the first tick is after this.
    since: DateTime<Utc>,
    end_date: Option<DateTime<Utc>>,
    catchup: bool,
}

#[derive(Debug, Clone)]
enum Ticks {
    /// One for each expression.
    Cron(Vec<CronTicks>),
    Every {
        step: Duration,
        anchor: DateTime<Utc>,
    },
    Once(DateTime<Utc>),
    /// Whenever the run before has ended.
    Continuous,
}

impl Timetable {
    /// The timetable of a DAG, `None` if it only runs when triggered. `since` is when the DAG was first deployed: without
    /// a `start_date` its first run is due at the first tick after that.
    pub fn of(spec: &DagSpec, since: DateTime<Utc>) -> Result<Option<Self>, TimetableError> {
        let ticks = match &spec.schedule {
            Schedule::Manual => return Ok(None),
            Schedule::Assets(assets) if assets.cron.is_empty() => return Ok(None),
            Schedule::Cron(_) | Schedule::Crons(_) | Schedule::Assets(_) => {
                Ticks::Cron(crons(spec.schedule.crons(), spec.timezone)?)
            }
            Schedule::Continuous => Ticks::Continuous,
            Schedule::Every(span) if span.millis() == 0 => {
                return Err(TimetableError::ZeroInterval);
            }
            // Without a start date the ticks stand on a fixed grid ("every 15m": :00, :15, :30, :45), whenever the DAG
            // was deployed.
            Schedule::Every(span) => Ticks::Every {
                step: span.chrono(),
                anchor: spec.start_date.unwrap_or(DateTime::UNIX_EPOCH),
            },
            Schedule::Once => Ticks::Once(spec.start_date.unwrap_or(since)),
        };
        let interval = if matches!(ticks, Ticks::Once(_)) {
            DataInterval::None
        } else {
            spec.data_interval
        };
        let delay = match (&ticks, spec.jitter) {
            (Ticks::Continuous, _) | (_, None) => Duration::zero(),
            (_, Some(jitter)) => delay(&spec.dag_id, jitter.millis()),
        };
        Ok(Some(Self {
            ticks,
            delay,
            interval,
            start_date: spec.start_date,
            since,
            end_date: spec.end_date,
            catchup: spec.catchup,
        }))
    }

    /// The run after the newest scheduled one, whose `run_after` was `last` (`None`: there was none yet). It may lie in the
    /// future: the caller makes it once `run_after <= now`. With `catchup: false` only the latest of the missed runs is
    /// given. `None`: no run will ever follow.
    ///
    /// Of a continuous schedule: the run that follows now that the one before has ended.
    pub fn next_after(&self, last: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Option<NextRun> {
        let run = match self.ticks {
            Ticks::Continuous => Some(self.continuous(last, now)),
            _ => self.next_tick(last, now).and_then(|tick| self.run_at(tick)),
        };
        run.filter(|run| self.end_date.is_none_or(|end| run.logical_date <= end))
    }

    fn next_tick(&self, last: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut tick = self.first_tick()?;
        if let Some(last) = last {
            tick = tick.max(self.tick_after(last - self.delay)?);
        }
        if !self.catchup
            && let Some(latest) = self.tick_at_or_before(now - self.delay)
        {
            tick = tick.max(latest);
        }
        Some(tick)
    }

    fn continuous(&self, last: Option<DateTime<Utc>>, now: DateTime<Utc>) -> NextRun {
        let start = last.or(self.start_date).unwrap_or(self.since);
        // Never empty: each interval begins where the one before ended, and two of one date would be one run.
        let end = now.max(start + CONTINUOUS_PAUSE);
        let start = match self.interval {
            DataInterval::None => end,
            DataInterval::Preceding => start,
        };
        NextRun {
            logical_date: start,
            interval_start: start,
            interval_end: end,
            run_after: end,
        }
    }

    /// Whether its runs follow from dates, so that runs of the past can be made up for.
    pub fn is_periodic(&self) -> bool {
        matches!(self.ticks, Ticks::Cron(_) | Ticks::Every { .. })
    }

    /// Whether a run is due only when the one before has ended.
    pub fn is_continuous(&self) -> bool {
        matches!(self.ticks, Ticks::Continuous)
    }

    /// The run that follows one that was due at `tick`, whatever `catchup` and `end_date` say.
    pub fn following(&self, tick: DateTime<Utc>) -> Option<NextRun> {
        self.run_at(self.tick_after(tick)?)
    }

    /// The runs whose logical dates lie in `from..=to`, oldest first, whatever `catchup`, `start_date` and `end_date` say:
    /// for backfills.
    pub fn runs_between(
        &self,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> impl Iterator<Item = NextRun> + '_ {
        std::iter::successors(self.first_tick_from(from), |tick| self.tick_after(*tick))
            .map_while(|tick| self.run_at(tick))
            .skip_while(move |run| run.logical_date < from)
            .take_while(move |run| run.logical_date <= to)
    }

    /// The data interval (start, end) of a run triggered by hand at `at`: the last one that was over by then.
    pub fn manual_interval(&self, at: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
        let last = |at| self.tick_at_or_before(at);
        match self.interval {
            DataInterval::None => (at, at),
            DataInterval::Preceding => last(at)
                .and_then(|end| self.tick_before(end).map(|start| (start, end)))
                .unwrap_or((at, at)),
        }
    }

    fn run_at(&self, tick: DateTime<Utc>) -> Option<NextRun> {
        let start = match self.interval {
            DataInterval::None => tick,
            DataInterval::Preceding => self.tick_before(tick)?,
        };
        Some(NextRun {
            logical_date: start,
            interval_start: start,
            interval_end: tick,
            run_after: tick + self.delay,
        })
    }

    fn first_tick(&self) -> Option<DateTime<Utc>> {
        match (&self.ticks, self.start_date) {
            (Ticks::Once(at), _) => Some(*at),
            (_, None) => self.tick_after(self.since),
            (_, Some(start)) => self.first_tick_from(start),
        }
    }

    /// The tick of the first run whose logical date is not before `start`.
    fn first_tick_from(&self, start: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let aligned = self.tick_after(start - Duration::milliseconds(1))?;
        match self.interval {
            DataInterval::None => Some(aligned),
            DataInterval::Preceding => self.tick_after(aligned),
        }
    }

    fn tick_at_or_before(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.tick_before(at + Duration::milliseconds(1))
    }

    fn tick_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.ticks {
            Ticks::Cron(crons) => crons.iter().filter_map(|cron| cron.after(after)).min(),
            Ticks::Every { step, anchor } => grid(*step, *anchor, after, 1),
            Ticks::Once(at) => Some(*at).filter(|at| *at > after),
            Ticks::Continuous => None,
        }
    }

    fn tick_before(&self, before: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.ticks {
            Ticks::Cron(crons) => crons.iter().filter_map(|cron| cron.before(before)).max(),
            // The tick at or before the last representable instant before `before`.
            Ticks::Every { step, anchor } => {
                grid(*step, *anchor, before - Duration::nanoseconds(1), 0)
            }
            Ticks::Once(at) => Some(*at).filter(|at| *at < before),
            Ticks::Continuous => None,
        }
    }
}

fn crons(
    expressions: &[String],
    timezone: chrono_tz::Tz,
) -> Result<Vec<CronTicks>, TimetableError> {
    let ticks = |expression: &String| {
        CronTicks::new(expression, timezone).map_err(|problem| TimetableError::Cron {
            expression: expression.clone(),
            problem,
        })
    };
    expressions.iter().map(ticks).collect()
}

/// A jitter's share of this DAG: the same whenever it is computed, and spread evenly over DAGs.
fn delay(dag_id: &str, jitter_millis: i64) -> Duration {
    let digest = Sha1::digest(dag_id.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    let share = (u128::from(u64::from_be_bytes(first)) * jitter_millis.max(0) as u128) >> 64;
    Duration::milliseconds(share as i64)
}

/// The last point of the grid `anchor + k × step` that is not after `at`, moved on by `steps`.
fn grid(
    step: Duration,
    anchor: DateTime<Utc>,
    at: DateTime<Utc>,
    steps: i64,
) -> Option<DateTime<Utc>> {
    let step = step.num_milliseconds();
    let since_anchor = (at - anchor).num_milliseconds();
    // `num_milliseconds` rounds towards zero; below the anchor that is upwards.
    let whole = if at < anchor + Duration::milliseconds(since_anchor) {
        since_anchor - 1
    } else {
        since_anchor
    };
    let k = whole.div_euclid(step).checked_add(steps)?;
    anchor.checked_add_signed(Duration::try_milliseconds(k.checked_mul(step)?)?)
}

/// A date of a DAG file: `2026-01-01`, `2026-01-01 08:30`, `2026-01-01T08:30:00+09:00`; without an offset it is read in
/// `timezone` (a time that a clock change skips moves forward, one that it doubles is the first).
pub fn parse_date(text: &str, timezone: chrono_tz::Tz) -> Option<DateTime<Utc>> {
    if let Ok(date) = DateTime::parse_from_rfc3339(text) {
        return Some(date.to_utc());
    }
    let text = text.replacen('T', " ", 1);
    let naive = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|format| chrono::NaiveDateTime::parse_from_str(&text, format).ok())
        .or_else(|| {
            chrono::NaiveDate::parse_from_str(&text, "%Y-%m-%d")
                .ok()?
                .and_hms_opt(0, 0, 0)
        })?;
    match timezone.from_local_datetime(&naive) {
        chrono::LocalResult::Single(date) | chrono::LocalResult::Ambiguous(date, _) => {
            Some(date.to_utc())
        }
        chrono::LocalResult::None => cron::instant(timezone, naive),
    }
}

#[cfg(test)]
mod tests;
