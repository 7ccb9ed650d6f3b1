//! Values that are one scalar.

use super::{Reader, Role};
use crate::{
    dagfile::{
        diagnostic::did_you_mean,
        grammar::Ty,
        node::{Node, Tree, short},
    },
    ids::valid_name,
    span::Span,
    timetable,
};
use serde_json::{Value, json};

impl Reader<'_> {
    pub(super) fn scalar(&mut self, node: &Node, ty: &Ty) -> Option<Value> {
        let scalar = match (&node.tree, ty) {
            (Tree::Scalar(scalar), _) => scalar,
            _ => return self.unexpected(node, ty),
        };
        let text = scalar.text.as_str();
        let written = scalar.value.is_string();
        match ty {
            Ty::Bool if scalar.value.is_boolean() => return Some(scalar.value.clone()),
            Ty::Int { min, max } => {
                let value = scalar
                    .value
                    .as_i64()
                    .or_else(|| whole(scalar.value.as_f64()?));
                match value {
                    Some(value) if (*min..=*max).contains(&value) => return Some(json!(value)),
                    Some(value) => {
                        self.error(
                            node.at,
                            format!("{value} is out of range: expected {}", ty.expected()),
                        );
                        return None;
                    }
                    None => {}
                }
            }
            Ty::Number if scalar.value.as_f64().is_some_and(|n| n >= 0.0) => {
                return Some(json!(scalar.value.as_f64()));
            }
            Ty::Text if written => return Some(json!(text)),
            Ty::Template if !scalar.value.is_null() => {
                self.template(node.at, scalar, Role::Template);
                return Some(json!(text));
            }
            Ty::Expression(names) if written => {
                self.template(node.at, scalar, Role::Expression(names));
                return Some(json!(text));
            }
            Ty::Name if !scalar.value.is_null() => {
                if valid_name(text) {
                    return Some(json!(text));
                }
                self.bad_name(node, text);
                return None;
            }
            Ty::Span if written || scalar.value.is_number() => match text.parse::<Span>() {
                Ok(span) => return Some(json!(span)),
                Err(error) => {
                    self.error(node.at, error.to_string());
                    return None;
                }
            },
            Ty::Size if written || scalar.value.is_number() => match parse_size(text) {
                Some(bytes) => return Some(json!(bytes)),
                None => {
                    let message = format!(
                        "{} is no size: write for example 512KiB, 128MiB, 2GiB, or a number of bytes",
                        short(text)
                    );
                    self.error(node.at, message);
                    return None;
                }
            },
            Ty::Date if written => match timetable::parse_date(text, self.timezone) {
                Some(date) => return Some(json!(date)),
                None => {
                    self.error(node.at, format!("{} is no date: write for example 2026-01-01, 2026-01-01 08:30 or 2026-01-01T08:30:00+09:00", short(text)));
                    return None;
                }
            },
            Ty::Timezone if written => return self.timezone_name(node, text),
            Ty::Cron if written => return self.cron(node, text).map(|cron| json!(cron)),
            Ty::AssetName if written => return self.asset_name(node, text),
            Ty::Enum(members) if !scalar.value.is_null() => {
                if members.contains(&text) {
                    return Some(json!(text));
                }
                let diagnostic = self.error(
                    node.at,
                    format!("{} is none of the values that can stand here", short(text)),
                );
                *diagnostic = diagnostic.clone().suggest(text, members.iter().copied());
                diagnostic.expected = Some(format!("Known values: {}.", members.join(", ")));
                return None;
            }
            _ => {}
        }
        self.unexpected(node, ty)
    }

    pub(in crate::dagfile) fn bad_name(&mut self, node: &Node, text: &str) {
        let message = match text.len() {
            0 => "a name cannot be empty".to_owned(),
            1..=250 => format!(
                "{} is no name: letters, digits, `_`, `-` and `.` make one",
                short(text)
            ),
            n => format!(
                "{} is too long for a name: {n} characters, at most 250",
                short(text)
            ),
        };
        self.error(node.at, message);
    }

    fn timezone_name(&mut self, node: &Node, text: &str) -> Option<Value> {
        if let Ok(timezone) = text.parse::<chrono_tz::Tz>() {
            return Some(json!(timezone.name()));
        }
        let names = chrono_tz::TZ_VARIANTS
            .iter()
            .map(|timezone| timezone.name());
        // `Seoul` is how people say it.
        let city = names.clone().find(|name| {
            name.rsplit('/')
                .next()
                .is_some_and(|city| city.eq_ignore_ascii_case(text))
        });
        let suggestion = city
            .map(str::to_owned)
            .or_else(|| did_you_mean(text, names));
        let diagnostic = self.error(node.at, format!("{} is no time zone", short(text)));
        diagnostic.suggestion = suggestion;
        diagnostic.expected = Some("Use an IANA name, such as Asia/Seoul or UTC.".to_owned());
        None
    }
}

fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 1e15).then_some(number as i64)
}

/// `128MiB`, `1.5 GB`, `4096`: bytes.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .bytes()
        .take_while(|b| b.is_ascii_digit() || *b == b'.')
        .count();
    let number: f64 = text[..digits].parse().ok()?;
    let factor: u64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        _ => return None,
    };
    let bytes = number * factor as f64;
    // Beyond 2^53 a number is not exact any more; nobody has eight pebibytes of memory.
    (bytes.is_finite() && (1.0..9e15).contains(&bytes)).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("128MiB", 128 << 20),
            ("1.5 GB", 1_500_000_000),
            ("4096", 4096),
            ("2g", 2 << 30),
            ("1 kib", 1024),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.2.3", "5 parsecs", "99999999TB", "0"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
