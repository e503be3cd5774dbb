//! Every bound of a database's own objects, with its reason.

/// A name record: two ids, the settings and the past ids fit many times over.
pub const NAME_RECORD_BYTES_MAX: usize = 4 << 10;

/// Earlier databases of one name that its record remembers; older ones are forgotten, but their final
/// heads stay.
pub const PAST_DATABASES_MAX: usize = 16;

/// A due marker: one per thing to do, so it stays tiny.
pub const DUE_BYTES_MAX: usize = 1 << 10;

/// When a database was created, in microseconds since the Unix epoch: no commit is later than this.
pub const CREATED_MICROS_MAX: u64 = 1 << 60;

/// A head, decompressed. It is rewritten whole at every fold, so policy keeps it far below this.
pub const HEAD_BYTES_MAX: usize = 4 << 20;

/// A page map that lives in the head. Larger ones are cut into chunks of their own.
pub const MAP_INLINE_BYTES_MAX: usize = 2 << 20;

/// An opaque reference to an object that holds the folded state in place of the head: id, length, checksum.
pub const CHUNK_REFERENCE_BYTES_MAX: usize = 96;

/// The index of the retained history, as far as it stands in the head: some hundred entries of at most as many
/// bytes each, and references to the chunks that hold the older ones.
pub const HISTORY_BYTES_MAX: usize = 384 << 10;

/// An opaque reference to a pack.
pub const PACK_REFERENCE_BYTES_MAX: usize = 64;

/// Owners whose commits are not folded yet. Policy folds at three; a database that reaches this has to be
/// drained before anybody acquires it.
pub const TAIL_ENTRIES_MAX: usize = 256;

/// Pins of forks in the head itself; more of them spill in immutable chunks of as many.
pub const PINS_MAX: usize = 64;

/// Chunks of spilled pins: with [`PINS_MAX`] pins each, 65,536 forks of one database.
pub const PIN_CHUNKS_MAX: usize = 1024;

/// The object of a chunk of pins.
pub const PIN_CHUNK_BYTES_MAX: usize = 4 << 10;

/// The longest object key, as [`walstore::store::Key`] defines it.
pub const KEY_BYTES_MAX: usize = 512;

/// Packs that no map of this head references and that are not deleted yet.
pub const DEAD_MAX: usize = 4096;

/// The image inside a head: a small database, compressed.
pub const INLINE_IMAGE_BYTES_MAX: usize = 64 << 10;

/// The slowest commit window that a plan may have.
pub const WINDOW_MILLIS_MAX: u16 = 500;

/// Names on one page of a listing: what a store gives in one answer.
pub const LIST_NAMES_MAX: usize = 1000;

/// Name records that one listing reads at the same time.
pub const LIST_GETS_MAX: usize = 32;

/// Times that an operation starts again because others changed the same name, before it says so.
pub const NAME_ROUNDS_MAX: usize = 16;

/// What the fixed fields of a head take at most, names and flags included.
const HEAD_FIXED_BYTES_MAX: usize = 1 << 10;
const LENGTH_BYTES: usize = 4;

const HEAD_LARGEST_BYTES: usize = HEAD_FIXED_BYTES_MAX
    + MAP_INLINE_BYTES_MAX
    + HISTORY_BYTES_MAX
    + TAIL_ENTRIES_MAX * 32
    + PINS_MAX * 24
    + PIN_CHUNKS_MAX * (LENGTH_BYTES + KEY_BYTES_MAX)
    + DEAD_MAX * (LENGTH_BYTES + PACK_REFERENCE_BYTES_MAX)
    + INLINE_IMAGE_BYTES_MAX;

const _: () = assert!(HEAD_LARGEST_BYTES <= HEAD_BYTES_MAX, "a head that may be written can be read");
const _: () = assert!(
    CHUNK_REFERENCE_BYTES_MAX <= MAP_INLINE_BYTES_MAX,
    "a shared map takes no more of the head than an inline one"
);
const _: () = assert!(PINS_MAX * 24 + 100 <= PIN_CHUNK_BYTES_MAX, "a chunk takes all pins of a head");
const _: () = assert!(LIST_GETS_MAX <= LIST_NAMES_MAX, "one page keeps every request of it busy");
