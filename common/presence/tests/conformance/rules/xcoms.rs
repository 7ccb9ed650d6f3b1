//! XComs.

use std::time::Duration;

use bytes::Bytes;
use gristmill_presence::{MAX_XCOM_BYTES, PresenceError, XComKey};

use crate::support::Bed;

const TTL: Duration = Duration::from_secs(3600);

fn key(run: i64, ti: i64, fence: i64, name: &str) -> XComKey {
    XComKey {
        run,
        ti,
        fence,
        key: name.into(),
    }
}

async fn put(bed: &Bed, values: &[(XComKey, &'static str)]) {
    let values: Vec<_> = values
        .iter()
        .map(|(key, value)| (key.clone(), Bytes::from_static(value.as_bytes())))
        .collect();
    bed.presence.put_xcoms(&values, TTL).await.unwrap();
}

async fn get(bed: &Bed, keys: &[XComKey]) -> Vec<Option<Bytes>> {
    bed.presence.get_xcoms(keys).await.unwrap()
}

pub(crate) async fn values_are_read_back_in_order(bed: &Bed) {
    let (a, b) = (key(1, 1, 1, "return_value"), key(2, 5, 1, "a:b {c} ü"));
    put(bed, &[(a.clone(), "\"x\""), (b.clone(), "")]).await;
    let found = get(bed, &[b.clone(), key(1, 1, 1, "other"), a.clone()]).await;
    assert_eq!(
        found,
        [Some(Bytes::new()), None, Some(Bytes::from_static(b"\"x\""))]
    );
    put(bed, &[(a.clone(), "again")]).await;
    assert_eq!(get(bed, &[a]).await[0].as_deref(), Some(&b"again"[..]));
    assert!(get(bed, &[]).await.is_empty());
    bed.presence.put_xcoms(&[], TTL).await.unwrap();
}

pub(crate) async fn values_are_named_by_fence(bed: &Bed) {
    put(bed, &[(key(1, 1, 2, "k"), "new")]).await;
    put(bed, &[(key(1, 1, 1, "k"), "stale")]).await;
    let found = get(bed, &[key(1, 1, 2, "k"), key(1, 1, 3, "k")]).await;
    assert_eq!(found, [Some(Bytes::from_static(b"new")), None]);
}

pub(crate) async fn deleting_a_run_leaves_the_others(bed: &Bed) {
    // More than one round of the script takes.
    let many: Vec<_> = (0..1100)
        .map(|ti| (key(7, ti, 1, "k"), Bytes::from_static(b"v")))
        .collect();
    bed.presence.put_xcoms(&many, TTL).await.unwrap();
    put(bed, &[(key(6, 1, 1, "k"), "6"), (key(77, 1, 1, "k"), "77")]).await;
    bed.presence.delete_xcoms(7).await.unwrap();
    let keys: Vec<_> = many.into_iter().map(|(key, _)| key).collect();
    assert!(get(bed, &keys).await.iter().all(Option::is_none));
    let others = get(bed, &[key(6, 1, 1, "k"), key(77, 1, 1, "k")]).await;
    assert!(others.iter().all(Option::is_some));
}

pub(crate) async fn a_value_above_the_limit_is_refused(bed: &Bed) {
    let of = |size| Bytes::from(vec![b'x'; size]);
    let small = key(1, 1, 1, "small");
    let error = bed
        .presence
        .put_xcoms(
            &[
                (small.clone(), of(1)),
                (key(1, 1, 1, "big"), of(MAX_XCOM_BYTES + 1)),
            ],
            TTL,
        )
        .await
        .unwrap_err();
    assert!(matches!(error, PresenceError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("\"big\""), "{error}");
    assert_eq!(get(bed, &[small]).await, [None], "all or nothing");
    let largest = key(1, 1, 1, "largest");
    bed.presence
        .put_xcoms(&[(largest.clone(), of(MAX_XCOM_BYTES))], TTL)
        .await
        .unwrap();
    assert_eq!(
        get(bed, &[largest]).await[0].as_ref().map(Bytes::len),
        Some(MAX_XCOM_BYTES)
    );
}
