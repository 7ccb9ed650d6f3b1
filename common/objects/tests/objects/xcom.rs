//! Large XCom values.

use bytes::Bytes;
use gristmill_objects::{ObjectError, xcom};

use crate::support::beds;

#[tokio::test]
async fn a_value_is_read_back_by_its_reference() {
    for bed in beds() {
        let value = Bytes::from(vec![b'v'; 2 << 20]);
        let reference = xcom::put(&bed.store, 1, 2, 3, "return value/é", value.clone())
            .await
            .unwrap();
        assert_eq!(reference.size, 2 << 20);
        assert!(reference.key.starts_with("xcoms/run=1/ti=2/fence=3/"));
        assert_eq!(xcom::get(&bed.store, &reference).await.unwrap(), value);
        bed.store
            .put(&reference.key, Bytes::from_static(b"other"))
            .await
            .unwrap();
        let error = xcom::get(&bed.store, &reference).await.unwrap_err();
        assert!(matches!(error, ObjectError::Corrupt { .. }), "{error}");
        let run = xcom::run_prefix(1);
        assert_eq!(bed.store.delete_prefix(&run).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_value_above_the_limit_is_refused() {
    for bed in beds() {
        let value = Bytes::from(vec![0; xcom::MAX_BYTES as usize + 1]);
        let error = xcom::put(&bed.store, 1, 2, 3, "k", value)
            .await
            .unwrap_err();
        assert!(matches!(error, ObjectError::TooLarge { .. }), "{error}");
    }
}
