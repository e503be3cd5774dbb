//! Names and heads in the bucket: the thin part that awaits. What is decided here is decided by
//! [`plan_name`](crate::naming::plan_name) and [`lifecycle`](crate::lifecycle).
//!
//! Every function takes the main store, the seam and how long it may keep asking. **An error of the store
//! leaves a write's outcome unknown**: it may have happened, and may still happen until its condition no
//! longer holds. The caller reads again before it does anything that depends on it.

mod claim;
mod create;
mod delete;
mod fork;
mod given_up;
mod heads;
mod import;
mod list;
mod names;
mod pins;

pub use create::{CreateError, create_database};
pub use delete::{DeleteError, delete_database, put_due};
pub use fork::{
    ChildError, Followed, abandon_fork, claim_fork, create_child, follow_name, occupy, swing_name,
};
pub use given_up::GivenUp;
pub use import::{Aborted, abort_import, begin_import, finish_import};
pub use heads::{SwapHeadError, read_head, swap_head};
pub use list::{ListError, NamePage, list};
pub use names::{Ahead, ResolveError, free_name, note_made, read_name, resolve, resolve_head, resolve_head_ahead};
pub use pins::{Pins, read_pins, unpinned};
