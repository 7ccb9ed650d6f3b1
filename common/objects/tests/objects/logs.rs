//! Logs: appended or in parts, readable at every moment.

use futures::stream::TryStreamExt;
use gristmill_objects::logs::{LogKey, LogReader, LogWriter, MAX_READ};
use uuid::Uuid;

use crate::support::{Bed, beds};

fn key() -> LogKey {
    LogKey {
        dag_id: "sales".into(),
        run_id: "manual__2026-01-01T00:00:00+00:00".into(),
        task_id: "group.task".into(),
        map_index: -1,
        try_number: 2,
        attempt: Uuid::nil(),
    }
}

/// Both ways of writing, on every store.
async fn writers(bed: &Bed, key: &LogKey) -> Vec<LogWriter> {
    let mut other = key.clone();
    other.try_number += 1;
    vec![
        LogWriter::open(&bed.store, key).await.unwrap(),
        LogWriter::open_parts(&bed.store, &other).await.unwrap(),
    ]
}

/// The keys of [`writers`].
fn of(key: &LogKey, writer: usize) -> LogKey {
    LogKey {
        try_number: key.try_number + writer as u32,
        ..key.clone()
    }
}

async fn read_all(bed: &Bed, key: &LogKey) -> Vec<u8> {
    let reader = LogReader::open(&bed.store, key).await.unwrap().unwrap();
    let pieces: Vec<_> = reader.stream(0).try_collect().await.unwrap();
    pieces.concat()
}

#[test]
fn the_key_scheme_stays() {
    assert_eq!(
        key().path(),
        "logs/dag_id=sales/run_id=manual__2026-01-01T00%3A00%3A00%2B00%3A00/task_id=group.task/map_index=-1/\
         attempt=2-00000000-0000-0000-0000-000000000000.jsonl"
    );
}

#[tokio::test]
async fn what_is_written_is_read() {
    for bed in beds() {
        for (n, mut writer) in writers(&bed, &key()).await.into_iter().enumerate() {
            let key = of(&key(), n);
            writer.write(b"{\"n\":1}\n").await.unwrap();
            writer.flush().await.unwrap();
            assert_eq!(read_all(&bed, &key).await, b"{\"n\":1}\n");
            let early = LogReader::open(&bed.store, &key).await.unwrap().unwrap();
            writer.write(b"{\"n\":2}\n").await.unwrap();
            writer.flush().await.unwrap();
            writer.write(b"{\"n\":3}\n").await.unwrap();
            assert_eq!(writer.finish().await.unwrap(), 24);
            assert_eq!(
                read_all(&bed, &key).await,
                b"{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n"
            );
            // Opened on parts that are gone by now.
            assert_eq!(early.read(5, 100).await.unwrap()[..3], *b"1}\n");
            let left: Vec<_> = bed
                .store
                .list(&(key.path() + ".parts"))
                .try_collect()
                .await
                .unwrap();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

#[tokio::test]
async fn a_dead_writer_leaves_what_it_had_and_can_be_continued() {
    for bed in beds() {
        for (n, mut writer) in writers(&bed, &key()).await.into_iter().enumerate() {
            let key = of(&key(), n);
            writer.write(b"one\n").await.unwrap();
            writer.flush().await.unwrap();
            drop(writer);
            assert_eq!(read_all(&bed, &key).await, b"one\n");
            let mut writer = match n {
                0 => LogWriter::open(&bed.store, &key).await.unwrap(),
                _ => LogWriter::open_parts(&bed.store, &key).await.unwrap(),
            };
            writer.write(b"two\n").await.unwrap();
            assert_eq!(writer.finish().await.unwrap(), 8);
            assert_eq!(read_all(&bed, &key).await, b"one\ntwo\n");
        }
    }
}

#[tokio::test]
async fn long_logs_are_read_by_ranges() {
    for bed in beds() {
        for (n, mut writer) in writers(&bed, &key()).await.into_iter().enumerate() {
            let key = of(&key(), n);
            let mut whole = Vec::new();
            // 5 MiB in lines of 100 bytes: several parts, and reads across their borders.
            for line in 0..52_429 {
                let line = format!("{line:099}\n");
                whole.extend_from_slice(line.as_bytes());
                writer.write(line.as_bytes()).await.unwrap();
            }
            writer.flush().await.unwrap();
            for finished in [false, true] {
                let reader = LogReader::open(&bed.store, &key).await.unwrap().unwrap();
                assert_eq!(reader.size(), whole.len() as u64);
                let across = reader.read(1_048_000, 3000).await.unwrap();
                assert_eq!(across, whole[1_048_000..1_051_000]);
                assert_eq!(reader.read(0, usize::MAX).await.unwrap().len(), MAX_READ);
                let (offset, tail) = reader.tail(250).await.unwrap();
                assert_eq!(tail, whole[whole.len() - 200..]);
                assert_eq!(offset, whole.len() as u64 - 200);
                let (_, exact) = reader.tail(300).await.unwrap();
                assert_eq!(exact.len(), 300, "a line that begins exactly there stays");
                assert!(reader.read(reader.size(), 10).await.unwrap().is_empty());
                assert!(read_all(&bed, &key).await == whole);
                if !finished {
                    let left = match n {
                        0 => LogWriter::open(&bed.store, &key).await.unwrap(),
                        _ => LogWriter::open_parts(&bed.store, &key).await.unwrap(),
                    };
                    left.finish().await.unwrap();
                }
            }
        }
    }
}

#[tokio::test]
async fn no_log_is_none() {
    for bed in beds() {
        assert!(LogReader::open(&bed.store, &key()).await.unwrap().is_none());
    }
}
