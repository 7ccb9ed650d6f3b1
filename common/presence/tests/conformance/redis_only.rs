//! What only a real Redis can show.

use std::time::{Duration, Instant};

use crate::support::{Bed, command, config, worker};
use bytes::Bytes;
use gristmill_presence::{
    Claim, ClaimRequest, DEFAULT_LEASE_TTL, LogCursor, Presence, PresenceConfig, PresenceError,
    RedisPresence, Renewal, Restore, WorkerStatus, XComKey,
};
use gristmill_testkit::{Proxy, Redis, shared};
use uuid::Uuid;

#[tokio::test]
async fn every_key_but_two_expires() {
    let db = shared::redis_db().await.unwrap();
    let presence = RedisPresence::new(db.url(), config()).unwrap();
    let epoch = presence
        .register(&worker("a"), DEFAULT_LEASE_TTL)
        .await
        .unwrap();
    let request = |ti| ClaimRequest {
        ti,
        fence: 1,
        epoch,
        claim_by_ms: i64::MAX,
    };
    let claims = presence
        .claim("a", &[request(1), request(2), request(3)])
        .await
        .unwrap();
    assert_eq!(claims, [Claim::Granted, Claim::Granted, Claim::Granted]);
    presence.cancel(&[(2, 1), (9, 9)]).await.unwrap();
    presence.release("a", &[(3, 1)]).await.unwrap();
    presence
        .renew("a", epoch, &WorkerStatus::default())
        .await
        .unwrap();
    presence.revoke("gone").await.unwrap();
    presence
        .restore(&worker("b"), epoch, &[(5, 1), (9, 9)], DEFAULT_LEASE_TTL)
        .await
        .unwrap();
    let key = XComKey {
        run: 1,
        ti: 1,
        fence: 1,
        key: "k".into(),
    };
    let value = [(key, Bytes::from_static(b"v"))];
    presence
        .put_xcoms(&value, Duration::from_secs(60))
        .await
        .unwrap();
    let chunk = Bytes::from_static(b"line\n");
    let (live, ended) = (Uuid::new_v4(), Uuid::new_v4());
    presence.append_log(live, 1, chunk.clone()).await.unwrap();
    presence.append_log(ended, 1, chunk).await.unwrap();
    presence.end_log(ended).await.unwrap();

    let mut forever = Vec::new();
    let mut total = 0;
    for key in command::<Vec<String>>(db.url(), &["KEYS", "*"]).await {
        total += 1;
        if command::<i64>(db.url(), &["PTTL", &key]).await == -1 {
            forever.push(key);
        }
    }
    forever.sort();
    assert_eq!(forever, ["gm:{p}:epoch", "gm:{p}:workers"]);
    assert!(total > 15, "only {total} keys: what was written above?");
    let left: i64 = command(db.url(), &["PTTL", &format!("gm:{{a:{ended}}}:log")]).await;
    assert!(left <= 600_000, "an ended log stays for {left} ms");
    let set: i64 = command(db.url(), &["PTTL", "gm:{run:1}:xs"]).await;
    assert!((1..=60_000).contains(&set));
}

#[tokio::test]
async fn a_tombstone_lasts_until_claim_by_and_no_24_hours() {
    let db = shared::redis_db().await.unwrap();
    let presence = RedisPresence::new(db.url(), config()).unwrap();
    let epoch = presence
        .register(&worker("a"), DEFAULT_LEASE_TTL)
        .await
        .unwrap();
    let now = presence.leases().await.unwrap().redis_time_ms;
    let hour = 3_600_000;
    let request = ClaimRequest {
        ti: 1,
        fence: 1,
        epoch,
        claim_by_ms: now + hour,
    };
    presence.claim("a", &[request]).await.unwrap();
    let key = "gm:{p}:claim:1:1";
    let held: i64 = command(db.url(), &["PTTL", key]).await;
    assert!(held > 23 * hour, "{held}");
    presence.release("a", &[(1, 1)]).await.unwrap();
    let released: i64 = command(db.url(), &["PTTL", key]).await;
    let slack = 15 * 60_000;
    assert!(
        (hour + slack - 60_000..=hour + slack).contains(&released),
        "{released}"
    );
}

#[tokio::test]
async fn scripts_are_loaded_again_after_a_script_flush() {
    let server = Redis::start().await.unwrap();
    let presence = RedisPresence::new(&server.url(), config()).unwrap();
    let epoch = presence.epoch().await.unwrap();
    command::<()>(&server.url(), &["SCRIPT", "FLUSH"]).await;
    assert_eq!(presence.epoch().await.unwrap(), epoch);
}

#[tokio::test]
async fn a_silent_server_is_unavailable_by_the_deadline() {
    let server = Redis::start().await.unwrap();
    let deadline = Duration::from_millis(300);
    let config = PresenceConfig {
        deadline,
        ..PresenceConfig::default()
    };
    let presence = RedisPresence::new(&server.url(), config).unwrap();
    let epoch = presence.epoch().await.unwrap();
    server.pause().unwrap();
    // On the connection that was open, then on a new one that nobody answers.
    for _ in 0..2 {
        let begun = Instant::now();
        let error = presence.epoch().await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
        assert!(begun.elapsed() < deadline * 10, "{:?}", begun.elapsed());
    }
    server.resume().unwrap();
    assert_eq!(presence.epoch().await.unwrap(), epoch);
}

#[tokio::test]
async fn a_cut_network_is_survived_under_the_same_epoch() {
    let server = Redis::start().await.unwrap();
    let address = server.url().replace("redis://", "").replace("/0", "");
    let proxy = Proxy::to(&address).await.unwrap();
    let url = proxy.url(&server.url());
    let presence = RedisPresence::new(&url, config()).unwrap();
    let epoch = presence
        .register(&worker("a"), DEFAULT_LEASE_TTL)
        .await
        .unwrap();
    proxy.cut();
    assert!(presence.epoch().await.unwrap_err().is_unavailable());
    proxy.restore();
    let renewal = presence
        .renew("a", epoch, &WorkerStatus::default())
        .await
        .unwrap();
    assert!(matches!(renewal, Renewal::Renewed { .. }), "{renewal:?}");
}

#[tokio::test]
async fn it_starts_without_redis() {
    let server = Redis::start().await.unwrap();
    server.kill().await.unwrap();
    let presence = RedisPresence::new(&server.url(), config()).unwrap();
    assert!(presence.epoch().await.unwrap_err().is_unavailable());
    server.restart().await.unwrap();
    assert!(presence.epoch().await.unwrap() > 0);
}

#[tokio::test]
async fn an_empty_restart_changes_the_epoch() {
    let server = Redis::start().await.unwrap();
    let presence = RedisPresence::new(&server.url(), config()).unwrap();
    let old = presence.epoch().await.unwrap();
    server.restart_empty().await.unwrap();
    assert_ne!(presence.epoch().await.unwrap(), old);
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_repeated() {
    let server = Redis::start().await.unwrap();
    command::<()>(&server.url(), &["CONFIG", "SET", "requirepass", "right"]).await;
    let url = server.url().replace("redis://", "redis://:hunter2@");
    let presence = RedisPresence::new(&url, config()).unwrap();
    let error = presence.epoch().await.unwrap_err();
    assert!(matches!(error, PresenceError::Refused { .. }), "{error:?}");
    assert!(!format!("{error} {error:?} {presence:?}").contains("hunter2"));
    let url = server.url().replace("redis://", "redis://:right@");
    let presence = RedisPresence::new(&url, config()).unwrap();
    assert!(presence.epoch().await.unwrap() > 0);
}

#[tokio::test]
async fn prefixes_keep_deployments_apart() {
    let db = shared::redis_db().await.unwrap();
    let of = |prefix: &str| {
        let config = PresenceConfig {
            prefix: prefix.into(),
            ..config()
        };
        RedisPresence::new(db.url(), config).unwrap()
    };
    let (one, two) = (of("one"), of("two"));
    one.register(&worker("a"), DEFAULT_LEASE_TTL).await.unwrap();
    one.cancel(&[(1, 1)]).await.unwrap();
    assert!(two.leases().await.unwrap().leases.is_empty());
    assert_ne!(one.epoch().await.unwrap(), two.epoch().await.unwrap());
}

#[tokio::test]
async fn ten_thousand_claims_are_restored_in_one_call() {
    let bed = Bed::redis(config()).await;
    let epoch = bed.presence.epoch().await.unwrap();
    let claims: Vec<_> = (0..10_000).map(|ti| (ti, 1)).collect();
    let restored = bed
        .presence
        .restore(&worker("a"), epoch, &claims, DEFAULT_LEASE_TTL)
        .await
        .unwrap();
    assert!(matches!(restored, Restore::Restored { refused, .. } if refused.is_empty()));
    let holders = bed.presence.holders(&claims).await.unwrap();
    assert!(holders.holders.iter().all(Option::is_some));
}

#[tokio::test]
async fn followers_beyond_the_limit_take_turns() {
    let db = shared::redis_db().await.unwrap();
    let config = PresenceConfig {
        max_followers: 1,
        ..config()
    };
    let presence = RedisPresence::new(db.url(), config).unwrap();
    let attempt = Uuid::new_v4();
    let read = || presence.read_log(attempt, LogCursor::START, Duration::from_secs(60));
    let write = presence.append_log(attempt, 1, Bytes::from_static(b"x"));
    let (a, b, c, written) = tokio::join!(read(), read(), read(), write);
    written.unwrap();
    for chunk in [a, b, c] {
        assert_eq!(chunk.unwrap().bytes, "x");
    }
}
