//! Decimal numbers, which PostgreSQL sends as digits of base 10,000.

use serde_json::{Value, json};
use sqlx::{
    Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef},
};

/// A decimal number, as its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tasks::sql) struct Numeric(pub(super) String);

const NEGATIVE: u16 = 0x4000;

impl Numeric {
    /// A plain decimal number; an exponent is none.
    pub(in crate::tasks::sql) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let fits = whole.len() < 100_000 && fraction.len() < 16_000;
        (all(whole) && all(fraction) && fits && !(whole.is_empty() && fraction.is_empty()))
            .then(|| Self(text.to_owned()))
    }

    /// A whole number that fits stays one, all else is the nearest floating one.
    pub(super) fn json(&self) -> Value {
        match self.0.parse::<i64>() {
            Ok(whole) => json!(whole),
            Err(_) => self
                .0
                .parse::<f64>()
                .map_or(Value::Null, |float| json!(float)),
        }
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let field = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let (count, weight, sign, scale) = (field(0)?, field(2)? as i16, field(4)?, field(6)?);
        // Neither a sign: no number, or infinity.
        if !matches!(sign, 0 | NEGATIVE) {
            return Some(Self("NaN".to_owned()));
        }
        let digit = |position: i32| -> Option<u16> {
            let at = i32::from(weight) - position;
            match usize::try_from(at) {
                Ok(at) if at < usize::from(count) => field(8 + 2 * at),
                _ => Some(0),
            }
        };
        let mut text = String::new();
        if sign == NEGATIVE {
            text.push('-');
        }
        let mut whole = String::new();
        for position in (0..=i32::from(weight).max(0)).rev() {
            whole.push_str(&format!("{:04}", digit(position)?));
        }
        match whole.trim_start_matches('0') {
            "" => text.push('0'),
            whole => text.push_str(whole),
        }
        if scale > 0 {
            let mut fraction = String::new();
            let mut position = -1;
            while fraction.len() < usize::from(scale) {
                fraction.push_str(&format!("{:04}", digit(position)?));
                position -= 1;
            }
            fraction.truncate(usize::from(scale));
            text.push('.');
            text.push_str(&fraction);
        }
        Some(Self(text))
    }

    fn to_bytes(&self) -> Vec<u8> {
        let (sign, digits) = match self.0.strip_prefix('-') {
            Some(digits) => (NEGATIVE, digits),
            None => (0, self.0.as_str()),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let front = "0".repeat((4 - whole.len() % 4) % 4);
        let back = "0".repeat((4 - fraction.len() % 4) % 4);
        let all = format!("{front}{whole}{fraction}{back}");
        let groups = all.as_bytes().chunks(4).map(|four| {
            let value = four.iter().map(|byte| u16::from(byte - b'0'));
            value.fold(0, |sum, digit| sum * 10 + digit)
        });
        let groups: Vec<u16> = groups.collect();
        let weight = (front.len() + whole.len()) as i32 / 4 - 1;
        let mut bytes = Vec::with_capacity(8 + 2 * groups.len());
        for field in [
            groups.len() as u16,
            weight as i16 as u16,
            sign,
            fraction.len() as u16,
        ] {
            bytes.extend(field.to_be_bytes());
        }
        groups
            .iter()
            .for_each(|group| bytes.extend(group.to_be_bytes()));
        bytes
    }
}

impl Type<Postgres> for Numeric {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("numeric")
    }

    fn compatible(kind: &PgTypeInfo) -> bool {
        sqlx::TypeInfo::name(kind) == "NUMERIC"
    }
}

impl<'r> Decode<'r, Postgres> for Numeric {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        Self::of_bytes(value.as_bytes()?).ok_or_else(|| "a numeric that is cut off".into())
    }
}

impl Encode<'_, Postgres> for Numeric {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend(self.to_bytes());
        Ok(IsNull::No)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_back_as_they_went() {
        for text in [
            "0",
            "1",
            "-1",
            "9999",
            "10000",
            "123456789.0123",
            "-0.5",
            "0.00010",
            "20000.00",
        ] {
            let numeric = Numeric::parse(text).unwrap();
            assert_eq!(Numeric::of_bytes(&numeric.to_bytes()), Some(numeric));
        }
        for text in ["", ".", "1e5", "--1", "1.2.3", "NaN"] {
            assert_eq!(Numeric::parse(text), None, "{text:?}");
        }
        // As PostgreSQL sends 12345.678 and 0.0001: leading and trailing zeros are left out.
        let sent = |weight: i16, scale: u16, groups: &[u16]| {
            let head = [groups.len() as u16, weight as u16, 0, scale];
            let all = head
                .iter()
                .chain(groups)
                .flat_map(|field| field.to_be_bytes());
            Numeric::of_bytes(&all.collect::<Vec<u8>>()).unwrap().0
        };
        assert_eq!(sent(1, 3, &[1, 2345, 6780]), "12345.678");
        assert_eq!(sent(-1, 4, &[1]), "0.0001");
        assert_eq!(sent(-2, 8, &[1]), "0.00000001");
        assert_eq!(sent(2, 0, &[1]), "100000000");
        assert_eq!(sent(0, 0, &[]), "0");
    }

    #[test]
    fn whole_numbers_stay_whole() {
        assert_eq!(Numeric("42".into()).json(), json!(42));
        assert_eq!(Numeric("42.50".into()).json(), json!(42.5));
        assert_eq!(Numeric("NaN".into()).json(), Value::Null);
    }
}
