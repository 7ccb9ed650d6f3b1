//! The store itself.

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use gristmill_objects::{ObjectError, ObjectStore, encode_segment};

use crate::support::{beds, local};

async fn keys(store: &ObjectStore, prefix: &str) -> Vec<String> {
    let mut keys: Vec<_> = store
        .list(prefix)
        .map_ok(|meta| meta.key)
        .try_collect()
        .await
        .unwrap();
    keys.sort();
    keys
}

#[tokio::test]
async fn what_was_put_is_got() {
    for bed in beds() {
        let store = &bed.store;
        let key = format!("a/id={}/x.bin", encode_segment("50% ü/../:+#1"));
        store.put(&key, Bytes::from_static(b"one")).await.unwrap();
        store.put(&key, Bytes::from_static(b"hello")).await.unwrap();
        assert_eq!(store.get(&key).await.unwrap(), "hello");
        assert_eq!(store.get_range(&key, 1..3).await.unwrap(), "el");
        assert_eq!(store.get_range(&key, 3..99).await.unwrap(), "lo");
        assert_eq!(store.get_range(&key, 7..9).await.unwrap(), "");
        let meta = store.head(&key).await.unwrap().unwrap();
        assert_eq!((meta.key.as_str(), meta.size), (key.as_str(), 5));
        assert_eq!(keys(store, "a").await, std::slice::from_ref(&key));
        store.delete(&key).await.unwrap();
        store.delete(&key).await.unwrap();
        assert!(store.head(&key).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn what_is_missing_is_named() {
    for bed in beds() {
        let error = bed.store.get("no/such").await.unwrap_err();
        assert!(error.is_not_found());
        assert!(error.to_string().contains("no/such"), "{error}");
        let error = bed.store.get_range("no/such", 0..1).await.unwrap_err();
        assert!(error.is_not_found());
        let error = bed.store.stream_get("no/such").await.err().unwrap();
        assert!(error.is_not_found());
    }
}

#[tokio::test]
async fn of_many_puts_if_absent_one_wins() {
    for bed in beds() {
        let put = |n: usize| {
            let store = bed.store.clone();
            async move {
                let body = Bytes::from(n.to_string());
                store.put_if_absent("k", body).await.unwrap().then_some(n)
            }
        };
        let winners: Vec<_> = stream::iter(0..20)
            .map(put)
            .buffer_unordered(20)
            .filter_map(std::future::ready)
            .collect()
            .await;
        assert_eq!(winners.len(), 1);
        assert_eq!(bed.store.get("k").await.unwrap(), winners[0].to_string());
        assert_eq!(keys(&bed.store, "").await, ["k"]);
    }
}

#[tokio::test]
async fn streams_go_in_and_out() {
    for bed in beds() {
        // More than one part of a multipart upload.
        let piece = Bytes::from(vec![7; 1 << 20]);
        let pieces = stream::iter((0..20).map(|_| Ok::<_, String>(piece.clone())));
        let size = bed.store.stream_put("big", pieces).await.unwrap();
        assert_eq!(size, 20 << 20);
        let back: u64 = bed
            .store
            .stream_get("big")
            .await
            .unwrap()
            .map_ok(|piece| piece.len() as u64)
            .try_fold(0, |sum, n| async move { Ok(sum + n) })
            .await
            .unwrap();
        assert_eq!(back, size);
    }
}

#[tokio::test]
async fn a_stream_that_fails_leaves_nothing() {
    for bed in beds() {
        let pieces = stream::iter([Ok(Bytes::from_static(b"x")), Err("the source broke")]);
        let error = bed.store.stream_put("k", pieces).await.unwrap_err();
        assert!(error.to_string().contains("the source broke"), "{error}");
        assert!(keys(&bed.store, "").await.is_empty());
    }
}

#[tokio::test]
async fn prefixes_are_whole_segments() {
    for bed in beds() {
        let store = &bed.store;
        for key in ["a/b/1", "a/b/c/2", "a/bb/3", "z"] {
            store.put(key, Bytes::new()).await.unwrap();
        }
        assert_eq!(keys(store, "a/b").await, ["a/b/1", "a/b/c/2"]);
        assert!(keys(store, "a/x").await.is_empty());
        assert_eq!(store.delete_prefix("a/b").await.unwrap(), 2);
        assert_eq!(keys(store, "").await, ["a/bb/3", "z"]);
        assert_eq!(store.delete_prefix("a/b").await.unwrap(), 0);
        let error = store.delete_prefix("").await.unwrap_err();
        assert!(matches!(error, ObjectError::InvalidKey { .. }), "{error}");
        // A store goes on working where a folder was removed.
        store.put("a/b/1", Bytes::new()).await.unwrap();
    }
}

#[tokio::test]
async fn keys_cannot_leave_the_store() {
    for bed in beds() {
        for key in ["../x", "a/../../x", "/etc/x", "", "a//b", "a/", "a/./b"] {
            let error = bed.store.put(key, Bytes::new()).await.unwrap_err();
            assert!(
                matches!(error, ObjectError::InvalidKey { .. }),
                "{key}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn drafts_are_not_listed_and_do_not_stay() {
    let bed = local();
    bed.store.put("d/k", Bytes::new()).await.unwrap();
    let folder = bed.store.local_path("d/k").unwrap();
    let folder = folder.parent().unwrap();
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
    // What a crash between writing and renaming leaves.
    std::fs::write(folder.join("k#123"), "half").unwrap();
    assert_eq!(keys(&bed.store, "").await, ["d/k"]);
}

#[test]
fn urls_are_checked_and_credentials_kept_out() {
    for url in ["ftp://x/y", "nonsense", "s3://key:hunter2@bucket/p"] {
        let error = ObjectStore::from_url_with(url, []).unwrap_err();
        assert!(matches!(error, ObjectError::InvalidUrl { .. }), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let options = [
        ("aws_access_key_id".to_owned(), "id".to_owned()),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), "hunter2".to_owned()),
    ];
    let store = ObjectStore::from_url_with("s3://bucket/pre/fix/", options).unwrap();
    assert!(store.local_path("k").is_none());
    assert!(!format!("{store:?}").contains("hunter2"));
    let wrong = [("aws_nonsense".to_owned(), String::new())];
    assert!(ObjectStore::from_url_with("s3://bucket", wrong).is_err());
}
