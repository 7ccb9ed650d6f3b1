//! The object store of `GRISTMILL_STORE`: a folder (`file://`) or a bucket (`s3://`).
//!
//! [`ObjectStore`] is the store itself; [`artifacts`], [`bundle`], [`logs`] and [`xcom`] say what lies in it and under which keys:
//!
//! | Keys | Content | Written by |
//! |---|---|---|
//! | `bundles/<digest>.tar.zst` | a DAG folder, content-addressed | deploys; read by workers |
//! | `logs/dag_id=…/run_id=…/task_id=…/map_index=…/attempt=<try>-<uuid>.jsonl` | an attempt's whole log | the worker |
//! | `logs/….jsonl.parts/000001.part` | the same while it is being written to a store that cannot append | the worker |
//! | `xcoms/run=…/ti=…/fence=…/<key>` | an XCom value too large for the database | the worker |
//! | `artifacts/run=…/ti=…/fence=…/<name>` | a file that a task left | the worker |
//!
//! Everything under a key appears whole or not at all, local logs aside (they are appended to, so that a worker that dies leaves
//! what it had).

pub mod artifacts;
pub mod bundle;
mod encode;
mod error;
mod local;
pub mod logs;
mod store;
pub mod xcom;

pub use encode::encode_segment;
pub use error::ObjectError;
pub use store::{ByteStream, MAX_GET_BYTES, MetaStream, ObjectMeta, ObjectStore};
