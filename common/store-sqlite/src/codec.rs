//! How rows travel: each row is one JSON text, both ways.
//!
//! A query answers with one `json_array(…)` column, which a struct of the same field order is read from; a write takes one
//! JSON array of objects and spreads it with `jsonb_each` (which, other than `json_each`, parses each row once and not once per column). So a statement writes any number of rows, and a row costs the
//! driver one value instead of forty.

use chrono::{DateTime, Utc};
use gristmill_store::{StoreError, StoreResult};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt::Display, marker::PhantomData, str::FromStr};

/// A time: microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Micros(pub(crate) DateTime<Utc>);

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(self.0.timestamp_micros())
    }
}

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let micros = i64::deserialize(from)?;
        DateTime::from_timestamp_micros(micros)
            .map(Self)
            .ok_or_else(|| de::Error::custom(format!("{micros} µs is no time")))
    }
}

/// An optional time to write.
pub(crate) fn micros(time: Option<DateTime<Utc>>) -> Option<Micros> {
    time.map(Micros)
}

/// An optional time that was read.
pub(crate) fn time(micros: Option<Micros>) -> Option<DateTime<Utc>> {
    micros.map(|m| m.0)
}

/// A flag: 0 or 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag(pub(crate) bool);

impl Serialize for Flag {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(self.0.into())
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match i64::deserialize(from)? {
            0 => Ok(Self(false)),
            1 => Ok(Self(true)),
            other => Err(de::Error::custom(format!("{other} is no flag"))),
        }
    }
}

/// A document: JSON within a text.
#[derive(Debug, Clone)]
pub(crate) struct Document<T>(pub(crate) T);

impl<T: Serialize> Serialize for Document<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let text = serde_json::to_string(&self.0).map_err(serde::ser::Error::custom)?;
        to.serialize_str(&text)
    }
}

impl<'de, T: de::DeserializeOwned> Deserialize<'de> for Document<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        serde_json::from_str(&text)
            .map(Self)
            .map_err(de::Error::custom)
    }
}

/// A value with a name of its own: a state, a kind of run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<T>(pub(crate) T);

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<T: FromStr<Err: Display>> de::Visitor<'_> for Visitor<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Named<T>, E> {
                text.parse().map(Named).map_err(E::custom)
            }
        }
        from.deserialize_str(Visitor(PhantomData))
    }
}

/// Reads one row.
pub(crate) fn decode<T: de::DeserializeOwned>(row: &str) -> StoreResult<T> {
    serde_json::from_str(row).map_err(|error| {
        let shown: String = row.chars().take(200).collect();
        StoreError::Corrupt(format!("a row cannot be read: {error}: {shown}"))
    })
}

/// Writes a parameter.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> StoreResult<String> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Other(format!("a value cannot be written as JSON: {error}")))
}
