//! Ticks of a cron expression in a time zone.
//!
//! What happens when the clock changes follows Airflow. An expression that fires in every hour of the day follows real
//! time: no hour is left out, and a doubled hour fires twice. Any other names times of day: one that the change skips
//! fires as much later as the clock jumped, one that the change doubles fires once, at the second of the two.

use chrono::{DateTime, Duration, LocalResult, NaiveDateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};

/// Preset names and the expressions that they stand for.
pub const PRESETS: [(&str, &str); 8] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@quarterly", "0 0 1 */3 *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// Whether this is a cron expression of 5 fields, or of 6 (the sixth, as in Airflow, is seconds), that ever fires.
pub fn check_cron(expression: &str) -> Result<(), String> {
    let cron = compile(expression)?;
    let year_2000 = DateTime::from_timestamp(946_684_800, 0)
        .unwrap_or_default()
        .naive_utc();
    match cron.find_next_occurrence(&year_2000, true) {
        // Leap days on one weekday come every 28 years; anything rarer does not exist.
        Ok(next) if next - year_2000 < Duration::days(366 * 60) => Ok(()),
        _ => Err("no date ever matches it".to_owned()),
    }
}

fn compile(expression: &str) -> Result<Cron, String> {
    let mut fields: Vec<String> = expression.split_whitespace().map(str::to_owned).collect();
    match fields.len() {
        5 | 6 => fields[4] = last_weekdays(&fields[4]),
        n => {
            return Err(format!(
                "it has {n} fields, not 5 (minute hour day month weekday) or 6 (… second)"
            ));
        }
    }
    if fields.len() == 6 {
        // croner wants the seconds first.
        fields.rotate_right(1);
    }
    CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Disallowed)
        .build()
        .parse(&fields.join(" "))
        .map_err(|error| error.to_string())
}

/// The last Friday of a month is `L5` to Airflow and `5L` to croner.
fn last_weekdays(field: &str) -> String {
    let turn = |part: &str| match part.strip_prefix(['L', 'l']) {
        Some(day) if !day.is_empty() => format!("{day}L"),
        _ => part.to_owned(),
    };
    field.split(',').map(turn).collect::<Vec<_>>().join(",")
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct CronTicks {
    cron: Cron,
    timezone: Tz,
    fires_every_hour: bool,
}

impl CronTicks {
    pub(super) fn new(expression: &str, timezone: Tz) -> Result<Self, String> {
        let hours = expression.split_whitespace().nth(1).unwrap_or_default();
        Ok(Self {
            cron: compile(expression)?,
            timezone,
            fires_every_hour: matches!(hours, "*" | "*/1" | "0-23"),
        })
    }

    /// The first tick after an instant.
    pub(super) fn after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = after.with_timezone(&self.timezone);
        if self.fires_every_hour {
            return self
                .cron
                .find_next_occurrence(&local, false)
                .ok()
                .map(|tick| tick.to_utc());
        }
        // Times of day up to `slack` before the local time can fire after it, because a clock change moves them.
        let slack = self.clock_change_around(after);
        let mut at = local.naive_local() - slack;
        let mut first: Option<DateTime<Utc>> = None;
        loop {
            at = self.cron.find_next_occurrence(&at, false).ok()?;
            if first.is_some_and(|first| at > first.with_timezone(&self.timezone).naive_local()) {
                return first;
            }
            let skipped = matches!(self.timezone.from_local_datetime(&at), LocalResult::None);
            let tick = instant(self.timezone, at)?;
            if tick > after {
                let tick = first.map_or(tick, |first| first.min(tick));
                if slack.is_zero() && !skipped {
                    return Some(tick);
                }
                first = Some(tick);
            }
        }
    }

    /// The last tick before an instant.
    pub(super) fn before(&self, before: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = before.with_timezone(&self.timezone);
        if self.fires_every_hour {
            return self
                .cron
                .find_previous_occurrence(&local, false)
                .ok()
                .map(|tick| tick.to_utc());
        }
        let slack = self.clock_change_around(before);
        // croner's search is by whole seconds, and exclusive: a second more covers the fraction.
        let mut at = local.naive_local() + slack + Duration::seconds(1);
        let mut last: Option<DateTime<Utc>> = None;
        loop {
            at = self.cron.find_previous_occurrence(&at, false).ok()?;
            let reach = slack.max(Duration::hours(26));
            if last
                .is_some_and(|last| at + reach < last.with_timezone(&self.timezone).naive_local())
            {
                return last;
            }
            let tick = instant(self.timezone, at)?;
            if tick < before {
                // Only times of day that a clock change skipped can stand behind later ones.
                if slack.is_zero() && self.clock_change_around(tick).is_zero() {
                    return Some(last.map_or(tick, |last| last.max(tick)));
                }
                last = Some(last.map_or(tick, |last| last.max(tick)));
            }
        }
    }

    /// By how much the clock changes within about a day of an instant.
    fn clock_change_around(&self, at: DateTime<Utc>) -> Duration {
        let offset = |at: DateTime<Utc>| {
            i64::from(
                at.with_timezone(&self.timezone)
                    .offset()
                    .fix()
                    .local_minus_utc(),
            )
        };
        let near = Duration::hours(25);
        let (before, here, after) = (offset(at - near), offset(at), offset(at + near));
        Duration::seconds((here - before).abs().max((after - here).abs()))
    }
}

/// The instant of a local time: a skipped one moves on by as much as the clock jumped, of a doubled one it is the second.
pub(super) fn instant(timezone: Tz, local: NaiveDateTime) -> Option<DateTime<Utc>> {
    match timezone.from_local_datetime(&local) {
        LocalResult::Single(at) => Some(at.to_utc()),
        LocalResult::Ambiguous(_, later) => Some(later.to_utc()),
        // The offset before the jump, found by looking a day back, places it.
        LocalResult::None => {
            let before = match timezone.from_local_datetime(&(local - Duration::hours(25))) {
                LocalResult::Single(at) | LocalResult::Ambiguous(_, at) => at,
                LocalResult::None => return None,
            };
            Some(DateTime::from_naive_utc_and_offset(
                local - before.offset().fix(),
                Utc,
            ))
        }
    }
}
