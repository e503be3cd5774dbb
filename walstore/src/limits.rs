//! Every bound of the log, with its reason.

/// PUTs of one log that may be in flight at the same time. Eight of them, a quarter of a round trip apart,
/// keep a slow store busy without flooding it when it recovers.
pub const PUTS_IN_FLIGHT_MAX: usize = 8;

/// So many commits waiting at the same time are a crowd: then fewer, fuller PUTs are worth more than the
/// last quarter of latency.
pub const CROWD_COMMITS_MIN: usize = 16;

/// A batch closes at this size: larger PUTs take measurably longer on standard S3.
pub const FRAGMENT_BYTES_TARGET: usize = 128 << 10;

/// A larger commit travels in a side object of its own, so that it holds no batch up.
pub const INLINE_COMMIT_BYTES_MAX: usize = 1 << 20;

/// One encoded commit. A fragment always takes at least one commit, whatever its size.
pub const COMMIT_BYTES_MAX: usize = 256 << 20;

/// No fragment is larger: the target, overshot by one largest commit, and its directory.
pub const FRAGMENT_BYTES_MAX: usize = COMMIT_BYTES_MAX + FRAGMENT_BYTES_TARGET + (1 << 20);

/// Small records: incarnation, cluster, markers, tombstones.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// A bundle is closed at this size: what a bundler holds in memory, a few times over.
pub const BUNDLE_BYTES_TARGET: usize = 32 << 20;

/// A block of a bundle is closed at this size: what the recovery of one small database reads.
pub const BLOCK_BYTES_TARGET: usize = 256 << 10;

/// Blocks of one sealed log that a reader keeps: databases are often recovered in order of their ids.
pub const BLOCKS_HELD_MAX: usize = 4;

/// Bundles of one log. More than this of unfolded commits no node leaves behind.
pub const BUNDLES_MAX: usize = 4096;

/// Rounds of reading a sealed log again because it was bundled or drained under the reader.
pub const RECOVERY_ROUNDS_MAX: usize = 8;

/// Slots below the first `low` that a drainer sees, which it deletes once more: the node may have died between
/// raising `low` and deleting.
pub const SLOTS_SWEPT_BELOW_LOW: u64 = 2048;

/// Requests that recovery keeps in flight.
pub const RECOVERY_GETS_MAX: usize = 128;

/// Side objects that the recovery of one database reads at the same time: each may be as large as a commit.
pub const SIDE_GETS_MAX: usize = 4;

/// Slots that a sealer looks at in one round.
pub const SEAL_PROBE_SLOTS: u64 = 16;

/// The hint is renewed early when it lags this many slots behind: it bounds what a sealer has to probe.
pub const HINT_LAG_SLOTS_MAX: u64 = 64;

/// Deletions of dead slots that run at the same time.
pub const DELETES_IN_FLIGHT_MAX: usize = 16;

const _: () = assert!(PUTS_IN_FLIGHT_MAX as u64 <= SEAL_PROBE_SLOTS, "one probe round sees every PUT in flight");
const _: () = assert!(FRAGMENT_BYTES_MAX < u32::MAX as usize, "offsets in a fragment are u32");
const _: () = assert!(BUNDLES_MAX * crate::bundle::REFERENCE_BYTES < RECORD_BYTES_MAX / 2, "references fit the record");
const _: () = assert!(BUNDLE_BYTES_TARGET + FRAGMENT_BYTES_MAX < u32::MAX as usize, "offsets in a bundle are u32");
const _: () = assert!(INLINE_COMMIT_BYTES_MAX > FRAGMENT_BYTES_TARGET, "a side object is worth a PUT of its own");
