//! Databases that leave and come in as files and as SQL, through the running binary: everything in them is the same
//! afterwards, and what is no whole, sound database is refused.
//!
//! | file | what |
//! |---|---|
//! | `sample` | databases with everything that has ever been hard to carry, and how they are compared |
//! | `dumps` | `GET …/dump`, and back |
//! | `files` | `shoal db export` and `import`, of every form that a SQLite file has |
//! | `uploads` | large files: in parts, interrupted, while others write |
//! | `hostile` | files that somebody has made up |

mod dumps;
mod files;
mod hostile;
mod sample;
mod shoal;
#[path = "../support/mod.rs"]
mod support;
mod uploads;
