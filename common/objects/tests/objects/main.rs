//! The object store on a folder and, if `GRISTMILL_TEST_S3_URL` names a bucket (with `AWS_*` beside it), on S3.

mod bundle;
mod logs;
mod store;
mod support;
mod xcom;
