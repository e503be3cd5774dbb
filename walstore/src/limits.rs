//! Every bound of the log, with its reason.

use std::time::Duration;

/// LSNs, slots and versions that the bucket names are below this: no log and no database gets so far, and counting on
/// from there cannot overflow.
pub const COUNTER_MAX: u64 = 1 << 62;

/// Clocks that are further apart than this do not tell the same time.
pub const CLOCKS_APART_MICROS_MAX: u64 = 5 * 60 * 1_000_000;

/// A clock that has jumped and then goes its way for so long is not about to jump back.
pub const CLOCK_STEADY_MICROS: u64 = 60 * 60 * 1_000_000;

/// Decompressors that are kept for the next one who needs one: as many as there are threads that decompress at the same
/// time, on most machines. Each takes about 160 KB.
pub const DECOMPRESSORS_IDLE_MAX: usize = 8;

/// PUTs of one log that may be in flight at the same time. Eight of them, a quarter of a round trip apart,
/// keep a slow store busy without flooding it when it recovers.
pub const PUTS_IN_FLIGHT_MAX: usize = 8;

/// So many commits waiting at the same time are a crowd: then fewer, fuller PUTs are worth more than the
/// last quarter of latency.
pub const CROWD_COMMITS_MIN: usize = 16;

/// What a database may add to a batch in one turn, when more waits than fits: a few one-row commits.
pub const TURN_BYTES: usize = 2 << 10;

/// What one database may send for long. At 28 ms per PUT that is less than half of what the PUTs in flight carry,
/// so a flooding database leaves room for the others, and a backlog as large as a node allows is through before
/// its clients give up.
pub const DATABASE_BYTES_PER_SECOND: u64 = 16 << 20;

/// What it may send at once before that counts.
pub const DATABASE_BURST_BYTES: usize = 64 << 20;

/// No commit makes those behind it wait longer for the bucket to fill.
pub const DATABASE_DEBT_MICROS_MAX: u64 = 1_000_000;

/// One in so many PUTs (or GETs of pages) may be hedged, that is 10 %. Only 5 % are beyond the 95th percentile, but they
/// do not come evenly; and a PUT for which no hedge is left holds up all that come behind it, since acknowledgements keep
/// the order of slots.
pub const HEDGE_ONE_IN: u32 = 10;

/// So many hedges may be saved up, as many as PUTs are in flight: a store that is slow for everybody is asked twice once,
/// and not again and again.
pub const HEDGES_SAVED_MAX: u32 = 8;

/// Requests that are looked at to tell which one is slow.
pub const HEDGE_SAMPLES: usize = 64;

/// A store is fast if its 95th percentile is below this.
pub const HEDGE_FAST_MICROS: u32 = 20_000;

/// No hedge before, if it is: there a request of some 20 ms is slow because of this machine and not of the store, and
/// a second one would be as well.
pub const HEDGE_FAST_AFTER_MICROS: u32 = 100_000;

/// No hedge for more bytes than this: their size is what takes time.
pub const HEDGE_BYTES_MAX: usize = 1 << 20;

/// A batch closes at this size: larger PUTs take measurably longer on standard S3.
pub const FRAGMENT_BYTES_TARGET: usize = 128 << 10;

/// A larger commit travels in a side object of its own, so that it holds no batch up.
pub const INLINE_COMMIT_BYTES_MAX: usize = 1 << 20;

/// So much of a side object is hashed, copied and summed before other tasks have their turn: under a millisecond.
pub const SIDE_PIECE_BYTES: usize = 512 << 10;

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

/// How long a store may refuse a log's slots for good, before the log is given up; a node sets its own bound.
pub const REFUSED_MAX: Duration = Duration::from_secs(40);

/// Slots that a sealer looks at in one round.
pub const SEAL_PROBE_SLOTS: u64 = 16;

/// The hint is renewed early when it lags this many slots behind: it bounds what a sealer has to probe.
pub const HINT_LAG_SLOTS_MAX: u64 = 64;

/// Deletions of dead slots that run at the same time.
pub const DELETES_IN_FLIGHT_MAX: usize = 16;

const _: () = assert!(PUTS_IN_FLIGHT_MAX as u64 <= SEAL_PROBE_SLOTS, "one probe round sees every PUT in flight");
const _: () = assert!(
    DATABASE_BYTES_PER_SECOND * 28 / 1000 * 2 <= (PUTS_IN_FLIGHT_MAX * FRAGMENT_BYTES_TARGET) as u64,
    "one database cannot fill the pipeline for long"
);
const _: () = assert!(TURN_BYTES * 32 * 2 == FRAGMENT_BYTES_TARGET, "the bound that log/queue.rs states");
/// Slots beyond the hint that a reader of an open log asks for at once: as many as may be in flight.
pub const OPEN_PROBES: u64 = 8;

const _: () = assert!(FRAGMENT_BYTES_TARGET <= HEDGE_BYTES_MAX, "a batch of small commits may be hedged");
const _: () = assert!(FRAGMENT_BYTES_MAX < u32::MAX as usize, "offsets in a fragment are u32");
const _: () = assert!(BUNDLES_MAX * crate::bundle::REFERENCE_BYTES < RECORD_BYTES_MAX / 2, "references fit the record");
const _: () = assert!(BUNDLE_BYTES_TARGET + FRAGMENT_BYTES_MAX < u32::MAX as usize, "offsets in a bundle are u32");
const _: () = assert!(INLINE_COMMIT_BYTES_MAX > FRAGMENT_BYTES_TARGET, "a side object is worth a PUT of its own");
