//! Every bound of pages at rest, with its reason. Those marked *format* bind readers; the others are
//! policy, and a later version may choose differently without a new format.

use std::time::Duration;

use crate::page::{PAGE_BYTES, SEGMENT_BYTES, SEGMENT_PAGES};

/// *Format.* SQLite's own bound on the size of a database.
pub const DATABASE_PAGES_MAX: u32 = u32::MAX - 1;

/// *Format.* Pages of one commit: 254 MiB of whole pages. A larger transaction is refused before it commits.
pub const COMMIT_PAGES_MAX: usize = 65_000;

/// A commit with more pages than these 2 MiB is encoded piece by piece, and compressed only if that halves it: it is
/// the memory that counts then, and not some bytes of a PUT.
pub const LARGE_COMMIT_PAGES: usize = 512;

/// *Format.* A commit's body before compression, when every page is whole.
pub const COMMIT_BODY_BYTES_MAX: usize = COMMIT_PAGES_MAX * (PAGE_BYTES + 6) + 8;

/// *Format.* Commit times beyond the year 36,000 are damage, and would leave no room for the next one.
pub const TIME_MICROS_MAX: u64 = 1 << 60;

/// How many versions of a page in a row may be patches: it bounds what a read of history has to collect.
pub const PATCHES_IN_A_ROW_MAX: u8 = 8;

/// A patch whose bytes exceed this is not clearly smaller than its page, which compresses too.
pub const PATCH_BYTES_MAX: usize = PAGE_BYTES / 2;

/// *Format.* One stored frame: its two bytes of header and, at worst, a whole segment as it is.
pub const FRAME_BYTES_MAX: usize = 2 + SEGMENT_BYTES;

/// *Format.* One pack. Offsets in it are 32 bits wide.
pub const PACK_BYTES_MAX: usize = 3 << 30;

/// *Format.* An encoded frame index, 12 bytes a segment.
pub const INDEX_BYTES_MAX: usize = 64 << 20;

/// Frame indexes up to this size are repeated in the page map, so that a small delta costs a cold reader no
/// request. It is some two hundred touched segments; those of all deltas together are a fifth of the map.
pub const INDEX_INLINE_BYTES_MAX: usize = 2 << 10;

/// *Format.* Deltas of one page map.
pub const DELTAS_MAX: usize = 16;

/// Folds merge when there are more deltas. Small folds may exceed it for a while: see [`crate::fold`].
pub const DELTAS_TARGET: usize = 8;

/// An absorbing fold leaves this many deltas, if that is cheap, so that not every fold absorbs.
pub const DELTAS_AFTER_ABSORB: usize = 5;

/// Pages in all deltas together before segments are merged, for databases over twice this size. Their
/// indexes are then about 200 KB, which a cold reader may have to fetch.
pub const DELTA_PAGES_MAX: u64 = 16_384;

/// Pages that one fold copies from older deltas: this many times what it writes anyway, between two bounds.
pub const ABSORB_FACTOR: u64 = 4;
pub const ABSORB_PAGES_MIN: u64 = 16;
pub const ABSORB_PAGES_MAX: u64 = 2048;

/// Segments that one fold merges: about as many as it has delta pages, up to 64 MiB of raw pages.
pub const MERGE_SEGMENTS_MAX: usize = 512;

/// Delta pages up to which a fold counts as small and merges one segment only. A one-row commit has that many:
/// page 1 and a leaf of the table and of an index or two.
pub const MERGE_SMALL_FOLD_PAGES: usize = 4;

/// Segments that a fold without commits merges.
pub const MERGE_SEGMENTS_IDLE: usize = 64;

/// Dead space, in percent of what is used, from which on a database that rests is compacted: with what a head and its
/// map take, a bucket then holds at most 1.3 times what is used.
pub const COMPACT_WASTE_PERCENT: u64 = 15;

/// Dead space of one pack, in percent of it, from which on compacting writes what is used of it anew.
pub const COMPACT_PACK_PERCENT: u64 = 10;

/// Segments that one step of compacting writes: 4 MiB of raw pages, which are in memory two or three times meanwhile.
pub const COMPACT_SEGMENTS_MAX: usize = 32;

/// Pages that one fold takes from the log: at least one largest commit always fits.
pub const FOLD_PAGES_MAX: usize = 98_304;

/// Pages of a pack that another process is asked to make, 96 MiB: a tail of 32 MiB and what a fold of it may merge and
/// absorb. Owners make larger ones themselves.
pub const ORDER_PAGES_MAX: usize = 24_576;

/// Pages of the tail, and commits to keep, that such an order takes along: as much as an overlay may hold.
pub const ORDER_TAIL_BYTES_MAX: usize = 32 << 20;

/// The same encoded: each page has its origin, and may be in a frame of its own.
pub const ORDER_BYTES_MAX: usize = ORDER_TAIL_BYTES_MAX + ORDER_PAGES_MAX * 64 + (1 << 10);

/// *Format.* Segments of one page map chunk: 128 MiB of database.
pub const CHUNK_SEGMENTS: u32 = 1024;

/// *Format.* A page map chunk, with every segment in a pack of its own.
pub const CHUNK_BYTES_MAX: usize = 128 << 10;

/// Page maps up to this size stand in the head as a whole; larger ones are chunks, of which a cold reader fetches one
/// before it can fetch a page. A database of 1 GiB has 8,192 segments of 10 bytes each, and, loaded at 1 MB a fold,
/// 1,024 packs of 48: 128 KiB. Folds of such a database write 1 MB of tail, so that is an eighth more; its chunks, of
/// which random writes change every one, would be as long, and a PUT each.
pub const MAP_INLINE_BYTES_MAX: usize = 160 << 10;

/// *Format.* The pack of a small database that stands in its head. An open database keeps it in memory, and every
/// write of its head carries it.
pub const IMAGE_BYTES_MAX: usize = 32 << 10;

/// A database that has moved to the bucket comes back into its head only below this, so that one at the limit does
/// not move with every fold.
pub const IMAGE_BACK_BYTES_MAX: usize = 20 << 10;

/// Pages of a database that a fold tries to get into the head: 1 MiB is compressed in some milliseconds, in vain if
/// it stays too large.
pub const IMAGE_PAGES_MAX: u32 = 256;

/// *Format.* Pages of a boot image: those of one frame.
pub const BOOT_PAGES_MAX: usize = SEGMENT_PAGES as usize;

/// *Format.* The frame of a boot image. Full interior pages compress to about 2 KB, and the two upper levels of a
/// table of 1 GB are three of them.
pub const BOOT_BYTES_MAX: usize = 16 << 10;

/// *Format.* A stored base, decompressed: what a head holds of its folded state.
pub const BASE_BYTES_MAX: usize = (2 << 20) + (64 << 10) + (1 << 10);

/// Commits since the last stored base weigh at most this, or a quarter of a larger database: whoever goes back to one of
/// them replays so much.
pub const HISTORY_BASE_BYTES_MIN: u64 = 256 << 10;

/// And they change at most so many pages, 16 MiB, or are of one fold: whoever goes back has these in memory. An owner folds
/// at half as much, so that a history that grows as fast as it can has a base for every other fold, which is about as long
/// as the head that each fold writes anyway.
pub const HISTORY_BASE_PAGES_MAX: u64 = 4096;

/// *Format.* Entries of the history's index that stand in the head.
pub const HISTORY_ENTRIES_MAX: usize = 256;

/// With more of them, all but the newest [`HISTORY_ENTRIES_KEPT`] go to a chunk. Every write of the head carries them, at
/// about 50 bytes each.
pub const HISTORY_ENTRIES_TARGET: usize = 128;
pub const HISTORY_ENTRIES_KEPT: usize = 32;

/// *Format.* Entries of one chunk of the history's index: what a fold that spills reads and writes anew, at most.
pub const HISTORY_CHUNK_ENTRIES_MAX: usize = 3072;

/// *Format.* Chunks of the history's index: three million folds, one a second for more than a month.
pub const HISTORY_CHUNKS_MAX: usize = 1024;

/// *Format.* A chunk of the history's index, decompressed.
pub const HISTORY_CHUNK_BYTES_MAX: usize = 256 << 10;

/// *Format.* Points of a database at which forks begin. Any number of forks may begin at one point.
pub const PINNED_BASES_MAX: usize = 4096;

/// *Format.* The index of a history, as far as it stands in the head.
pub const HISTORY_INDEX_BYTES_MAX: usize = 384 << 10;

/// A fold is due when the tail exceeds a quarter of the database, within these bounds (encoded bytes).
pub const FOLD_TAIL_BYTES_MIN: u64 = 64 << 10;
pub const FOLD_TAIL_BYTES_MAX: u64 = 1 << 20;

/// Regions of a disk cache up to the size at which they are as large as they get: so one is a small part of it.
pub const REGIONS_WANTED: u64 = 64;

/// A region of the disk cache: large enough for a disk to write it at full speed, and to have few of them.
pub const REGION_BYTES_MAX: u32 = 4 << 20;

/// A region holds two of the largest frames or chunks, with their headers.
pub const REGION_BYTES_MIN: u32 = 512 << 10;

/// One to fill, one to go, and two to read.
pub const REGIONS_MIN: u32 = 4;

/// 64 TiB.
pub const REGIONS_MAX: u32 = 1 << 24;

/// What the disk cache gathers in memory before it writes.
pub const BATCH_BYTES: usize = 1 << 20;

/// With fewer regions only one is kept empty.
pub const REGIONS_FEW: u32 = 8;

/// Bytes of memory that wait for the disk. Beyond it new entries are dropped: the disk is slower than the bucket.
pub const WRITING_BYTES_MAX: usize = 8 << 20;

/// A read of the disk cache that takes longer is a miss: the bucket is quicker.
pub const DISK_READ_PATIENCE: Duration = Duration::from_secs(1);

/// A write of the disk cache that takes longer counts as failed. Puts are refused well before.
pub const DISK_WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// Reads in a row that may fail before the disk is left alone for a while.
pub const DISK_FAILURES_MAX: u32 = 8;

/// How long an entry waits for others that are written with it. A process that is killed loses so much.
pub const BATCH_AGE_MAX: Duration = Duration::from_secs(1);

/// How long the file stays as large as it is after the disk was full.
pub const GROW_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Damaged entries are reported so often; each is counted.
pub const DAMAGE_REPORT_EVERY: Duration = Duration::from_secs(10);

/// Requests that wait for the threads of the plain back end. Beyond it a read is a miss.
pub const DISK_QUEUE_MAX: usize = 256;

/// Requests that io_uring has in hand at once: a disk serves no more of them faster.
pub const RING_BUFFERS: u16 = 16;

/// What one of them moves at once: a slot of any frame or chunk. All together is memory that stays locked.
pub const RING_BUFFER_BYTES: usize = 256 << 10;

/// Threads of the plain back end: a disk serves several reads at once, and a core has better things to do.
pub const DISK_THREADS: usize = 4;

const _: () = assert!(
    COMMIT_BODY_BYTES_MAX + crate::commit::HEADER_BYTES <= walstore::limits::COMMIT_BYTES_MAX,
    "the log takes every commit that this crate encodes"
);
const _: () = assert!(FOLD_PAGES_MAX > COMMIT_PAGES_MAX, "a fold takes at least one commit");
const _: () = assert!(PACK_BYTES_MAX <= u32::MAX as usize, "offsets in a pack are u32");
const _: () = assert!(
    FOLD_PAGES_MAX * (FRAME_BYTES_MAX / SEGMENT_PAGES as usize + 1)
        + ABSORB_PAGES_MAX as usize * PAGE_BYTES
        + MERGE_SEGMENTS_MAX * FRAME_BYTES_MAX
        + INDEX_BYTES_MAX
        < PACK_BYTES_MAX,
    "the largest ordinary fold fits into one pack"
);
const _: () = assert!(IMAGE_BACK_BYTES_MAX < IMAGE_BYTES_MAX);
const _: () = assert!(DELTAS_AFTER_ABSORB < DELTAS_TARGET && DELTAS_TARGET < DELTAS_MAX);
const _: () = assert!(
    CHUNK_SEGMENTS as usize * (48 + 3 + 1 + 10 + 3 + 4) + 16 <= CHUNK_BYTES_MAX,
    "a chunk's limit holds its worst case"
);
const _: () = assert!(
    HISTORY_CHUNK_ENTRIES_MAX * (1 + 36 + 12 + 2 * 10) + 64 <= HISTORY_CHUNK_BYTES_MAX,
    "a chunk of the index holds as many entries as it may"
);
const _: () = assert!(
    HISTORY_ENTRIES_MAX * (1 + 36 + 12 + 2 * 10)
        + HISTORY_CHUNKS_MAX * (36 + 8 + 4 * 10)
        + PINNED_BASES_MAX * (44 + 10)
        + 64
        <= HISTORY_INDEX_BYTES_MAX,
    "an index that may be written can be read"
);
const _: () = assert!(HISTORY_ENTRIES_KEPT < HISTORY_ENTRIES_TARGET && HISTORY_ENTRIES_TARGET + 2 < HISTORY_ENTRIES_MAX);
const _: () = assert!(HISTORY_ENTRIES_MAX <= HISTORY_CHUNK_ENTRIES_MAX, "all that is spilled at once fits into a chunk");
const _: () = assert!(CHUNK_SEGMENTS <= u16::MAX as u32, "pack numbers in a chunk are u16");
const _: () = assert!(
    DELTAS_MAX * (INDEX_INLINE_BYTES_MAX + 80) < MAP_INLINE_BYTES_MAX / 2,
    "deltas leave half of the inline page map to segments"
);
const _: () = assert!(ABSORB_FACTOR * MERGE_SMALL_FOLD_PAGES as u64 <= ABSORB_PAGES_MIN);
const _: () = assert!(
    (ABSORB_PAGES_MIN as usize + SEGMENT_PAGES as usize + MERGE_SMALL_FOLD_PAGES) * (PAGE_BYTES + 12)
        + MAP_INLINE_BYTES_MAX
        + IMAGE_BYTES_MAX
        < 416 << 10,
    "a small fold writes under 416 KiB, head included"
);
const _: () = assert!(REGION_BYTES_MIN as usize / 2 > FRAME_BYTES_MAX + 4096 && FRAME_BYTES_MAX >= CHUNK_BYTES_MAX);
