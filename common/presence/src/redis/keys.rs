//! Every key in Redis.
//!
//! `gm` stands for [`PresenceConfig::prefix`](crate::PresenceConfig::prefix). The part in braces is the cluster hash
//! tag: what one script touches lies in one slot.
//!
//! | Key | Type | Content | Lives |
//! |---|---|---|---|
//! | `gm:{p}:epoch` | hash | `epoch`; `run_id`: the server life it was made in | for ever (one key) |
//! | `gm:{p}:workers` | set | incarnations that may hold a lease | for ever; entries go with their lease |
//! | `gm:{p}:lease:<incarnation>` | hash | `info`, `status` (JSON), `seq`, `epoch`, `ttl`, `renewed`, `refreshed` (ms), `revoked` | lease ttl after the last renewal; `claim_ttl` once revoked |
//! | `gm:{p}:held:<incarnation>` | set | `ti:fence` of its claims that are not released | `claim_ttl` after the last claim or refresh |
//! | `gm:{p}:cancelled:<incarnation>` | set | those of them that were cancelled | as `held` |
//! | `gm:{p}:claim:<ti>:<fence>` | string | `<state>\|<claim_by_ms>\|<incarnation>`; state `h` held, `c` held and cancelled, `r` released, `x` cancelled before any claim | held: `claim_ttl`, refreshed by renewals; released: until `claim_by` + `tombstone_slack`; `x`: `claim_ttl` |
//! | `gm:{run:<run>}:x:<ti>:<fence>:<key>` | string | an XCom value | the writer's ttl |
//! | `gm:{run:<run>}:xs` | set | the keys of the run's XComs | the longest of their ttls |
//! | `gm:{a:<attempt>}:log` | stream | entries `<seq>-0` with field `d` (a chunk); `<last>-1` with `e` ends it | `log_idle_ttl`, then `log_ended_ttl` |
//! | `gm:{a:<attempt>}:logmeta` | hash | `bytes` in the stream, `last` seq, `ended` | as the stream |

use uuid::Uuid;

use crate::{TiFence, XComKey};

/// Builds key names under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    pub(super) fn epoch(&self) -> String {
        format!("{}:{{p}}:epoch", self.prefix)
    }

    pub(super) fn workers(&self) -> String {
        format!("{}:{{p}}:workers", self.prefix)
    }

    pub(super) fn lease(&self, incarnation: &str) -> String {
        format!("{}:{{p}}:lease:{incarnation}", self.prefix)
    }

    pub(super) fn held(&self, incarnation: &str) -> String {
        format!("{}:{{p}}:held:{incarnation}", self.prefix)
    }

    pub(super) fn cancelled(&self, incarnation: &str) -> String {
        format!("{}:{{p}}:cancelled:{incarnation}", self.prefix)
    }

    pub(super) fn claim(&self, dispatch: TiFence) -> String {
        self.claim_prefix() + &member(dispatch)
    }

    pub(super) fn claim_prefix(&self) -> String {
        format!("{}:{{p}}:claim:", self.prefix)
    }

    pub(super) fn xcom(&self, key: &XComKey) -> String {
        format!(
            "{}:{{run:{}}}:x:{}:{}:{}",
            self.prefix, key.run, key.ti, key.fence, key.key
        )
    }

    pub(super) fn xcoms(&self, run: i64) -> String {
        format!("{}:{{run:{run}}}:xs", self.prefix)
    }

    pub(super) fn log(&self, attempt: Uuid) -> String {
        format!("{}:{{a:{attempt}}}:log", self.prefix)
    }

    pub(super) fn log_meta(&self, attempt: Uuid) -> String {
        format!("{}:{{a:{attempt}}}:logmeta", self.prefix)
    }
}

/// A dispatch as it stands in sets: `ti:fence`.
pub(super) fn member((ti, fence): TiFence) -> String {
    format!("{ti}:{fence}")
}

/// The inverse of [`member`].
pub(super) fn parse_member(text: &str) -> Option<TiFence> {
    let (ti, fence) = text.split_once(':')?;
    Some((ti.parse().ok()?, fence.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_script_share_a_hash_tag() {
        let keys = Keys::new("gm");
        for key in [
            keys.epoch(),
            keys.workers(),
            keys.lease("i"),
            keys.held("i"),
            keys.cancelled("i"),
            keys.claim((1, 2)),
        ] {
            assert!(key.starts_with("gm:{p}:"), "{key}");
        }
        // Braces in a user's key come after the tag, and Redis takes the first pair only.
        let key = XComKey {
            run: 7,
            ti: 8,
            fence: 9,
            key: "}{odd".into(),
        };
        assert_eq!(keys.xcom(&key), "gm:{run:7}:x:8:9:}{odd");
    }

    #[test]
    fn members_round_trip() {
        assert_eq!(parse_member(&member((12, -3))), Some((12, -3)));
        assert_eq!(parse_member("12"), None);
    }
}
