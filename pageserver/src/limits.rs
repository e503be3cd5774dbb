//! Every bound of the background work, with its reason.

use std::time::Duration;

/// Frames that a fold reads at the same time.
pub const FOLD_GETS_MAX: usize = 16;

/// Objects of one fold that are written at the same time: the pack and the chunks of a large page map.
pub const FOLD_PUTS_MAX: usize = 4;

/// How long a fold keeps asking the store. A fold that gives up has changed nothing and is tried again.
pub const FOLD_PATIENCE: Duration = Duration::from_secs(30);

/// Rounds of planning and reading what the plan lacks. Chunks, then indexes, then both once more after a
/// shrink: more is a bug in the plan.
pub const PLAN_ROUNDS_MAX: usize = 8;

/// How long a page fetch keeps asking the store before the query fails.
pub const FETCH_PATIENCE: Duration = Duration::from_secs(15);
