//! Claims.

use std::sync::Arc;

use gristmill_presence::{CancelState, Claim, ClaimRequest, Renewal, WorkerStatus};

use crate::support::Bed;

async fn told(bed: &Bed, incarnation: &str, epoch: i64) -> Vec<(i64, i64)> {
    let status = WorkerStatus::default();
    match bed
        .presence
        .renew(incarnation, epoch, &status)
        .await
        .unwrap()
    {
        Renewal::Renewed { cancelled, .. } => cancelled,
        other => panic!("{other:?}"),
    }
}

fn by(incarnation: &str) -> Claim {
    Claim::AlreadyClaimed {
        by: incarnation.into(),
    }
}

pub(crate) async fn of_a_hundred_racing_claims_one_is_granted(bed: &Bed) {
    let mut epoch = 0;
    for racer in 0..10 {
        epoch = bed.register(&format!("w{racer}")).await;
    }
    let request = bed.request((1, 1), epoch).await;
    let mut races = tokio::task::JoinSet::new();
    for racer in 0..100 {
        let presence = Arc::clone(&bed.presence);
        let incarnation = format!("w{}", racer % 10);
        races.spawn(async move {
            let claims = presence.claim(&incarnation, &[request]).await.unwrap();
            (incarnation, claims[0].clone())
        });
    }
    let (winners, losers): (Vec<_>, Vec<_>) = races
        .join_all()
        .await
        .into_iter()
        .partition(|(_, claim)| *claim == Claim::Granted);
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert!(losers.iter().all(|(_, claim)| *claim == by(&winners[0].0)));
}

pub(crate) async fn a_batch_is_answered_in_order(bed: &Bed) {
    let epoch = bed.register("a").await;
    bed.claim("a", (2, 1), epoch).await;
    bed.presence.cancel(&[(4, 1)]).await.unwrap();
    let good = bed.request((1, 1), epoch).await;
    let claims = bed
        .presence
        .claim(
            "a",
            &[
                good,
                ClaimRequest { ti: 2, ..good },
                ClaimRequest {
                    ti: 3,
                    claim_by_ms: 1,
                    ..good
                },
                ClaimRequest { ti: 4, ..good },
                ClaimRequest {
                    ti: 5,
                    epoch: 1,
                    ..good
                },
                ClaimRequest { ti: 6, ..good },
            ],
        )
        .await
        .unwrap();
    assert_eq!(
        claims,
        [
            Claim::Granted,
            by("a"),
            Claim::Late,
            Claim::Cancelled,
            Claim::WrongEpoch { now: epoch },
            Claim::Granted
        ]
    );
    assert!(bed.presence.claim("a", &[]).await.unwrap().is_empty());
}

pub(crate) async fn a_dispatch_twice_in_a_batch_is_granted_once(bed: &Bed) {
    let epoch = bed.register("a").await;
    let request = bed.request((1, 1), epoch).await;
    let claims = bed.presence.claim("a", &[request, request]).await.unwrap();
    assert_eq!(claims, [Claim::Granted, by("a")]);
}

pub(crate) async fn late_claims_are_refused(bed: &Bed) {
    let epoch = bed.register("a").await;
    let request = bed.request((1, 1), epoch).await;
    let late = ClaimRequest {
        claim_by_ms: bed.time_ms().await - 1,
        ..request
    };
    assert_eq!(
        bed.presence.claim("a", &[late]).await.unwrap(),
        [Claim::Late]
    );
    // The refusal left nothing behind.
    assert_eq!(bed.claim("a", (1, 1), epoch).await, Claim::Granted);
}

pub(crate) async fn claims_of_another_epoch_are_refused(bed: &Bed) {
    let epoch = bed.register("a").await;
    for other in [epoch ^ 1, 0, -1, i64::MAX ^ epoch] {
        assert_eq!(
            bed.claim("a", (1, 1), other).await,
            Claim::WrongEpoch { now: epoch }
        );
    }
    let holders = bed.presence.holders(&[(1, 1)]).await.unwrap();
    assert_eq!(holders.holders, [None]);
}

pub(crate) async fn claims_without_a_lease_are_refused(bed: &Bed) {
    let epoch = bed.presence.epoch().await.unwrap();
    assert_eq!(bed.claim("nobody", (1, 1), epoch).await, Claim::NoLease);
    bed.register("a").await;
    assert_eq!(bed.claim("a", (1, 1), epoch).await, Claim::Granted);
}

pub(crate) async fn a_record_is_reported_before_any_other_refusal(bed: &Bed) {
    let epoch = bed.register("a").await;
    bed.claim("a", (1, 1), epoch).await;
    let late_and_wrong = ClaimRequest {
        ti: 1,
        fence: 1,
        epoch: epoch ^ 1,
        claim_by_ms: 0,
    };
    for who in ["a", "nobody"] {
        let claims = bed.presence.claim(who, &[late_and_wrong]).await.unwrap();
        assert_eq!(claims, [by("a")]);
    }
}

pub(crate) async fn a_cancelled_dispatch_is_never_claimed(bed: &Bed) {
    let epoch = bed.register("a").await;
    for _ in 0..2 {
        let cancels = bed.presence.cancel(&[(1, 1)]).await.unwrap();
        assert_eq!(cancels.epoch, epoch);
        assert_eq!(cancels.states, [CancelState::NotClaimed]);
    }
    assert_eq!(bed.claim("a", (1, 1), epoch).await, Claim::Cancelled);
    let holders = bed.presence.holders(&[(1, 1)]).await.unwrap();
    assert_eq!(holders.holders, [None]);
    assert_eq!(bed.claim("a", (1, 2), epoch).await, Claim::Granted);
}

pub(crate) async fn a_cancelled_holder_is_told_until_it_releases(bed: &Bed) {
    let epoch = bed.register("a").await;
    bed.register("b").await;
    bed.claim("a", (1, 1), epoch).await;
    bed.claim("a", (2, 1), epoch).await;
    let cancels = bed.presence.cancel(&[(1, 1), (9, 9)]).await.unwrap();
    assert_eq!(
        cancels.states,
        [CancelState::HeldBy("a".into()), CancelState::NotClaimed]
    );
    assert_eq!(told(bed, "a", epoch).await, [(1, 1)]);
    assert_eq!(
        told(bed, "a", epoch).await,
        [(1, 1)],
        "an answer may get lost"
    );
    assert!(told(bed, "b", epoch).await.is_empty());
    let holders = bed.presence.holders(&[(1, 1), (2, 1)]).await.unwrap();
    let cancelled: Vec<_> = holders
        .holders
        .into_iter()
        .map(|holder| holder.unwrap().cancelled)
        .collect();
    assert_eq!(cancelled, [true, false]);
    assert_eq!(
        bed.claim("b", (1, 1), epoch).await,
        by("a"),
        "a cancel frees nothing"
    );
    bed.presence.release("a", &[(1, 1)]).await.unwrap();
    assert!(told(bed, "a", epoch).await.is_empty());
}

pub(crate) async fn a_released_claim_refuses_its_redelivery(bed: &Bed) {
    let epoch = bed.register("a").await;
    bed.register("b").await;
    bed.claim("a", (1, 1), epoch).await;
    bed.presence.release("a", &[(1, 1)]).await.unwrap();
    bed.presence.release("a", &[(1, 1)]).await.unwrap();
    assert_eq!(bed.claim("b", (1, 1), epoch).await, by("a"));
    assert_eq!(bed.claim("a", (1, 1), epoch).await, by("a"));
    let holder = bed.presence.holders(&[(1, 1)]).await.unwrap().holders;
    assert!(holder[0].as_ref().unwrap().released);
    let cancels = bed.presence.cancel(&[(1, 1)]).await.unwrap();
    assert_eq!(cancels.states, [CancelState::Released]);
    assert!(told(bed, "a", epoch).await.is_empty());
}

pub(crate) async fn only_the_holder_releases(bed: &Bed) {
    let epoch = bed.register("a").await;
    bed.register("b").await;
    bed.claim("a", (1, 1), epoch).await;
    bed.presence.release("b", &[(1, 1), (7, 7)]).await.unwrap();
    let held = bed.presence.holders(&[(1, 1), (7, 7)]).await.unwrap();
    assert!(!held.holders[0].as_ref().unwrap().released);
    assert_eq!(held.holders[1], None);
    // A cancel mark is no claim: releasing does not lift it.
    bed.presence.cancel(&[(8, 8)]).await.unwrap();
    bed.presence.release("a", &[(8, 8)]).await.unwrap();
    assert_eq!(bed.claim("a", (8, 8), epoch).await, Claim::Cancelled);
}

pub(crate) async fn each_fence_is_a_claim_of_its_own(bed: &Bed) {
    let epoch = bed.register("a").await;
    bed.register("b").await;
    assert_eq!(bed.claim("a", (1, 23), epoch).await, Claim::Granted);
    assert_eq!(bed.claim("b", (1, 24), epoch).await, Claim::Granted);
    assert_eq!(bed.claim("b", (12, 3), epoch).await, Claim::Granted);
    let big = (i64::MAX, i64::MAX - 1);
    assert_eq!(bed.claim("b", big, epoch).await, Claim::Granted);
    assert_eq!(
        bed.claim("b", (i64::MAX - 1, i64::MAX), epoch).await,
        Claim::Granted
    );
    bed.presence.cancel(&[big]).await.unwrap();
    assert_eq!(told(bed, "b", epoch).await, [big]);
}

pub(crate) async fn after_a_flush_old_messages_are_refused(bed: &Bed) {
    let old = bed.register("a").await;
    bed.claim("a", (1, 1), old).await;
    bed.flush().await;
    let now = bed.register("b").await;
    assert_eq!(bed.claim("b", (1, 1), old).await, Claim::WrongEpoch { now });
    assert_eq!(bed.claim("b", (1, 2), now).await, Claim::Granted);
}

pub(crate) async fn what_nobody_holds_is_sealed(bed: &Bed) {
    let epoch = bed.register("a").await;
    assert_eq!(bed.claim("a", (1, 1), epoch).await, Claim::Granted);
    for _ in 0..2 {
        let sealed = bed.presence.seal(&[(1, 1), (2, 1)]).await.unwrap();
        assert_eq!(sealed.epoch, epoch);
        let holder = sealed.holders[0].as_ref().unwrap();
        assert_eq!(
            (holder.incarnation.as_str(), holder.cancelled),
            ("a", false)
        );
        assert_eq!(sealed.holders[1], None);
    }
    assert_eq!(bed.claim("a", (2, 1), epoch).await, Claim::Cancelled);
    assert_eq!(bed.claim("a", (2, 2), epoch).await, Claim::Granted);
    assert!(
        told(bed, "a", epoch).await.is_empty(),
        "what is held goes on"
    );
}
