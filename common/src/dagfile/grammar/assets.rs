//! Assets: what tasks update and read, and what schedules wait for.

use super::{Table, Ty, key};

/// One as a task describes it.
pub(crate) static ASSET: Table = Table {
    name: "an asset",
    keys: &[
        key("name", Ty::AssetName, "Names it in the whole deployment.").required(),
        key("uri", Ty::AssetName, "Where the data is.").default("its name"),
        key("group", Ty::Text, "For lists.").default("asset"),
        key(
            "extra",
            Ty::Dict(&Ty::Text),
            "Whatever else there is to say of it.",
        ),
    ],
    exclusive: &[],
};

pub(crate) static SCHEDULE: Table = Table {
    name: "a schedule by assets",
    keys: &[
        key(
            "all",
            Ty::List(&Ty::AssetCondition),
            "A run once each of them was updated.",
        ),
        key(
            "any",
            Ty::List(&Ty::AssetCondition),
            "A run once any of them was.",
        ),
        key("cron", Ty::OneOrMany(&Ty::Cron), "And at these times too."),
    ],
    exclusive: &[&["all", "any"]],
};
