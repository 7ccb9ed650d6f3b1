//! What the grammar holds and the parser refuses as not built yet: specified, so that it can be built without a change
//! of format.

use super::{POSITIVE, Table, Ty, key};

macro_rules! tables {
    ($($name:ident $title:literal [$($key:expr),* $(,)?])*) => {
        $(pub(crate) static $name: Table = Table { name: $title, keys: &[$($key),*], exclusive: &[] };)*
        /// All of them, for the docs.
        #[cfg(test)]
        pub(crate) static TABLES: &[&Table] = &[$(&$name),*];
    };
}

tables! {
    CONCURRENCY "a shared limit" [
        key("key", Ty::Template, "Those with the same key share it.").required(),
        key("limit", POSITIVE, "How many at one time.").default("1"),
        key("strategy", Ty::Enum(&["queue", "cancel_running", "cancel_new"]), "What the next one does.").default("queue"),
    ]
}
