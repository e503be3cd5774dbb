//! Every bound of a compute node, with its reason.

use std::time::Duration;

/// Stack of one running request: address space, of which only what is touched becomes memory. What SQLite's
/// deepest recursions need under the limits that [`crate::session::connection`] sets, `tests/stack` measures.
pub const STACK_BYTES: usize = 128 << 20;
/// No C frame is larger, so none can jump over the guard.
pub const STACK_GUARD_BYTES: usize = 64 << 10;
/// How deep triggers and foreign keys' actions may call each other: SQLite's own default, so that a cascade through a
/// deep tree works as everywhere. A level takes no stack when it runs, its frame is on the heap and charged to the
/// database; when triggers of different tables are compiled, a level takes about 1.6 KiB.
pub const TRIGGER_DEPTH_MAX: i32 = 1_000;
/// Finished stacks that a core keeps.
pub const POOLED_STACKS_MAX: usize = 64;
/// What a statement may have touched of a stack that is kept: ten times what usual ones do.
pub const POOLED_STACK_BYTES: usize = 256 << 10;

/// Threads that run SQL: each takes some files of the operating system, and more than this many wait for each other.
pub const CORES_MAX: usize = 256;

/// Virtual machine steps between two calls of the progress handler, where a long query yields.
pub const PROGRESS_STEPS: i32 = 4_000;

/// Names of which a core remembers the database: some 10 MB. A name costs a request when it is used after this many
/// others.
pub const KNOWN_NAMES_MAX: usize = 65_536;

/// Names of which a core remembers the record, too: less than half a megabyte. A restore in place costs a request more
/// after this many others.
pub const KNOWN_RECORDS_MAX: usize = 1_024;

/// Idle connections that a database keeps per pool.
pub const POOLED_CONNECTIONS_MAX: usize = 8;
/// SQLite's own page cache per connection, in KiB (the sign is SQLite's).
pub const CONNECTION_CACHE_KIB: i32 = -2_000;

/// The same while SQLite takes much memory for all databases together.
pub const CONNECTION_CACHE_SMALL_KIB: i32 = -256;

/// What SQLite may have taken for one database since the node was last told: it is told when a statement yields, and
/// when it is this much more.
pub const SQL_STEP_BYTES: usize = 256 << 10;
/// So much it has for a database however little memory the node has left: a few connections, and what usual statements
/// need. It is the large ones that are refused.
pub const SQL_SMALL_BYTES: usize = 4 << 20;
/// Beyond that one database may have so many times what is left for all then: at most three quarters of what was there.
pub const SQL_TIMES_WHAT_IS_LEFT: usize = 3;
/// What says where the disk cache has its slots is lent this part of all that may be lent, at most. The rest is for what
/// comes and goes.
pub const DISK_INDEX_PART: usize = 8;
/// Memory is scarce when less than this part of what may be lent is left: then connections are not kept.
pub const SCARCE_PART: usize = 8;

/// Memory that was freed is given back to the system at most as often as that: each time all is looked at that is free.
pub const GIVE_BACK_PAUSE: Duration = Duration::from_millis(50);

/// Prepared statements that a connection keeps for the next time their text comes, and how long such a text may be.
pub const KEPT_STATEMENTS_MAX: usize = 16;
pub const KEPT_STATEMENT_BYTES_MAX: usize = 2 << 10;
/// A database that nobody has used for so long gives up its idle connections, and with them their caches.
pub const IDLE_CONNECTIONS: Duration = Duration::from_secs(5);
/// So many of them at a time are worth asking the allocator to give memory back to the operating system.
pub const CLOSED_CONNECTIONS_MANY: usize = 32;

/// A temporary file stays in memory up to this size.
pub const TEMP_MEMORY_BYTES_MAX: usize = 1 << 20;
/// Temporary files of all databases together may take this part of `--cache-size`; the disk cache has the rest.
pub const TEMP_PART: u64 = 2;
/// A `--cache-size` of which the other part has room for a disk cache.
pub const CACHE_BYTES_MIN: u64 = 4 << 20;
/// How long a shutdown waits for what the disk cache has still in memory.
pub const DISK_AT_SHUTDOWN: Duration = Duration::from_secs(2);
/// One database's may take this part of it: with more than two at it, none can take the others' room.
pub const TEMP_SHARE: u64 = 2;

/// A file that is to become a database: more than anybody keeps in one, and far from what a page map can hold.
pub const IMPORT_BYTES_MAX: u64 = 1 << 40;
/// Its parts. One of them is in memory for each upload that goes on.
pub const IMPORT_PART_BYTES: usize = 4 << 20;
/// Files that are checked and stored at the same time: each has a thread with its memory and some packs.
pub const IMPORTS_AT_ONCE: usize = 2;
/// Outcomes that are kept for clients who did not hear them.
pub const IMPORTS_REMEMBERED_MAX: usize = 64;
/// A part of a file of which nothing is heard for so long is deleted.
pub const UPLOAD_KEPT: Duration = Duration::from_secs(86_400);
/// And for so long its room on the disk is kept free for what is still to come.
pub const UPLOAD_PROMISED: Duration = Duration::from_secs(900);
/// SQLite's check of a file may take so long, and longer by its bytes: it reads each page once.
pub const IMPORT_CHECK_MICROS: u64 = 600_000_000;
pub const IMPORT_CHECK_BYTES_PER_MICRO: u64 = 5;
/// How much is repeated of what SQLite says about a damaged file.
pub const PROBLEM_CHARS_MAX: usize = 300;

/// Unfolded bytes of one database beyond which its writers wait for the fold.
pub const OVERLAY_BYTES_MAX: usize = 32 << 20;

/// What a transaction may write without being counted in a node's memory.
pub const UNCOUNTED_TRANSACTION_BYTES: usize = 64 << 10;
/// What more it takes is lent, in such steps.
pub const TRANSACTION_STEP_BYTES: usize = 256 << 10;
/// From here on it has to ask how much memory the node has left.
pub const SMALL_TRANSACTION_BYTES: usize = 1 << 20;
const _: () = assert!(SMALL_TRANSACTION_BYTES.is_multiple_of(TRANSACTION_STEP_BYTES), "so it asks beyond it, not before");

/// Bodies of requests up to this size are not counted in a node's memory: there is one for each request that runs.
pub const SMALL_BODY_BYTES: usize = 1 << 20;
/// Large ones together have at most this part of what a node lends.
pub const BODIES_PART: usize = 2;
/// A large one, which keeps memory from others, is waited for as long as it comes at this speed.
pub const LARGE_BODY_BYTES_PER_SECOND: u64 = 64 << 10;

/// Memory of requests for pages on their way, however much the node has: more than this does not make them faster.
pub const FETCH_BYTES_MAX: usize = 32 << 20;

/// Segments that are remembered of a closed database: with page 1, the root and the inner pages above where it was read
/// last. More would be read in vain by a single query.
pub const HOT_SEGMENTS_MAX: usize = 4;
/// Closed databases of which they are remembered: at most some 2 MB.
pub const HOT_SETS_MAX: usize = 16_384;

/// While all databases together have too much unfolded: how long folds get to make room before smaller overlays
/// are folded too. A fold takes two or three requests to the bucket.
pub const OVERLAY_ROUND: Duration = Duration::from_millis(100);

/// A fold starts when a tail reaches back over this many incarnations, whatever its size: each of them is a
/// log to read when the database is opened.
pub const TAIL_INCARNATIONS_MAX: usize = 3;

/// Pages that one fold takes at most; what is beyond waits for the next one.
pub const FOLD_PAGES_MAX: usize = 90_000;

/// Databases that one core keeps open. Beyond it those that nobody uses are closed, the longest unused first.
pub const OPEN_DATABASES_MAX: usize = 4_096;

/// How long an idle database stays open until its tail is folded and its dead space given back.
pub const IDLE_WORK_MAX: Duration = Duration::from_secs(60);

/// Closed databases whose tails are folded at the same time because the log has become long, or they are old.
pub const WOKEN_AT_ONCE_MAX: usize = 64;

/// Before one that was woken for that, and is asleep with its tail again, is woken once more.
pub const WAKE_AGAIN: Duration = Duration::from_secs(300);

/// How long one keeps asking the store for what undoes something unfinished.
pub const UNFINISHED_PATIENCE: Duration = Duration::from_secs(15);

/// Moments of the past that one core keeps open. Beyond it those that nobody uses are closed, the longest unused first.
pub const PASTS_MAX: usize = 64;

/// Databases that had a name before its present one through which a moment is followed. A name remembers as many.
pub const FORMER_DATABASES_MAX: usize = 16;

/// The longest time for which a database keeps its history: a century.
pub const RETENTION_SECS_MAX: u32 = 36_500 * 86_400;

/// Times of which one core remembers the commits that they led to.
pub const KNOWN_TIMES_MAX: usize = 4_096;

/// Dead objects that a head may list before folds wait for the readers that keep them alive. Well below what
/// a head can hold.
pub const DEAD_UNFOLDED_MAX: usize = 1024;

/// Folds after which dead space is looked for even if the database is never idle.
pub const FOLDS_WITHOUT_COMPACTION_MAX: u32 = 64;

/// Databases of a core that were closed before they were compacted, and that it remembers.
pub const WASTEFUL_MAX: usize = 65_536;

/// Of these it opens so many again at each look, which comes three times in a lease.
pub const WASTEFUL_AT_ONCE_MAX: usize = 4;

/// Folds after which a database with history or forks is looked through for objects that it needs no more.
pub const FOLDS_WITHOUT_COLLECTION_MAX: u32 = 64;

/// Slots of this node's log that may hold unfolded commits. Beyond it the oldest tails are folded, which
/// bounds what a successor has to read.
pub const LOG_SLOTS_MAX: u64 = 1024;

/// How finely the age of a node's log is known: to this part of how long commits may stay unfolded.
pub const LOG_AGES: u64 = 24;

/// Commits queued or in flight beyond which a node refuses new ones.
pub const BACKLOG_BYTES_MAX: usize = 256 << 20;

/// Statements of one connection after which other requests of its core get to run.
pub const STATEMENTS_BETWEEN_YIELDS: u32 = 16;

/// Stored SQL texts per stream, and bytes of each.
pub const STORED_SQL_MAX: usize = 128;
pub const STORED_SQL_BYTES_MAX: usize = 64 << 10;

/// Open streams per node.
pub const STREAMS_MAX: usize = 100_000;

/// What one follower of a database may have waiting at the owner. Beyond it the follower is cut off, unless a single
/// commit is larger.
pub const FOLLOWER_BYTES_MAX: usize = 8 << 20;
pub const FOLLOWER_NOTICES_MAX: usize = 16 << 10;
/// A follower that asks for nothing, or takes nothing, for so long is forgotten.
pub const FOLLOWER_SILENCE: Duration = Duration::from_secs(10);

/// How often a pipeline is run at most whose answer must not be shown, or that reads at a replica what its owner replaces
/// meanwhile. Who reads for longer than it takes to fold is overtaken each time.
pub const PIPELINE_TRIES_MAX: usize = 3;

/// How often a replica asks its owner whether it has everything. With the way there and back this stays below the
/// second that replicas promise.
pub const REPLICA_TICK: Duration = Duration::from_millis(400);
/// An owner that says nothing for so long cannot be reached: the replica looks into the bucket.
pub const REPLICA_SILENCE: Duration = Duration::from_secs(2);
/// How often a replica without an owner to follow looks into the bucket, at first and at last.
pub const REPLICA_LOOK_MIN: Duration = Duration::from_millis(500);
pub const REPLICA_LOOK_MAX: Duration = Duration::from_secs(5);
/// How long a request waits for a replica to get as far as its client has seen.
pub const REPLICA_WAIT: Duration = Duration::from_secs(2);
/// An owner looks whether forks of a database have ended so often at most, when it has it open, and
pub const FORKS_LOOKED_AT_EVERY: Duration = Duration::from_secs(3600);
/// at so many forks, a GET each.
pub const FORKS_LOOKED_AT_MAX: usize = 256;
/// Ended forks whose pins go in one write, with a few requests each. Nothing of the database is folded meanwhile.
pub const FORKS_TIDIED_AT_ONCE: usize = 16;
/// How often a moment of the past is tried again for which there is no memory, while others are closed.
pub const PAST_ROOM_TRIES: u32 = 3;
/// Forks and restores of former states at the same time: each has in memory what changed since the base before it.
pub const PAST_FORKS_AT_ONCE: usize = 2;
/// Pages of one replica's overlay beyond which it starts over from what is folded, as nothing else would free them.
pub const REPLICA_OVERLAY_BYTES_MAX: usize = 2 * OVERLAY_BYTES_MAX;
/// Pages that applying one commit reads at the same time, for its patches.
pub const BASES_AT_ONCE: usize = 16;

const _: () = assert!(REPLICA_TICK.as_millis() <= 500, "a heartbeat at least every 500 ms");

const _: () = assert!(STACK_BYTES >= 512 << 10, "the design reserves 512 KiB or more");
