//! The server away, and back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill_presence::{
    Claim, ClaimRequest, DEFAULT_LEASE_TTL, LogCursor, Renewal, WorkerStatus, XComKey,
};
use uuid::Uuid;

use crate::support::{Bed, config, worker};

pub(crate) async fn away_is_unavailable_within_the_deadline_and_back(bed: &Bed) {
    let old = bed.register("a").await;
    bed.go_away().await;
    let p = &bed.presence;
    let status = WorkerStatus::default();
    let request = ClaimRequest {
        ti: 1,
        fence: 1,
        epoch: old,
        claim_by_ms: i64::MAX,
    };
    let attempt = Uuid::new_v4();
    let xcom = XComKey {
        run: 1,
        ti: 1,
        fence: 1,
        key: "k".into(),
    };
    let begun = Instant::now();
    let errors = [
        p.epoch().await.unwrap_err(),
        p.register(&worker("b"), DEFAULT_LEASE_TTL)
            .await
            .unwrap_err(),
        p.renew("a", old, &status).await.unwrap_err(),
        p.leases().await.unwrap_err(),
        p.claim("a", &[request]).await.unwrap_err(),
        p.cancel(&[(1, 1)]).await.unwrap_err(),
        p.get_xcoms(&[xcom]).await.unwrap_err(),
        p.append_log(attempt, 1, Bytes::new()).await.unwrap_err(),
        p.read_log(attempt, LogCursor::START, Duration::from_secs(60))
            .await
            .unwrap_err(),
    ];
    for error in &errors {
        assert!(error.is_unavailable(), "{error}");
    }
    assert!(begun.elapsed() < config().deadline);

    bed.come_back().await;
    let Renewal::EpochChanged { now } = p.renew("a", old, &status).await.unwrap() else {
        panic!("the epoch outlived the server");
    };
    bed.register("a").await;
    assert_eq!(bed.claim("a", (1, 1), now).await, Claim::Granted);
}

pub(crate) async fn a_follower_sees_the_server_die(bed: &Bed) {
    let attempt = Uuid::new_v4();
    bed.presence
        .append_log(attempt, 1, Bytes::from_static(b"one\n"))
        .await
        .unwrap();
    let presence = Arc::clone(&bed.presence);
    let reader = tokio::spawn(async move {
        presence
            .read_log(attempt, LogCursor(1), Duration::from_secs(60))
            .await
    });
    tokio::task::yield_now().await;
    bed.go_away().await;
    let answer = tokio::time::timeout(Duration::from_secs(30), reader).await;
    let error = answer.unwrap().unwrap().unwrap_err();
    assert!(error.is_unavailable(), "{error}");
}
