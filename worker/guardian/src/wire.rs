//! The encoding between worker, guardian and shims: frames of a little-endian u32 length and that many bytes.
//!
//! Both sides are the same binary, so there is no version: a tag byte and the fields in order.

use std::ffi::CString;

/// The largest frame: argv and environment at their limits (see `SpawnRequest`) fit in.
pub(crate) const MAX_FRAME: usize = 8 * 1024 * 1024;

/// What is wrong with received bytes; both sides then give the connection up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("a message of {0} bytes is above the limit of {MAX_FRAME} bytes")]
    TooLong(usize),
    #[error("a message ends in the middle of a field")]
    Truncated,
    #[error("{what} has no value {value}")]
    Unknown { what: &'static str, value: u8 },
    #[error("a string contains a NUL byte or is not UTF-8")]
    BadString,
    #[error("a message came with fewer descriptors than it names")]
    MissingDescriptor,
}

/// Builds one frame.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(tag: u8) -> Self {
        Writer(vec![0, 0, 0, 0, tag])
    }

    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn bytes(mut self, value: &[u8]) -> Self {
        self.0
            .extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn list<T>(self, items: &[T], each: impl FnMut(Self, &T) -> Self) -> Self {
        let start = self.u32(items.len() as u32);
        items.iter().fold(start, each)
    }

    /// Absent is 0 and present is the value + 1, so the largest u64 is not representable (no limit is that large).
    pub(crate) fn optional(self, value: Option<u64>) -> Self {
        self.u64(value.map_or(0, |value| value.saturating_add(1)))
    }

    /// The frame with its length in front.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let length = (self.0.len() - 4) as u32;
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self.0
    }
}

/// Reads the fields of one frame.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        self.take(4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from(self.u32()?) | u64::from(self.u32()?) << 32)
    }

    pub(crate) fn optional(&mut self) -> Result<Option<u64>, WireError> {
        Ok(self.u64()?.checked_sub(1))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    pub(crate) fn text(&mut self) -> Result<String, WireError> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| WireError::BadString)
    }

    pub(crate) fn c_string(&mut self) -> Result<CString, WireError> {
        CString::new(self.bytes()?).map_err(|_| WireError::BadString)
    }

    pub(crate) fn list<T>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        (0..self.u32()?).map(|_| each(self)).collect()
    }
}

/// Cuts a byte stream into frames.
#[derive(Default)]
pub(crate) struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
}

/// Above this the buffer is given back after use, so that one large message does not stay with every later shim.
const KEEP: usize = 16 * 1024;

impl FrameBuffer {
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Decodes the next whole frame, if it is there.
    pub(crate) fn next<T>(
        &mut self,
        decode: impl FnOnce(&mut Reader<'_>) -> Result<T, WireError>,
    ) -> Result<Option<T>, WireError> {
        let Some((length, rest)) = self.bytes[self.start..].split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(WireError::TooLong(length));
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let value = decode(&mut Reader(body))?;
        self.start += 4 + length;
        if self.start == self.bytes.len() {
            self.start = 0;
            self.bytes.clear();
            self.bytes.shrink_to(KEEP);
        }
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let one = Writer::new(7)
            .u64(u64::MAX)
            .bytes(b"abc")
            .optional(None)
            .optional(Some(0))
            .finish();
        let stream = [one.clone(), one].concat();
        for cut in 0..stream.len() {
            let mut buffer = FrameBuffer::default();
            let mut seen = 0;
            for part in [&stream[..cut], &stream[cut..]] {
                buffer.extend(part);
                while let Some(fields) = buffer
                    .next(|r| {
                        Ok((
                            r.u8()?,
                            r.u64()?,
                            r.bytes()?.to_vec(),
                            r.optional()?,
                            r.optional()?,
                        ))
                    })
                    .expect("valid")
                {
                    assert_eq!(fields, (7, u64::MAX, b"abc".to_vec(), None, Some(0)));
                    seen += 1;
                }
            }
            assert_eq!(seen, 2, "cut at {cut}");
        }
    }

    #[test]
    fn lies_about_lengths_are_refused() {
        let mut buffer = FrameBuffer::default();
        buffer.extend(&[0xff; 8]);
        assert!(matches!(
            buffer.next(|_| Ok(())),
            Err(WireError::TooLong(_))
        ));
        let mut inner = Reader(&[200, 0, 0, 0, 1]);
        assert!(matches!(inner.bytes(), Err(WireError::Truncated)));
    }
}
