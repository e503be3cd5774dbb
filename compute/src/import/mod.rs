//! Databases that come in as files.
//!
//! | file | idea |
//! |---|---|
//! | [`staging`] | a file arrives in parts and waits on disk; its length is all the state there is |
//! | [`room`] | what is still to come of each has its room on the disk |
//! | [`check`] | what is in it is hostile until SQLite, confined, has looked at all of it |
//! | [`job`] | from a checked file to a database, in the background |
//!
//! ```text
//!   begin ─▶ part, part, … ─▶ finish ─▶ check ─▶ name record ─▶ packs ─▶ head
//!     ▲        (staging)        │         │            └──────────┴─ fails: the head's key is occupied, the name is free
//!     └── goes on from there    └ asked   └ refused: the file is deleted
//!         after any interruption  again until it is done
//! ```
//!
//! The file is on this node's disk until it is a database, in the cache directory: it is nobody's data yet. Whoever
//! goes on with an upload therefore asks the node with which it began; another one begins anew.

pub mod check;
pub mod job;
pub mod room;
pub mod staging;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenant::name::Name;

use self::job::Progress;
use self::room::Promises;
use self::staging::Upload;

/// What goes on here, by name.
#[derive(Default)]
pub struct Imports {
    occupied: Mutex<BTreeMap<Name, Occupied>>,
    promises: Mutex<Promises>,
}

enum Occupied {
    /// A request is at the staged file.
    ByRequest,
    /// The file is checked and stored. The progress stays until it has been told.
    ByJob { upload: Upload, progress: Arc<Progress> },
}

/// What stands in the way of whoever wants to work at the file of a name.
pub enum Busy {
    Request,
    Job(Upload, Arc<Progress>),
}

/// Nobody else works at the file of this name meanwhile.
pub struct Exclusive<'i> {
    imports: &'i Imports,
    name: Option<Name>,
}

impl Imports {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Occupied>> {
        self.occupied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is promised to files that are on their way.
    pub fn promises(&self) -> MutexGuard<'_, Promises> {
        self.promises.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn take(&self, name: &Name) -> Result<Exclusive<'_>, Busy> {
        let mut imports = self.lock();
        match imports.get(name) {
            Some(Occupied::ByRequest) => Err(Busy::Request),
            Some(Occupied::ByJob { upload, progress }) => Err(Busy::Job(upload.clone(), progress.clone())),
            None => {
                imports.insert(name.clone(), Occupied::ByRequest);
                Ok(Exclusive { imports: self, name: Some(name.clone()) })
            }
        }
    }

    /// Whether one more may be checked and stored.
    fn jobs(&self) -> usize {
        self.lock().values().filter(|it| matches!(it, Occupied::ByJob { progress, .. } if !progress.has_ended())).count()
    }

    /// Forgets a job that has ended.
    pub fn forget(&self, name: &Name) {
        let mut imports = self.lock();
        if matches!(imports.get(name), Some(Occupied::ByJob { progress, .. }) if progress.has_ended()) {
            imports.remove(name);
        }
    }
}

impl Exclusive<'_> {
    /// Hands the file over to a job; false if there are too many.
    pub fn hand_over(mut self, upload: Upload, progress: Arc<Progress>) -> bool {
        if self.imports.jobs() >= crate::limits::IMPORTS_AT_ONCE {
            return false;
        }
        let name = self.name.take().expect("BUG: it is handed over once");
        self.imports.promises().end(&name);
        let mut imports = self.imports.lock();
        if imports.len() >= crate::limits::IMPORTS_REMEMBERED_MAX {
            // Who has not asked for the outcome by now sees it by the name.
            imports.retain(|_, it| !matches!(it, Occupied::ByJob { progress, .. } if progress.has_ended()));
        }
        imports.insert(name, Occupied::ByJob { upload, progress });
        true
    }
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.imports.lock().remove(&name);
        }
    }
}
