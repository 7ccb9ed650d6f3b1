//! What time does, shown on the twin, whose clock can be moved.

use std::sync::Arc;
use std::time::Duration;

use crate::support::worker;
use bytes::Bytes;
use gristmill_presence::{
    Claim, ClaimRequest, Clock, LogCursor, ManualClock, MemoryPresence, Presence, PresenceConfig,
    Renewal, WorkerStatus, XComKey,
};
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);

fn twin() -> (MemoryPresence, ManualClock) {
    let clock = ManualClock::new(1_000_000);
    let presence = MemoryPresence::with_clock(PresenceConfig::default(), Arc::new(clock.clone()));
    (presence, clock)
}

async fn claim(presence: &MemoryPresence, who: &str, epoch: i64, claim_by_ms: i64) -> Claim {
    let request = ClaimRequest {
        ti: 1,
        fence: 1,
        epoch,
        claim_by_ms,
    };
    presence.claim(who, &[request]).await.unwrap().remove(0)
}

#[tokio::test]
async fn a_claim_is_in_time_at_claim_by_and_late_after() {
    let (presence, clock) = twin();
    let epoch = presence.register(&worker("a"), HOUR).await.unwrap();
    let by = clock.now_ms() + 10;
    clock.advance(Duration::from_millis(11));
    assert_eq!(claim(&presence, "a", epoch, by).await, Claim::Late);
    clock.set_ms(by);
    assert_eq!(claim(&presence, "a", epoch, by).await, Claim::Granted);
}

#[tokio::test]
async fn a_message_is_refused_at_every_moment_after_its_release() {
    let (presence, clock) = twin();
    let epoch = presence.register(&worker("a"), HOUR * 1000).await.unwrap();
    let by = clock.now_ms() + 60_000;
    assert_eq!(claim(&presence, "a", epoch, by).await, Claim::Granted);
    presence.release("a", &[(1, 1)]).await.unwrap();
    let mut late = 0;
    for _ in 0..60 * 48 {
        match claim(&presence, "a", epoch, by).await {
            Claim::AlreadyClaimed { .. } => {}
            Claim::Late => late += 1,
            other => panic!("a redelivery got {other:?} at {}", clock.now_ms()),
        }
        clock.advance(Duration::from_secs(60));
    }
    assert!(late > 0, "the tombstone never went");
}

#[tokio::test]
async fn renewals_keep_the_records_of_long_tasks() {
    let (presence, clock) = twin();
    let epoch = presence.register(&worker("a"), HOUR).await.unwrap();
    let by = clock.now_ms() + 60_000;
    assert_eq!(claim(&presence, "a", epoch, by).await, Claim::Granted);
    for _ in 0..24 * 7 * 2 {
        clock.advance(HOUR / 2);
        let renewal = presence
            .renew("a", epoch, &WorkerStatus::default())
            .await
            .unwrap();
        assert!(matches!(renewal, Renewal::Renewed { .. }));
    }
    let holders = presence.holders(&[(1, 1)]).await.unwrap().holders;
    assert_eq!(holders[0].as_ref().unwrap().incarnation, "a");
}

#[tokio::test]
async fn what_nobody_renews_goes() {
    let (presence, clock) = twin();
    let epoch = presence.register(&worker("a"), HOUR).await.unwrap();
    let attempt = Uuid::new_v4();
    let line = Bytes::from_static(b"line\n");
    presence.append_log(attempt, 1, line.clone()).await.unwrap();
    presence.end_log(attempt).await.unwrap();
    let key = XComKey {
        run: 1,
        ti: 1,
        fence: 1,
        key: "k".into(),
    };
    presence
        .put_xcoms(&[(key.clone(), line)], HOUR)
        .await
        .unwrap();
    clock.advance(HOUR);
    assert!(presence.leases().await.unwrap().leases.is_empty());
    assert_eq!(
        presence
            .renew("a", epoch, &WorkerStatus::default())
            .await
            .unwrap(),
        Renewal::Unknown
    );
    assert_eq!(presence.get_xcoms(&[key]).await.unwrap(), [None]);
    let log = presence
        .read_log(attempt, LogCursor::START, Duration::ZERO)
        .await
        .unwrap();
    assert!(!log.known);
}
