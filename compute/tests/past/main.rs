//! The past of databases through a running server: read by URL, restored, forked, undone, brought back.
//!
//! | file | what |
//! |---|---|
//! | `rig` | a database whose every state is known |
//! | `copies` | a moment as SQL and as a file |
//! | `urls` | every form of a URL that names a moment shows exactly that state |
//! | `refusals` | what the past refuses, and how it says so |
//! | `restores` | restore, undo, reset, undelete |
//! | `forks` | forks, families, retention |
//! | `commands` | the same by `shoal db` |

mod commands;
mod copies;
mod forks;
mod refusals;
mod restores;
mod rig;
#[path = "../support/mod.rs"]
mod support;
mod urls;
