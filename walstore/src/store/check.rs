//! What every store checks of a request before it does anything, so that all refuse the same ones.

use std::ops::Range;

use super::{Condition, ETag, Key, StoreError, StoreErrorKind};
use crate::store::limits::{LIST_MAX, OBJECT_BYTES_MAX};

impl ETag {
    /// The ETag that the stores of this crate give to `bytes`: half a BLAKE3 hash in quoted hex.
    ///
    /// Equal bytes have equal ETags, as on S3. So a CAS protects only bodies that never repeat.
    pub fn of_content(bytes: &[u8]) -> Self {
        let hash = blake3::hash(bytes).to_hex();
        Self(format!("\"{}\"", &hash[..32]))
    }

    /// Whether this looks like an ETag: something in double quotes.
    pub fn is_valid(&self) -> bool {
        let quoted = self.0.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        quoted.is_some_and(|tag| {
            !tag.is_empty() && tag.bytes().all(|b| b.is_ascii_graphic() && b != b'"')
        })
    }
}

/// HTTP cannot ask for an empty range, so no store answers one.
pub(super) fn range(key: &Key, range: &Range<u64>) -> Result<(), StoreError> {
    if range.start < range.end {
        return Ok(());
    }
    let message = format!("the byte range {}..{} is empty", range.start, range.end);
    Err(StoreError::new(StoreErrorKind::Invalid, key, message))
}

/// Clamps a checked range to the object's end.
pub(super) fn clamp(
    key: &Key,
    range: &Range<u64>,
    object_bytes: u64,
) -> Result<Range<u64>, StoreError> {
    if range.start < object_bytes {
        return Ok(range.start..range.end.min(object_bytes));
    }
    let message = format!(
        "the byte range {}..{} starts at or after the end of the object, which has {object_bytes} bytes",
        range.start, range.end
    );
    Err(StoreError::new(StoreErrorKind::Corrupt, key, message))
}

/// An ETag that no store can have written would be a mismatch for ever: a bug of the caller, not a conflict.
pub(super) fn put(key: &Key, bytes: &[u8], condition: &Condition) -> Result<(), StoreError> {
    let message = match condition {
        Condition::Match(etag) if !etag.is_valid() => {
            format!("{:?} is not an ETag: it must be in double quotes", etag.0)
        }
        _ if bytes.len() as u64 > OBJECT_BYTES_MAX => {
            format!("{} bytes are more than the {OBJECT_BYTES_MAX} of one object", bytes.len())
        }
        _ => return Ok(()),
    };
    Err(StoreError::new(StoreErrorKind::Invalid, key, message))
}

pub(super) fn limit(prefix: &str, limit: usize) -> Result<(), StoreError> {
    if limit <= LIST_MAX {
        return Ok(());
    }
    let message =
        format!("a listing of {limit} keys was asked for: at most {LIST_MAX} fit one answer");
    Err(StoreError::new(StoreErrorKind::Invalid, prefix, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_of_content_is_quoted_and_depends_on_the_content_alone() {
        let etag = ETag::of_content(b"");
        // The first half of the published BLAKE3 hash of nothing.
        assert_eq!(etag.0, "\"af1349b9f5f9a1a6a0404dea36dcc949\"");
        assert!(etag.is_valid());
        assert_ne!(etag, ETag::of_content(b"shoal"));
    }

    #[test]
    fn an_etag_without_quotes_or_content_is_invalid() {
        for bad in ["", "\"", "\"\"", "abc", "\"a\"b\"", "\"a b\""] {
            assert!(!ETag(bad.into()).is_valid(), "{bad}");
        }
    }

    #[test]
    fn a_range_is_clamped_to_the_end_and_must_start_before_it() {
        let key = Key::new("k");
        assert_eq!(clamp(&key, &(3..99), 10).unwrap(), 3..10);
        assert_eq!(clamp(&key, &(3..4), 10).unwrap(), 3..4);
        assert_eq!(clamp(&key, &(10..11), 10).unwrap_err().kind, StoreErrorKind::Corrupt);
        assert_eq!(range(&key, &(4..4)).unwrap_err().kind, StoreErrorKind::Invalid);
    }
}
