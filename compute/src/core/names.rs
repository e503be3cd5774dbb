//! Which databases names led to, so that a name that is used again costs no request of its own.
//!
//! A hint, no more: the head is the authority. One that is final, absent or of another name says that the hint is
//! out of date, and then the name is looked up.

use std::collections::BTreeMap;

use tenant::name::Name;
use walstore::id::DatabaseId;

use crate::limits;

/// Names in two halves: what was used since the newer one began stays when the older one goes.
#[derive(Default)]
pub struct KnownNames {
    newer: BTreeMap<Name, DatabaseId>,
    older: BTreeMap<Name, DatabaseId>,
}

impl KnownNames {
    pub fn get(&mut self, name: &Name) -> Option<DatabaseId> {
        if let Some(id) = self.newer.get(name) {
            return Some(*id);
        }
        let id = self.older.remove(name)?;
        self.learn(name, id);
        Some(id)
    }

    pub fn learn(&mut self, name: &Name, id: DatabaseId) {
        if self.newer.len() >= limits::KNOWN_NAMES_MAX / 2 && !self.newer.contains_key(name) {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(name.clone(), id);
    }

    pub fn forget(&mut self, name: &Name) {
        self.newer.remove(name);
        self.older.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_use_are_kept_and_there_are_never_too_many() {
        let name = |number: usize| Name::parse(&format!("db-{number}")).unwrap();
        let id = |number: usize| DatabaseId::from_bytes((number as u128).to_le_bytes());
        let mut names = KnownNames::default();
        let count = 2 * limits::KNOWN_NAMES_MAX;
        for number in 0..count {
            names.learn(&name(number), id(number));
            assert_eq!(names.get(&name(0)), Some(id(0)), "{number}");
        }
        assert!(names.newer.len() + names.older.len() <= limits::KNOWN_NAMES_MAX);
        assert_eq!((names.get(&name(1)), names.get(&name(count - 1))), (None, Some(id(count - 1))));
        names.forget(&name(0));
        assert_eq!(names.get(&name(0)), None);
    }
}
