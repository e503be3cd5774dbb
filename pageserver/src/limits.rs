//! Every bound of the background work, with its reason.

use std::time::Duration;

/// Chunks of a large page map that a fold reads at the same time.
pub const FOLD_CHUNKS_MAX: usize = 16;

/// Objects of one fold that are written at the same time: the pack and the chunks of a large page map.
pub const FOLD_PUTS_MAX: usize = 4;

/// Commits that a fold keeps go into the pack of its pages up to so many bytes, beyond that into one of their own: each
/// pack is in memory whole until it is stored, and a PUT more is nothing beside so many bytes.
pub const KEPT_WITH_PAGES_BYTES_MAX: usize = 8 << 20;

/// How long a fold keeps asking the store. A fold that gives up has changed nothing and is tried again.
pub const FOLD_PATIENCE: Duration = Duration::from_secs(30);

/// Pages that a fold looks up for a boot image besides those of the tail and of the image before. Most are cached.
pub const BOOT_READS_MAX: usize = 40;

/// Chunks of a page map that are read at once when its database is opened: those of 4 GiB. Of a larger one a query
/// wants a few, and all of them would be more than it reads otherwise.
pub const WARM_CHUNKS_MAX: usize = 32;

/// Rounds of planning and reading what the plan lacks. Chunks, then indexes, then both once more after a
/// shrink: more is a bug in the plan.
pub const PLAN_ROUNDS_MAX: usize = 8;

/// Pages of an imported database up to which they are kept in the caches: of a larger one, they would push out what is
/// in use.
pub const IMPORT_CACHED_PAGES_MAX: u32 = 16_384;

/// Databases that a drainer works on at the same time.
pub const DRAINS_AT_ONCE: usize = 4;

/// How long each of them rests after a database. Together: at most 80 databases a second, however fast the store is.
pub const DRAIN_PAUSE: Duration = Duration::from_millis(50);

/// Times that a drainer begins again with a database because its head or a log changed under it. Whoever changes
/// it that often is at work on it himself.
pub const DRAIN_ROUNDS_MAX: usize = 4;

/// Times that a fork begins again because another one of the same parent was faster.
pub const FORK_ROUNDS_MAX: usize = 16;

/// How long what a restore in place has replaced is kept at least, so that it can be undone.
pub const MOVED_KEPT_MICROS: u64 = 86_400_000_000;

/// Steps of [compacting](crate::sweep), 4 MiB each, that one sweep takes for one database that nobody owns: 1 GiB.
pub const COMPACTIONS_OF_DATABASE_MAX: u64 = 256;

/// The same for all such databases: 16 GiB.
pub const COMPACTIONS_PER_SWEEP_MAX: u64 = 4096;

/// How long a sweep rests after such a step. What clients wait for comes first, and whoever reads what a step has replaced
/// (a page server's client, a moment of the past) finds the new head, and all of it, before the next step.
pub const COMPACTION_PAUSE: Duration = Duration::from_millis(200);

/// How long a drainer keeps asking the store for one thing. What it gives up is tried again in the next sweep.
pub const DRAIN_PATIENCE: Duration = Duration::from_secs(30);

/// Sweeps that leave an incarnation alone whose databases live owners keep from being drained: an hour, at most.
pub const DRAIN_REST_SWEEPS_MAX: u32 = 16;

/// How long a sweep waits for one incarnation to renew. One with a longer lease is over when a later sweep finds it
/// unchanged still.
pub const DRAIN_WATCH_MAX: Duration = Duration::from_secs(60);

/// A drainer's own page cache: it reads cold pages, which must not push warm ones out of the node's.
pub const DRAIN_CACHE_BYTES: u64 = 8 << 20;

/// Requests of a node for pages and page maps that run at the same time. A store answers that many in the time of one;
/// more only wait in its own queue.
pub const FETCHES_MAX: usize = 128;

/// How many of them may read ahead.
pub const FETCHES_AHEAD_MAX: usize = 64;

/// Neighbours go in one request up to this size: that takes little longer than a single one, and up to this size a
/// request that is slow is hedged.
pub const FETCH_BYTES_MAX: usize = 512 << 10;

/// What is read ahead goes in larger ones, up to the size at which one may still be hedged: nobody waits for the first
/// byte, and each request costs the processor as well.
pub const FETCH_AHEAD_BYTES_MAX: usize = 1 << 20;

/// What may be read in vain between two neighbours: much less than a request costs in time.
pub const FETCH_GAP_BYTES_MAX: u64 = 16 << 10;

/// How long a page fetch keeps asking the store before the query fails.
pub const FETCH_PATIENCE: Duration = Duration::from_secs(15);

/// Notices on their way between the two ends of a subscription. What waits beyond it counts in the owner's queue.
pub const FOLLOW_NOTICES_MAX: usize = 16;

/// Ticks on their way. They come a few times a second.
pub const FOLLOW_TICKS_MAX: usize = 4;

/// The largest message: a commit, and what names it.
pub const MESSAGE_BYTES_MAX: usize = walstore::limits::COMMIT_BYTES_MAX + (1 << 10);

/// How long a connection to another node may take to come about.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often an idle connection to another node is tried, and how long the answer may take.
pub const PING_INTERVAL: Duration = Duration::from_secs(5);

/// How long the pack of a fold may take that a page server makes: to order, to make and to look at. Then the owner does it
/// himself, and meanwhile writers of that database may be waiting for room.
pub const ORDER_PATIENCE: Duration = Duration::from_secs(10);

/// Orders of one node that are on their way: each is a copy of a tail, 32 MiB at most and some 8 MiB usually.
pub const ORDERS_AT_ONCE: usize = 2;

/// How long an owner orders nothing after a page server has failed him, at first and at last.
pub const ORDER_REST_MIN: Duration = Duration::from_secs(5);
pub const ORDER_REST_MAX: Duration = Duration::from_secs(5 * 60);

/// A piece of an order on the wire: well under what other programs' gRPC takes in one message.
pub const ORDER_PIECE_BYTES: usize = 1 << 20;

/// What a pack has besides the bytes of a page or a commit, for each of them, and once. Generous: it only bounds what is
/// read of an object that may be anything.
pub const PACK_ENTRY_BYTES_MAX: usize = 64;
pub const PACK_REST_BYTES_MAX: usize = 4 << 10;

/// Pages that one request may ask for: 4 MiB, as much as other programs' gRPC takes in one message.
pub const PAGES_AT_ONCE_MAX: usize = 1000;

/// Commits of databases of which a page reader remembers where their pages are. One of them takes what the page map has, a
/// megabyte for a database of 10 GB, and up to 32 KiB of pages.
pub const VIEWS_MAX: usize = 64;

/// How long what is remembered of a database is answered without a look at its head: so long pages are shown of one that
/// was deleted. One GET for each database that is read, and each such time.
pub const VIEW_AGE_MAX: Duration = Duration::from_secs(5);

/// Pages that these have in memory, one of them and all together: 32 MiB, twice of what lies between two bases of a history
/// ([`segments::limits::HISTORY_BASE_PAGES_MAX`]), if no commit is larger.
pub const VIEW_PAGES_MAX: usize = 8192;

/// Owners that a page reader remembers, by database, and their addresses.
pub const OWNERS_MAX: usize = 1024;

/// How long the owner of a database may take for pages that are not folded, and how long its record is asked for.
pub const OWNER_PATIENCE: Duration = Duration::from_secs(10);

/// How long a walk through the bucket keeps asking the store for one thing.
pub const WALK_PATIENCE: Duration = Duration::from_secs(60);

/// The least time in which a scrub reads a bucket.
pub const SCRUB_INTERVAL_MIN: Duration = Duration::from_secs(3600);

/// Before a scrub that was given no answer tries again.
pub const SCRUB_PAUSE: Duration = Duration::from_secs(60);

/// How often it tries to read a database before it goes on to the next.
pub const SCRUB_TRIES: u32 = 5;

/// Times that the check of a database or a log begins again because it changed under the reader.
pub const VERIFY_ROUNDS_MAX: usize = 6;

/// Slots of a log that a check reads at the same time.
pub const VERIFY_SLOTS_AT_ONCE: usize = 16;

/// Slots of a log that are missing one after the other before a check looks for no more of them.
pub const VERIFY_SLOTS_MISSING_MAX: usize = 64;

/// Bytes of commits that a check keeps of logs that it has read, for the databases to come.
pub const VERIFY_LOGS_BYTES_MAX: usize = 256 << 20;

/// A check's page cache: what patches in logs build on.
pub const VERIFY_CACHE_BYTES: u64 = 32 << 20;

/// Memory of a check's ranged reads that are on their way.
pub const VERIFY_FETCH_BYTES_MAX: usize = 64 << 20;

/// The horizon of a history rises only while the clocks of node and store are at most so far apart.
pub const CLOCKS_APART_MICROS_MAX: u64 = walstore::limits::CLOCKS_APART_MICROS_MAX;

/// Between two pages of a sweep's listings: at most 5,000 keys a second.
pub const SWEEP_PAUSE: Duration = Duration::from_millis(200);

/// How often a node looks whether a sweep is due, in one interval.
pub const SWEEP_LOOKS_PER_INTERVAL: u32 = 4;

/// Deletes of a sweep that run at the same time.
pub const SWEEP_DELETES_AT_ONCE: usize = 8;

/// Heads of forks that are looked at together.
pub const SWEEP_READS_AT_ONCE: usize = 16;

/// Children of children whose pins a sweep looks at because of one database: each takes some of a thread's stack.
pub const SWEEP_DESCENT_MAX: usize = 16;

/// After that a delete that was announced and has not happened was given up.
pub const MARKER_LATE_MICROS: u64 = 86_400_000_000;

const _: () = assert!(FETCH_BYTES_MAX <= FETCH_AHEAD_BYTES_MAX);
const _: () = assert!(FETCH_AHEAD_BYTES_MAX <= walstore::limits::HEDGE_BYTES_MAX, "every request for pages may be hedged");
const _: () = assert!(FETCHES_AHEAD_MAX < FETCHES_MAX, "there is room for what somebody waits for");
const _: () = assert!(
    segments::limits::IMAGE_BYTES_MAX < tenant::limits::INLINE_IMAGE_BYTES_MAX
        && segments::limits::BOOT_BYTES_MAX < tenant::limits::INLINE_IMAGE_BYTES_MAX / 2
        && segments::limits::MAP_INLINE_BYTES_MAX <= tenant::limits::MAP_INLINE_BYTES_MAX
        && segments::limits::HISTORY_INDEX_BYTES_MAX <= tenant::limits::HISTORY_BYTES_MAX
        && segments::base::BaseRef::ENCODED_BYTES <= tenant::limits::CHUNK_REFERENCE_BYTES_MAX,
    "a head takes every image, page map and index that a fold makes"
);
