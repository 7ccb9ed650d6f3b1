//! Lengths of time as DAG files write them: `30s`, `5m`, `1h30m`, `2d`, `500ms`, or a number of seconds.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr, time::Duration};

/// A length of time with millisecond resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(Duration);

/// Ten years: longer than any sensible task setting, short enough to add to any date.
const MAX: Duration = Duration::from_secs(10 * 366 * 86_400);

const UNITS: [(&str, u64); 6] = [
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl Span {
    pub const ZERO: Self = Self(Duration::ZERO);

    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    pub const fn from_millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    pub const fn duration(self) -> Duration {
        self.0
    }

    pub fn millis(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }

    pub fn as_secs_f64(self) -> f64 {
        self.0.as_secs_f64()
    }

    pub fn chrono(self) -> chrono::Duration {
        chrono::Duration::milliseconds(self.millis())
    }

    fn from_secs_f64(secs: f64) -> Result<Self, SpanError> {
        if !secs.is_finite() || secs < 0.0 || secs > MAX.as_secs_f64() {
            return Err(SpanError(secs.to_string()));
        }
        Ok(Self(Duration::from_millis((secs * 1000.0).round() as u64)))
    }
}

/// A text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no length of time: write for example 30s, 5m, 1h30m, 2d or a number of seconds (at most ten years)"
)]
pub struct SpanError(pub String);

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let bad = || SpanError(text.to_owned());
        let mut rest = text.trim();
        if let Ok(secs) = rest.parse::<f64>() {
            return Self::from_secs_f64(secs).map_err(|_| bad());
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let value: u64 = rest[..digits].parse().map_err(|_| bad())?;
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let unit = &rest[..letters];
            rest = rest[letters..].trim_start();
            let (_, ms) = UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(bad)?;
            total = value
                .checked_mul(*ms)
                .and_then(|part| total.checked_add(part))
                .ok_or_else(bad)?;
        }
        if text.trim().is_empty() || Duration::from_millis(total) > MAX {
            return Err(bad());
        }
        Ok(Self(Duration::from_millis(total)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ms = self.0.as_millis() as u64;
        if ms == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in UNITS.into_iter().filter(|(unit, _)| *unit != "w") {
            if ms >= size {
                write!(f, "{}{unit}", ms / size)?;
                ms %= size;
            }
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Number(f64),
            Text(String),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Number(secs) => Self::from_secs_f64(secs),
            Raw::Text(text) => text.parse(),
        }
        .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints_the_same() {
        for (text, ms) in [
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("2d", 172_800_000),
            ("0s", 0),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.millis(), ms, "{text}");
            assert_eq!(span.to_string(), text);
        }
        assert_eq!("1w".parse::<Span>().unwrap().to_string(), "7d");
        assert_eq!("1.5".parse::<Span>().unwrap().millis(), 1_500);
        assert_eq!("1h 5m".parse::<Span>().unwrap().to_string(), "1h5m");
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in [
            "",
            "  ",
            "5x",
            "m",
            "-3",
            "nan",
            "inf",
            "99999999999d",
            "18446744073709551615w",
            "5 m 3",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }
}
