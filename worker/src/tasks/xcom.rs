//! XComs on their way out: small ones in the ending and in Redis, large ones in the object store.

use crate::run::Execution;
use bytes::Bytes;
use gristmill_common::{
    message::{MAX_INLINE_XCOM, MAX_XCOM, XcomOut},
    row::{RETURN_VALUE, XcomValue},
};
use gristmill_presence::XComKey;
use serde_json::Value;
use std::{path::Path, time::Duration};

/// How long Redis keeps a value; the durable copy stays with its run.
const IN_REDIS: Duration = Duration::from_secs(24 * 3600);

/// Puts a task's return value where its downstreams find it. An error fails the attempt.
pub(crate) async fn return_value(
    execution: &Execution,
    value: Value,
) -> Result<Vec<XcomOut>, String> {
    Ok(vec![put(execution, RETURN_VALUE, value).await?])
}

/// Puts a value where the task's downstreams find it. An error fails the attempt.
pub(crate) async fn put(
    execution: &Execution,
    name: &str,
    value: Value,
) -> Result<XcomOut, String> {
    let text = serde_json::to_vec(&value).map_err(|error| error.to_string())?;
    if text.len() > MAX_XCOM {
        return Err(format!(
            "the XCom is {} bytes, at most {MAX_XCOM} are allowed: write a file or object and return where it is",
            text.len()
        ));
    }
    let message = &execution.message;
    let (run, dispatch) = (message.run.pk.0, message.dispatch);
    let value = if text.len() <= MAX_INLINE_XCOM {
        let key = XComKey {
            run,
            ti: dispatch.ti.0,
            fence: dispatch.fence.0,
            key: name.to_owned(),
        };
        // Only the quick copy: without it the durable one is read.
        if let Err(error) = execution
            .worker
            .presence
            .put_xcoms(&[(key, Bytes::from(text))], IN_REDIS)
            .await
        {
            tracing::debug!(%error, "the XCom is not in Redis");
        }
        XcomValue::Inline(value)
    } else {
        let size = text.len() as u64;
        let objects = &execution.worker.objects;
        let stored = gristmill_objects::xcom::put(
            objects,
            run,
            dispatch.ti.0,
            dispatch.fence.0,
            name,
            Bytes::from(text),
        )
        .await
        .map_err(|error| format!("cannot keep the XCom of {size} bytes: {error}"))?;
        XcomValue::Object {
            key: stored.key,
            size,
        }
    };
    Ok(XcomOut {
        key: name.to_owned(),
        value,
    })
}

/// The value that a task wrote to `$GRISTMILL_XCOM`, if it wrote one.
pub(crate) async fn from_file(path: &Path) -> Result<Option<Value>, String> {
    // On this thread: the way to another takes longer than the look, and most tasks write no file.
    let size = match std::fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read $GRISTMILL_XCOM: {error}")),
    };
    if size > MAX_XCOM as u64 {
        return Err(format!(
            "$GRISTMILL_XCOM is {size} bytes, at most {MAX_XCOM} are allowed"
        ));
    }
    let text = tokio::fs::read(path)
        .await
        .map_err(|error| format!("cannot read $GRISTMILL_XCOM: {error}"))?;
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| format!("$GRISTMILL_XCOM is no JSON: {error}"))
}
