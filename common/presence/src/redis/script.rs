//! The Lua scripts, compiled into the binary and sent by their hash.

use std::sync::LazyLock;

use redis::Script;

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $($part:literal),+;)*) => {
        $($(#[$doc])* pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($(include_str!(concat!("scripts/", $part))),+)));)*
    };
}

scripts! {
    EPOCH = "prelude.lua", "epoch.lua";
    REGISTER = "prelude.lua", "register.lua";
    RENEW = "prelude.lua", "renew.lua";
    RESTORE = "prelude.lua", "restore.lua";
    LEASES = "prelude.lua", "leases.lua";
    REVOKE = "prelude.lua", "revoke.lua";
    DEREGISTER = "prelude.lua", "deregister.lua";
    CLAIM = "prelude.lua", "claim.lua";
    HOLDERS = "prelude.lua", "holders.lua";
    SEAL = "prelude.lua", "seal.lua";
    RELEASE = "prelude.lua", "release.lua";
    CANCEL = "prelude.lua", "cancel.lua";
    DELETE_XCOMS = "delete_xcoms.lua";
    APPEND_LOG = "append_log.lua";
    END_LOG = "end_log.lua";
}
