//! Bounds on what a client may make this module do.

/// How deep the conditions of a batch may nest. Evaluation recurses once per level; real clients
/// nest two or three.
pub const CONDITION_DEPTH_MAX: usize = 50;

/// How deep JSON of any kind may nest: `serde_json`'s own fixed bound.
const JSON_DEPTH_MAX: usize = 128;

/// JSON levels above a batch's condition: body, requests, request, batch, steps, step, and the
/// condition itself.
const LEVELS_ABOVE_A_CONDITION: usize = 7;

// Each `and` costs two JSON levels, an object and an array. Were our bound reached after the
// parser's, its error would be the parser's, which doesn't say what is too deep.
const _: () = assert!(LEVELS_ABOVE_A_CONDITION + 2 * (CONDITION_DEPTH_MAX + 1) < JSON_DEPTH_MAX);

/// The longest text that is looked at as a baton. Ours have [`super::baton::BATON_TEXT_BYTES`].
pub const BATON_TEXT_BYTES_MAX: usize = 256;

/// How much of a client's text an error message repeats.
pub const ECHO_CHARS_MAX: usize = 60;

/// The longest message of an SQL error: SQLite quotes what it does not understand whole.
pub const SQL_ERROR_CHARS_MAX: usize = 1_000;

/// The longest message of a JSON error: the parser quotes offending strings whole.
pub const JSON_ERROR_CHARS_MAX: usize = 300;
