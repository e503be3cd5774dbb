//! The limits of the stores.

use std::time::Duration;

/// Keys in one answer to a listing: what S3 gives at most.
pub const LIST_MAX: usize = 1000;

/// Bytes of one object: what S3 takes in a single-part PUT.
pub const OBJECT_BYTES_MAX: u64 = 5 << 30;

/// How long one request to an S3 store may take, on top of the time for its bytes.
///
/// Longer than any healthy request by far, and short enough that a write whose connection died is retried
/// while its lease still has a life.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection to an S3 store may take to open.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The slowest transfer that still counts as one: a body adds a second per so many bytes to its time-out.
pub const TRANSFER_BYTES_PER_SECOND_MIN: u64 = 1 << 20;

/// How long an unused connection is kept. Some stores drop theirs after 20 s, and a write that is sent
/// into a dropped connection has an unknown outcome.
pub const IDLE_CONNECTION: Duration = Duration::from_secs(18);

/// Unused connections that are kept: more than the PUTs and GETs of a burst.
pub const IDLE_CONNECTIONS_MAX: usize = 256;

/// Locks of a directory store, over which its keys are spread.
pub const DIRECTORY_LOCKS: u8 = 64;

/// Directories of which a directory store remembers that they are durable (about 100 bytes each). Beyond
/// it starts anew, and syncs each once more.
pub const DURABLE_DIRECTORIES_MAX: usize = 16 * 1024;

/// Writers that race for one object in the probe.
pub const PROBE_RACERS: usize = 32;

/// Tries of one request of the probe before it gives up on a store that answers "not now".
pub const PROBE_TRIES: u32 = 6;

const _: () =
    assert!(CONNECT_TIMEOUT.as_secs() < ATTEMPT_TIMEOUT.as_secs(), "or opening hides the rest");
