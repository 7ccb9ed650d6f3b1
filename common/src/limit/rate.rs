//! A queue's rate: a bucket of tokens, of which each dispatch takes one.
//!
//! The bucket is kept as one time, that at which it is full again. So nothing has to be refilled, and no timer runs: what a
//! bucket holds is worked out when somebody looks.

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// At most `count` dispatches at once, and in the long run `count` in every `seconds`. Written `10/s`, `600/m`, `1000/h`, `5000/d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RateLimit {
    count: i64,
    seconds: i64,
}

/// Units of a rate, with their seconds. None is shorter than the schedulers' look of every second, by which what waits for
/// tokens is found: so a bucket is never full for longer than it takes to be seen.
const UNITS: [(&str, i64); 4] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
/// Tokens of a bucket at most.
const MAX_COUNT: i64 = 1_000_000;

/// A text that is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no rate: write how many tasks may start in which time, such as 10/s, 600/m, 1000/h or 5000/d (at most {MAX_COUNT})"
)]
pub struct NotARate(String);

impl RateLimit {
    /// From its parts; `None` where they are out of range.
    pub fn new(count: i64, seconds: i64) -> Option<Self> {
        let known = UNITS.iter().any(|(_, unit)| *unit == seconds);
        (known && (1..=MAX_COUNT).contains(&count)).then_some(Self { count, seconds })
    }

    /// Tokens of a full bucket.
    pub fn count(self) -> i64 {
        self.count
    }

    /// How long an empty bucket takes to be full.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Tokens there are at `now` in a bucket that is full at `full_at` (absent: that always was).
    pub fn tokens(self, full_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> i64 {
        let missing = full_at.map_or(0, |at| (at - now).num_microseconds().unwrap_or(i64::MAX));
        if missing <= 0 {
            return self.count;
        }
        let period = i128::from(self.seconds) * 1_000_000;
        let taken = (i128::from(missing) * i128::from(self.count) + period - 1) / period;
        i64::try_from(i128::from(self.count) - taken)
            .unwrap_or(0)
            .max(0)
    }

    /// When the bucket is full again once `n` tokens are taken at `now`. Rounded up: a rate is never exceeded.
    pub fn take(self, full_at: Option<DateTime<Utc>>, now: DateTime<Utc>, n: i64) -> DateTime<Utc> {
        let period = i128::from(self.seconds) * 1_000_000;
        let count = i128::from(self.count);
        let longer = (i128::from(n) * period + count - 1) / count;
        let longer = Duration::microseconds(i64::try_from(longer).unwrap_or(i64::MAX));
        full_at.map_or(now, |at| at.max(now)) + longer
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS
            .iter()
            .find(|(_, seconds)| *seconds == self.seconds)
            .map_or("?", |(unit, _)| unit);
        write!(f, "{}/{unit}", self.count)
    }
}

impl FromStr for RateLimit {
    type Err = NotARate;

    fn from_str(text: &str) -> Result<Self, NotARate> {
        let parsed = text.trim().split_once('/').and_then(|(count, unit)| {
            let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
            Self::new(count.trim().parse().ok()?, *seconds)
        });
        parsed.ok_or_else(|| NotARate(text.to_owned()))
    }
}

impl From<RateLimit> for String {
    fn from(rate: RateLimit) -> Self {
        rate.to_string()
    }
}

impl TryFrom<String> for RateLimit {
    type Error = NotARate;

    fn try_from(text: String) -> Result<Self, NotARate> {
        text.parse()
    }
}

/// A queue's rate, and how many tokens its bucket held when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueRate {
    pub limit: RateLimit,
    pub tokens: i64,
    pub full_at: Option<DateTime<Utc>>,
}

impl QueueRate {
    /// From a row's columns; `None` without a rate.
    pub fn read(
        count: Option<i64>,
        seconds: Option<i64>,
        full_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Option<Self> {
        let limit = RateLimit::new(count?, seconds?)?;
        Some(Self {
            limit,
            tokens: limit.tokens(full_at, now),
            full_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(micros: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(1_800_000_000_000_000 + micros).unwrap()
    }

    #[test]
    fn rates_are_read_as_they_are_written() {
        for text in ["10/s", "600/m", "1/h", "1000000/d"] {
            assert_eq!(text.parse::<RateLimit>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "10",
            "0/s",
            "-1/s",
            "1/week",
            "1.5/s",
            "1000001/s",
            "10/500ms",
        ] {
            let error = text.parse::<RateLimit>().unwrap_err().to_string();
            assert!(error.contains("such as 10/s"), "{error}");
        }
    }

    proptest! {
        /// Over any stretch of time no more is taken than a full bucket and what flowed in meanwhile; and whoever always
        /// takes what there is gets nearly all of that.
        #[test]
        fn a_rate_is_kept_and_used(
            count in 1_i64..500, unit in 0_usize..2, waits in prop::collection::vec(0_i64..3_000_000, 1..60)
        ) {
            let rate = RateLimit::new(count, UNITS[unit].1).unwrap();
            let (mut now, mut full_at, mut taken, mut offered) = (0, None, 0, 0);
            for wait in waits {
                now += wait;
                let tokens = rate.tokens(full_at, at(now));
                prop_assert!(tokens <= count);
                if tokens > 0 {
                    full_at = Some(rate.take(full_at, at(now), tokens));
                }
                taken += tokens;
                offered = count + i64::try_from(i128::from(now) * i128::from(count) / i128::from(rate.seconds * 1_000_000)).unwrap();
                prop_assert!(taken <= offered, "{taken} of {offered}");
            }
            prop_assert!(taken >= 1 && taken <= offered);
        }
    }
}
