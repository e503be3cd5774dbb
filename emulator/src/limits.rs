//! Limits. Those of S3 are S3's own, so that a client which would break there breaks here as well.

/// The largest body of a single-part PUT: 5 GiB.
pub(crate) const BODY_BYTES_MAX: u64 = 5 << 30;

/// What is reserved up front for a body, whatever its `Content-Length` claims.
pub(crate) const BODY_RESERVED_BYTES_MAX: u64 = 64 << 20;

/// Keys (and common prefixes) on one page of a listing.
pub(crate) const LIST_PAGE_KEYS_MAX: usize = 1000;

/// Connections that the kernel queues until they are accepted: a benchmark opens them all at once.
pub(crate) const LISTEN_QUEUE: u32 = 1024;

const _: () = assert!(
    BODY_RESERVED_BYTES_MAX <= BODY_BYTES_MAX,
    "a reservation beyond the limit is never used"
);
