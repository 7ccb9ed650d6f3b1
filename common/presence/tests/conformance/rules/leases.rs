//! Epochs and worker leases.

use gristmill_presence::{
    CancelState, Claim, DEFAULT_LEASE_TTL, PresenceError, Renewal, Restore, WorkerStatus,
};

use crate::support::{Bed, worker};

const STATUS: WorkerStatus = WorkerStatus {
    running: 3,
    free: 13,
    paused: false,
    draining: true,
};

async fn renew(bed: &Bed, incarnation: &str, epoch: i64) -> Renewal {
    bed.presence
        .renew(incarnation, epoch, &STATUS)
        .await
        .unwrap()
}

async fn restore(bed: &Bed, incarnation: &str, epoch: i64, claims: &[(i64, i64)]) -> Restore {
    bed.presence
        .restore(&worker(incarnation), epoch, claims, DEFAULT_LEASE_TTL)
        .await
        .unwrap()
}

async fn listed(bed: &Bed) -> Vec<String> {
    let snapshot = bed.presence.leases().await.unwrap();
    snapshot
        .leases
        .into_iter()
        .map(|lease| lease.info.incarnation)
        .collect()
}

fn seq(renewal: &Renewal) -> u64 {
    match renewal {
        Renewal::Renewed { seq, .. } => *seq,
        other => panic!("not renewed: {other:?}"),
    }
}

pub(crate) async fn epoch_is_positive_and_the_same_for_all(bed: &Bed) {
    // All at once on an empty server: exactly one of them makes it.
    let epochs = futures::future::try_join_all((0..50).map(|_| bed.presence.epoch()))
        .await
        .unwrap();
    assert!(epochs[0] > 0);
    assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "{epochs:?}");
}

pub(crate) async fn a_registered_worker_is_seen(bed: &Bed) {
    let epoch = bed.register("b").await;
    bed.register("a").await;
    let snapshot = bed.presence.leases().await.unwrap();
    assert_eq!(snapshot.epoch, epoch);
    assert_eq!(snapshot.leases[0].info, worker("a"));
    assert_eq!(snapshot.leases[1].info, worker("b"));
    assert_eq!(snapshot.leases.len(), 2);
    assert!(snapshot.leases[0].renewed_at_ms <= snapshot.redis_time_ms);
}

pub(crate) async fn registering_twice_is_one_lease(bed: &Bed) {
    let epoch = bed.register("a").await;
    assert_eq!(bed.register("a").await, epoch);
    assert_eq!(listed(bed).await, ["a"]);
}

pub(crate) async fn renewals_count_and_report(bed: &Bed) {
    let epoch = bed.register("a").await;
    let first = seq(&renew(bed, "a", epoch).await);
    assert_eq!(seq(&renew(bed, "a", epoch).await), first + 1);
    let lease = bed.presence.leases().await.unwrap().leases.remove(0);
    assert_eq!((lease.status, lease.seq), (STATUS, first + 1));
}

pub(crate) async fn renewing_under_another_epoch_is_refused(bed: &Bed) {
    let epoch = bed.register("a").await;
    let before = bed.presence.leases().await.unwrap().leases.remove(0).seq;
    assert_eq!(
        renew(bed, "a", epoch ^ 1).await,
        Renewal::EpochChanged { now: epoch }
    );
    let after = bed.presence.leases().await.unwrap().leases.remove(0).seq;
    assert_eq!(before, after, "a refused renewal must not look like life");
}

pub(crate) async fn an_incarnation_without_a_lease_is_unknown(bed: &Bed) {
    let epoch = bed.presence.epoch().await.unwrap();
    assert_eq!(renew(bed, "nobody", epoch).await, Renewal::Unknown);
    assert!(listed(bed).await.is_empty());
}

pub(crate) async fn a_revoked_incarnation_never_returns(bed: &Bed) {
    let epoch = bed.register("a").await;
    renew(bed, "a", epoch).await;
    // How far its lease had come, also when asked again.
    assert_eq!(bed.presence.revoke("a").await.unwrap(), Some(2));
    assert_eq!(bed.presence.revoke("a").await.unwrap(), Some(2));
    assert!(listed(bed).await.is_empty());
    bed.presence.deregister("a").await.unwrap();
    assert_eq!(renew(bed, "a", epoch).await, Renewal::Revoked);
    assert_eq!(restore(bed, "a", epoch, &[]).await, Restore::Revoked);
    assert_eq!(bed.claim("a", (1, 1), epoch).await, Claim::NoLease);
    let error = bed
        .presence
        .register(&worker("a"), DEFAULT_LEASE_TTL)
        .await
        .unwrap_err();
    assert!(matches!(error, PresenceError::Revoked { incarnation } if incarnation == "a"));
    // One that nobody had heard of can be revoked too: its register may still be on the way.
    assert_eq!(bed.presence.revoke("unseen").await.unwrap(), None);
    assert_eq!(renew(bed, "unseen", epoch).await, Renewal::Revoked);
}

pub(crate) async fn a_deregistered_worker_is_gone(bed: &Bed) {
    let epoch = bed.register("a").await;
    assert_eq!(bed.claim("a", (1, 1), epoch).await, Claim::Granted);
    bed.presence.deregister("a").await.unwrap();
    assert!(listed(bed).await.is_empty());
    assert_eq!(renew(bed, "a", epoch).await, Renewal::Unknown);
    bed.register("b").await;
    assert_eq!(
        bed.claim("b", (1, 1), epoch).await,
        Claim::AlreadyClaimed { by: "a".into() },
        "leaving must not free what was claimed"
    );
}

pub(crate) async fn a_flush_changes_the_epoch(bed: &Bed) {
    let old = bed.register("a").await;
    bed.flush().await;
    let now = bed.presence.epoch().await.unwrap();
    assert_ne!(old, now);
    assert!(listed(bed).await.is_empty());
    assert_eq!(renew(bed, "a", old).await, Renewal::EpochChanged { now });
    assert_eq!(renew(bed, "a", now).await, Renewal::Unknown);
    assert!(matches!(
        restore(bed, "a", now, &[(1, 1)]).await,
        Restore::Restored { .. }
    ));
    assert_eq!(listed(bed).await, ["a"]);
    seq(&renew(bed, "a", now).await);
}

pub(crate) async fn restoring_under_another_epoch_is_refused(bed: &Bed) {
    let now = bed.presence.epoch().await.unwrap();
    assert_eq!(
        restore(bed, "a", now ^ 1, &[(1, 1)]).await,
        Restore::EpochChanged { now }
    );
    assert!(listed(bed).await.is_empty());
    let holders = bed.presence.holders(&[(1, 1)]).await.unwrap();
    assert_eq!(holders.holders, [None]);
}

pub(crate) async fn restoring_again_keeps_what_was_claimed_since(bed: &Bed) {
    let epoch = bed.presence.epoch().await.unwrap();
    restore(bed, "a", epoch, &[(1, 1)]).await;
    assert_eq!(bed.claim("a", (2, 1), epoch).await, Claim::Granted);
    bed.presence.cancel(&[(1, 1), (2, 1)]).await.unwrap();
    // The answer to the first restore was lost; the worker sends it again as it was.
    restore(bed, "a", epoch, &[(1, 1)]).await;
    match renew(bed, "a", epoch).await {
        Renewal::Renewed { cancelled, .. } => assert_eq!(cancelled, [(1, 1), (2, 1)]),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn restoring_does_not_take_what_another_holds(bed: &Bed) {
    let epoch = bed.register("a").await;
    bed.claim("a", (1, 1), epoch).await;
    match restore(bed, "b", epoch, &[(1, 1), (2, 1)]).await {
        Restore::Restored { refused, .. } => assert_eq!(refused, [(1, 1)]),
        other => panic!("{other:?}"),
    }
    let holders = bed.presence.holders(&[(1, 1), (2, 1)]).await.unwrap();
    let by: Vec<_> = holders
        .holders
        .into_iter()
        .map(|holder| holder.unwrap().incarnation)
        .collect();
    assert_eq!(by, ["a", "b"]);
}

pub(crate) async fn restoring_learns_of_cancels(bed: &Bed) {
    let old = bed.register("a").await;
    bed.claim("a", (1, 1), old).await;
    bed.flush().await;
    let cancels = bed.presence.cancel(&[(1, 1)]).await.unwrap();
    assert_eq!(cancels.states, [CancelState::NotClaimed]);
    match restore(bed, "a", cancels.epoch, &[(1, 1)]).await {
        Restore::Restored { cancelled, .. } => assert_eq!(cancelled, [(1, 1)]),
        other => panic!("{other:?}"),
    }
    let again = bed.presence.cancel(&[(1, 1)]).await.unwrap();
    assert_eq!(again.states, [CancelState::HeldBy("a".into())]);
}

pub(crate) async fn a_restart_with_its_data_changes_the_epoch(bed: &Bed) {
    let old = bed.register("a").await;
    assert_eq!(bed.claim("a", (1, 1), old).await, Claim::Granted);
    bed.restart_keeping_data().await;
    // The very first command after the restart, on a connection that was open before it.
    let fresh = bed.claim("a", (2, 1), old).await;
    let Claim::WrongEpoch { now } = fresh else {
        panic!("claimed under an epoch that was lost: {fresh:?}");
    };
    assert_ne!(now, old);
    assert_eq!(bed.presence.epoch().await.unwrap(), now);
    assert!(
        listed(bed).await.is_empty(),
        "a lease of the old epoch is not a lease"
    );
    assert_eq!(bed.claim("a", (3, 1), now).await, Claim::NoLease);
    assert_eq!(
        bed.claim("a", (1, 1), old).await,
        Claim::AlreadyClaimed { by: "a".into() }
    );
    bed.restart_keeping_data().await;
    assert_ne!(bed.presence.epoch().await.unwrap(), now);
}

pub(crate) async fn a_worker_restores_after_a_restart(bed: &Bed) {
    let old = bed.register("a").await;
    bed.claim("a", (1, 1), old).await;
    bed.claim("a", (2, 1), old).await;
    let before = seq(&renew(bed, "a", old).await);
    bed.restart_keeping_data().await;
    let Renewal::EpochChanged { now } = renew(bed, "a", old).await else {
        panic!("the restart went unnoticed");
    };
    assert_eq!(renew(bed, "a", now).await, Renewal::Unknown);
    // (2, 1) ended meanwhile: only what is still held comes back.
    bed.presence.release("a", &[(2, 1)]).await.unwrap();
    match restore(bed, "a", now, &[(1, 1)]).await {
        Restore::Restored { seq, refused, .. } => {
            assert!(seq > before);
            assert!(refused.is_empty());
        }
        other => panic!("{other:?}"),
    }
    bed.presence.cancel(&[(1, 1), (2, 1)]).await.unwrap();
    match renew(bed, "a", now).await {
        Renewal::Renewed { cancelled, .. } => assert_eq!(cancelled, [(1, 1)]),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn revocations_survive_a_restart_with_data(bed: &Bed) {
    bed.register("a").await;
    bed.presence.revoke("a").await.unwrap();
    bed.restart_keeping_data().await;
    let now = bed.presence.epoch().await.unwrap();
    assert_eq!(restore(bed, "a", now, &[]).await, Restore::Revoked);
}
