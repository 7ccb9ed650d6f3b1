//! Claims that are left in Redis.
//!
//! A claim that is held (state `h` or `c`) by a worker with a lease means that the worker is at work on it. Claims of workers
//! that were lost stay until they expire, and mean nothing: their holder has no lease any more. What the keys are:
//! `common/presence/src/redis/keys.rs`.

use super::CheckError;
use redis::aio::MultiplexedConnection;
use std::collections::BTreeSet;

/// Keys of one round of SCAN.
const ROUND: usize = 5_000;

/// Asks Redis.
pub(super) struct Presence {
    connection: MultiplexedConnection,
}

impl Presence {
    pub(super) async fn open(url: &str) -> Result<Self, CheckError> {
        let client = redis::Client::open(url)?;
        let connection = client.get_multiplexed_async_connection().await?;
        Ok(Self { connection })
    }

    /// The claims that living workers hold, `instance:fence held by incarnation`.
    pub(super) async fn held(&mut self) -> Result<Vec<String>, CheckError> {
        let workers: Vec<String> = redis::cmd("SMEMBERS")
            .arg("gm:{p}:workers")
            .query_async(&mut self.connection)
            .await?;
        let mut living = BTreeSet::new();
        let mut held = BTreeSet::new();
        for worker in workers {
            let lease = format!("gm:{{p}}:lease:{worker}");
            let revoked: Option<String> = redis::cmd("HGET")
                .arg(&lease)
                .arg("revoked")
                .query_async(&mut self.connection)
                .await?;
            let exists: bool = redis::cmd("EXISTS")
                .arg(&lease)
                .query_async(&mut self.connection)
                .await?;
            if !exists || revoked.is_some() {
                continue;
            }
            let claims: Vec<String> = redis::cmd("SMEMBERS")
                .arg(format!("gm:{{p}}:held:{worker}"))
                .query_async(&mut self.connection)
                .await?;
            held.extend(claims.iter().map(|claim| shown(claim, &worker)));
            living.insert(worker);
        }
        self.held_by_record(&living, &mut held).await?;
        Ok(held.into_iter().collect())
    }

    /// By the claims' own records, which may tell of more than the sets do.
    async fn held_by_record(
        &mut self,
        living: &BTreeSet<String>,
        held: &mut BTreeSet<String>,
    ) -> Result<(), CheckError> {
        let mut cursor = 0u64;
        loop {
            let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg("gm:{p}:claim:*")
                .arg("COUNT")
                .arg(ROUND)
                .query_async(&mut self.connection)
                .await?;
            if !keys.is_empty() {
                let records: Vec<Option<String>> = redis::cmd("MGET")
                    .arg(&keys)
                    .query_async(&mut self.connection)
                    .await?;
                for (key, record) in keys.iter().zip(records) {
                    let holder = record.as_deref().and_then(holder);
                    if let Some(holder) = holder.filter(|holder| living.contains(*holder)) {
                        let claim = key.trim_start_matches("gm:{p}:claim:");
                        held.insert(shown(claim, holder));
                    }
                }
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

fn shown(claim: &str, worker: &str) -> String {
    format!("{claim} is held by worker {worker}")
}

/// Of a record `state|claim_by|incarnation` whose claim is held.
fn holder(record: &str) -> Option<&str> {
    let mut parts = record.splitn(3, '|');
    let state = parts.next()?;
    let holder = parts.nth(1)?;
    matches!(state, "h" | "c").then_some(holder)
}

#[cfg(test)]
mod tests {
    use super::holder;

    #[test]
    fn only_held_claims_have_a_holder() {
        assert_eq!(holder("h|1700|w"), Some("w"));
        assert_eq!(holder("c|1700|w"), Some("w"));
        assert_eq!(holder("r|1700|w"), None);
        assert_eq!(holder("x||"), None);
    }
}
