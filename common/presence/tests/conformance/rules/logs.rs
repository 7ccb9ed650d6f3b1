//! Live log tails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill_presence::{LogChunk, LogCursor, MAX_LOG_CHUNK, PresenceError};
use uuid::Uuid;

use crate::support::Bed;

const LONG: Duration = Duration::from_secs(60);

async fn append(bed: &Bed, attempt: Uuid, seq: u64, text: &'static str) {
    bed.presence
        .append_log(attempt, seq, Bytes::from_static(text.as_bytes()))
        .await
        .unwrap();
}

async fn read(bed: &Bed, attempt: Uuid, after: LogCursor) -> LogChunk {
    bed.presence
        .read_log(attempt, after, Duration::ZERO)
        .await
        .unwrap()
}

/// A reader that waits for what comes after the cursor.
fn follow(bed: &Bed, attempt: Uuid, after: LogCursor) -> tokio::task::JoinHandle<LogChunk> {
    let presence = Arc::clone(&bed.presence);
    tokio::spawn(async move { presence.read_log(attempt, after, LONG).await.unwrap() })
}

pub(crate) async fn chunks_are_read_from_a_cursor(bed: &Bed) {
    let attempt = Uuid::new_v4();
    append(bed, attempt, 1, "one\n").await;
    append(bed, attempt, 2, "two\n").await;
    let first = read(bed, attempt, LogCursor::START).await;
    assert_eq!(first.bytes, "one\ntwo\n");
    assert_eq!(first.next, LogCursor(2));
    assert!(first.known && !first.ended && !first.truncated_before);
    append(bed, attempt, 3, "three\n").await;
    bed.presence.end_log(attempt).await.unwrap();
    let rest = read(bed, attempt, first.next).await;
    assert_eq!((rest.bytes, rest.ended), ("three\n".into(), true));
    let again = read(bed, attempt, rest.next).await;
    assert!(again.bytes.is_empty() && again.ended);
    assert_eq!(again.next, rest.next);
    let other = read(bed, Uuid::new_v4(), LogCursor::START).await;
    assert!(other.bytes.is_empty());
}

pub(crate) async fn a_repeated_chunk_is_ignored(bed: &Bed) {
    let attempt = Uuid::new_v4();
    append(bed, attempt, 1, "one\n").await;
    append(bed, attempt, 2, "two\n").await;
    append(bed, attempt, 1, "one\n").await;
    append(bed, attempt, 2, "two\n").await;
    let all = read(bed, attempt, LogCursor::START).await;
    assert_eq!(all.bytes, "one\ntwo\n");
}

pub(crate) async fn an_unknown_log_says_so(bed: &Bed) {
    let attempt = Uuid::new_v4();
    let nothing = read(bed, attempt, LogCursor(5)).await;
    assert!(!nothing.known && !nothing.ended);
    assert_eq!(nothing.next, LogCursor(5));
    bed.presence.end_log(attempt).await.unwrap();
    let ended = read(bed, attempt, LogCursor::START).await;
    assert!(ended.known && ended.ended && ended.bytes.is_empty());
}

pub(crate) async fn the_oldest_chunks_go_first(bed: &Bed) {
    let attempt = Uuid::new_v4();
    // 8 × 60 KiB into 256 KiB: four remain.
    for seq in 1..=8 {
        let chunk = Bytes::from(vec![b'0' + seq as u8; 60 * 1024]);
        bed.presence.append_log(attempt, seq, chunk).await.unwrap();
    }
    let tail = read(bed, attempt, LogCursor::START).await;
    assert!(tail.truncated_before);
    assert_eq!(tail.bytes.len(), 4 * 60 * 1024);
    assert_eq!((tail.bytes[0], tail.next), (b'5', LogCursor(8)));
    let near = read(bed, attempt, LogCursor(4)).await;
    assert!(!near.truncated_before);
}

pub(crate) async fn a_gap_is_reported(bed: &Bed) {
    let attempt = Uuid::new_v4();
    append(bed, attempt, 1, "one\n").await;
    append(bed, attempt, 4, "four\n").await;
    assert!(read(bed, attempt, LogCursor::START).await.truncated_before);
    assert!(read(bed, attempt, LogCursor(1)).await.truncated_before);
    assert!(!read(bed, attempt, LogCursor(3)).await.truncated_before);
}

pub(crate) async fn a_reader_is_woken_by_a_chunk(bed: &Bed) {
    let attempt = Uuid::new_v4();
    // Waits for a log that does not exist yet.
    let reader = follow(bed, attempt, LogCursor::START);
    tokio::task::yield_now().await;
    append(bed, attempt, 1, "one\n").await;
    let begun = Instant::now();
    let first = reader.await.unwrap();
    assert_eq!(first.bytes, "one\n");
    let reader = follow(bed, attempt, first.next);
    append(bed, attempt, 2, "two\n").await;
    assert_eq!(reader.await.unwrap().bytes, "two\n");
    assert!(begun.elapsed() < LONG / 2, "it was polled, not woken");
}

pub(crate) async fn a_reader_is_woken_by_the_end(bed: &Bed) {
    let attempt = Uuid::new_v4();
    append(bed, attempt, 1, "one\n").await;
    let reader = follow(bed, attempt, LogCursor(1));
    tokio::task::yield_now().await;
    bed.presence.end_log(attempt).await.unwrap();
    let end = tokio::time::timeout(LONG / 2, reader)
        .await
        .unwrap()
        .unwrap();
    assert!(end.ended && end.bytes.is_empty());
}

pub(crate) async fn a_wait_without_news_ends_empty(bed: &Bed) {
    let attempt = Uuid::new_v4();
    append(bed, attempt, 1, "one\n").await;
    let wait = Duration::from_millis(50);
    let begun = Instant::now();
    let nothing = bed
        .presence
        .read_log(attempt, LogCursor(1), wait)
        .await
        .unwrap();
    assert!(nothing.bytes.is_empty() && !nothing.ended && nothing.known);
    assert!(begun.elapsed() >= wait);
}

pub(crate) async fn nothing_is_appended_after_the_end(bed: &Bed) {
    let attempt = Uuid::new_v4();
    append(bed, attempt, 1, "one\n").await;
    bed.presence.end_log(attempt).await.unwrap();
    bed.presence.end_log(attempt).await.unwrap();
    append(bed, attempt, 2, "two\n").await;
    let all = read(bed, attempt, LogCursor::START).await;
    assert_eq!((all.bytes, all.ended), ("one\n".into(), true));
}

pub(crate) async fn bad_chunks_are_refused(bed: &Bed) {
    let attempt = Uuid::new_v4();
    let big = Bytes::from(vec![b'x'; MAX_LOG_CHUNK + 1]);
    let error = bed.presence.append_log(attempt, 1, big).await.unwrap_err();
    assert!(matches!(error, PresenceError::TooLarge { .. }), "{error}");
    let error = bed
        .presence
        .append_log(attempt, 0, Bytes::new())
        .await
        .unwrap_err();
    assert!(matches!(error, PresenceError::Invalid { .. }), "{error}");
}
