//! Users' ids as parts of keys.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// Longest encoded segment, in bytes. File systems take 255; prefixes such as `run_id=` come on top.
const MAX_SEGMENT: usize = 200;

/// Percent-encodes an id so that it is one path segment on every store: letters, digits, `_`, `-`, `~` and `.` stay. An
/// id whose encoding is longer than 200 bytes keeps its beginning and gets a digest for the rest, so two ids never
/// share a segment.
pub fn encode_segment(id: &str) -> String {
    let mut encoded = String::with_capacity(id.len());
    for byte in id.bytes() {
        let stays = byte.is_ascii_alphanumeric() || b"_-~.".contains(&byte);
        // "." and ".." mean something to a file system.
        if stays && !(byte == b'.' && matches!(id, "." | "..")) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    if encoded.len() > MAX_SEGMENT {
        let digest = hex::encode(&Sha256::digest(id)[..16]);
        encoded.truncate(MAX_SEGMENT - digest.len() - 1);
        // A bare % can never come out of the loop above.
        encoded.truncate(encoded.trim_end_matches('%').len());
        encoded = format!("{encoded}%{digest}");
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_one_segment() {
        assert_eq!(encode_segment("daily_sales-1.v~2"), "daily_sales-1.v~2");
        assert_eq!(
            encode_segment("manual__2026-01-01T00:00:00+00:00"),
            "manual__2026-01-01T00%3A00%3A00%2B00%3A00"
        );
        assert_eq!(encode_segment("../a/b"), "..%2Fa%2Fb");
        assert_eq!(encode_segment(".."), "%2E%2E");
        assert_eq!(encode_segment("ü"), "%C3%BC");
    }

    #[test]
    fn long_ids_stay_apart_and_fit_a_file_name() {
        let a = encode_segment(&("x".repeat(250) + "a"));
        let b = encode_segment(&("x".repeat(250) + "b"));
        assert_ne!(a, b);
        assert!(a.len() <= MAX_SEGMENT && b.len() <= MAX_SEGMENT);
        assert!(encode_segment(&":".repeat(250)).len() <= MAX_SEGMENT);
    }
}
