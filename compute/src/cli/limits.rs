//! Bounds on what the client side of the command line holds in memory and sends at once.

/// Statements of a script that travel in one request. Past a few hundred, the round trip is a
/// small part of the whole.
pub const GROUP_STATEMENTS_MAX: usize = 500;

/// SQL text of one request. A statement that is longer travels alone.
pub const GROUP_BYTES_MAX: usize = 256 * 1024;

/// One statement. A server refuses far less; this only keeps a file that is no SQL, or has an
/// open quote in its first line, from being read into memory whole.
pub const STATEMENT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How much of a script is read ahead. Statements are sent when what was read is used up, so that
/// a program that writes SQL into a pipe and waits is answered.
pub const SCRIPT_BUFFER_BYTES: usize = GROUP_BYTES_MAX;

/// Scripts that read scripts. A file that reads itself ends here.
pub const READ_DEPTH_MAX: usize = 16;

/// One answer that is not streamed, and one line of one that is.
pub const RESPONSE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// How much of a server's explanation is repeated in an error; it may be a page of HTML.
pub const QUOTED_CHARS_MAX: usize = 1_000;

/// Rows whose widths decide a table's columns. Longer tables go on with these widths, so that a
/// result of any length needs bounded memory.
pub const TABLE_ROWS_BUFFERED_MAX: usize = 1_000;

/// Statements kept in the history file.
pub const HISTORY_ENTRIES_MAX: usize = 2_000;

/// Names asked for at once by `shoal db list`.
pub const NAMESPACES_PER_PAGE: usize = 1_000;

/// An exported or converted file up to this size is checked with its indexes; that takes minutes for much larger ones.
pub const FULL_CHECK_BYTES_MAX: u64 = 1 << 30;

/// Steps of SQLite that one statement of an imported dump may take: this many (some ten seconds), and so many more for
/// each byte of the dump so far. To make an index or to rebuild a full-text table takes a few dozen for each row.
pub const DUMP_STATEMENT_STEPS_MAX: u64 = 1_000_000_000;
pub const DUMP_STATEMENT_STEPS_PER_BYTE: u64 = 1_000;

/// Times that an upload goes on after its connection broke, without having got further.
pub const UPLOAD_TRIES: usize = 5;

/// A configuration file is a page of text; anything larger is a wrong path.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1024 * 1024;

const _: () = assert!(GROUP_BYTES_MAX <= STATEMENT_BYTES_MAX, "a statement fits a request");
const _: () = assert!(SCRIPT_BUFFER_BYTES >= GROUP_BYTES_MAX, "a full read can fill a request");
