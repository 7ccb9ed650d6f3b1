//! Identifiers. Database keys are 64-bit integers; names that users see are strings.

use serde::{Deserialize, Serialize};

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

key!(
    /// Database key of a DAG run.
    RunPk
);
key!(
    /// Database key of a task instance.
    TiPk
);
key!(
    /// Database key of one DAG version.
    VersionPk
);
key!(
    /// Database key of a backfill; users see it as its id.
    BackfillPk
);
key!(
    /// Counts the dispatches of one task instance: every dispatch, whatever its cause, takes the next one. What carries
    /// an older fence is stale and refused. 0 means never dispatched.
    Fence
);

/// Index of a task in its DAG specification's topological order.
pub type TaskIdx = i32;

/// `map_index` of a task instance that is not one of a mapped task's instances.
pub const UNMAPPED: i32 = -1;

/// One dispatch of one task instance: the unit of claiming, ending and fencing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dispatch {
    pub ti: TiPk,
    pub fence: Fence,
}

impl std::fmt::Display for Dispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}", self.ti, self.fence)
    }
}

/// A run id as users may choose it: Airflow's character set, at most 250 characters.
pub fn valid_run_id(id: &str) -> bool {
    (1..=250).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.~:+-".contains(&b))
}

/// A DAG, task, pool or queue name: letters, digits, `_`, `-`, `.`; at most 250 characters.
pub fn valid_name(name: &str) -> bool {
    (1..=250).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}
