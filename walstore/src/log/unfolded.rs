//! Which slots hold commits that are not folded yet.

use std::collections::{BTreeMap, VecDeque};

use crate::id::{DatabaseId, Lsn, Slot};

/// The slots whose commits are not folded yet: complete from the log's first slot on.
#[derive(Clone, Default)]
pub struct Unfolded {
    by_database: BTreeMap<DatabaseId, VecDeque<(Lsn, Slot)>>,
    commits_in: BTreeMap<Slot, usize>,
}

impl Unfolded {
    pub fn remember(&mut self, database: DatabaseId, lsn: Lsn, slot: Slot) {
        self.by_database.entry(database).or_default().push_back((lsn, slot));
        *self.commits_in.entry(slot).or_default() += 1;
    }

    pub fn forget(&mut self, database: DatabaseId, up_to: Lsn) {
        let Some(commits) = self.by_database.get_mut(&database) else { return };
        while let Some(&(lsn, slot)) = commits.front() {
            if lsn > up_to {
                break;
            }
            commits.pop_front();
            let left = self.commits_in.get_mut(&slot).expect("BUG: a slot without a count");
            *left -= 1;
            if *left == 0 {
                self.commits_in.remove(&slot);
            }
        }
        if commits.is_empty() {
            self.by_database.remove(&database);
        }
    }

    pub fn lowest(&self) -> Option<Slot> {
        self.commits_in.keys().next().copied()
    }
}
