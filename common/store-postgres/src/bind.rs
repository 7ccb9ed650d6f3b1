//! Parameters of set-based statements: one array per column.

use serde::Serialize;
use std::borrow::Cow;

/// One column of the rows to write.
pub(crate) fn column<'r, R, T>(rows: &'r [R], value: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// Text from outside. PostgreSQL keeps no NUL in `text`: one in an error message must not cost its task the ending.
pub(crate) fn text(from: &str) -> Cow<'_, str> {
    if from.contains('\0') {
        Cow::Owned(from.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(from)
    }
}

pub(crate) fn opt_text(from: Option<&str>) -> Option<Cow<'_, str>> {
    from.map(text)
}

/// JSON as text (cast to `json` by the statement). Maps and values of `serde_json` cannot fail to serialise.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}
