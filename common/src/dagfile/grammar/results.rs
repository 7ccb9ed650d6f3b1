//! What is kept of a task beside its value.

use super::{Table, Ty, key};

pub(crate) static CACHE: Table = Table {
    name: "a cache",
    keys: &[
        key(
            "key",
            Ty::Template,
            "The same key, of the same task as it is written now: the same result.",
        )
        .required(),
        key("ttl", Ty::Span, "How long a result is good.").default("1d"),
    ],
    exclusive: &[],
};
