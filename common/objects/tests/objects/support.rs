//! The stores that the tests run on.

use gristmill_objects::ObjectStore;
use tempfile::TempDir;
use uuid::Uuid;

/// Names the S3 bucket, and a prefix in it, to test on: `s3://bucket/prefix`.
const S3_URL: &str = "GRISTMILL_TEST_S3_URL";

/// A fresh store. The folder goes when this does.
pub(crate) struct Bed {
    pub(crate) store: ObjectStore,
    _dir: Option<TempDir>,
}

pub(crate) fn local() -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/store", dir.path().display());
    Bed {
        store: ObjectStore::from_url(&url).unwrap(),
        _dir: Some(dir),
    }
}

/// One local store, and one in S3 if there is an S3 to test on.
pub(crate) fn beds() -> Vec<Bed> {
    let mut beds = vec![local()];
    if let Ok(url) = std::env::var(S3_URL) {
        let url = format!("{}/{}", url.trim_end_matches('/'), Uuid::new_v4());
        beds.push(Bed {
            store: ObjectStore::from_url(&url).unwrap(),
            _dir: None,
        });
    }
    beds
}
