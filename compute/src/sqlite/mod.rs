//! The embedding of SQLite: its VFS, its allocator, and the coroutines that it runs in.
//!
//! All `unsafe` code of the project is in this folder. It knows files, pages and suspensions; what a
//! database is, it does not know.

#![allow(unsafe_code)]

pub mod coroutine;
pub mod functions;
pub mod memory;
pub mod stack;
pub mod temp;
pub mod temp_space;
pub mod vfs;

use rusqlite::ffi;

/// An SQLite result code, as VFS methods return it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub i32);

impl Code {
    pub const IO_READ: Self = Self(ffi::SQLITE_IOERR_READ);
    pub const IO_WRITE: Self = Self(ffi::SQLITE_IOERR_WRITE);
    pub const IO: Self = Self(ffi::SQLITE_IOERR);
    pub const FULL: Self = Self(ffi::SQLITE_FULL);
    pub const BUSY: Self = Self(ffi::SQLITE_BUSY);
    pub const BUSY_SNAPSHOT: Self = Self(ffi::SQLITE_BUSY_SNAPSHOT);
    pub const READONLY: Self = Self(ffi::SQLITE_READONLY);
    pub const CANTOPEN: Self = Self(ffi::SQLITE_CANTOPEN);
}

/// Installs allocator and VFS. Must run before SQLite is used; running again does nothing.
///
/// # Panics
/// If SQLite was initialised before: its allocator can be chosen only once.
pub fn install() {
    static INSTALLED: std::sync::Once = std::sync::Once::new();
    INSTALLED.call_once(|| {
        memory::install();
        vfs::install();
    });
}
