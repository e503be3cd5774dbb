//! Which databases names led to, so that a name that is used again costs no request of its own.
//!
//! A hint, no more: the head is the authority. One that is final, absent or of another name says that the hint is
//! out of date, and then the name is looked up. So is the base at which a fork begins: who opens the fork again reads it
//! at the same time as the head.
//!
//! Beside them the records of names that this node has seen last: whoever leads a name on (a restore in place) writes over
//! the version that he knows, and asks for it only if that is refused.

use std::collections::BTreeMap;

use pageserver::base::shared_of;
use segments::base::BaseRef;
use tenant::head::Head;
use tenant::name::Name;
use tenant::record::NameRecord;
use walstore::id::DatabaseId;
use walstore::register::Versioned;

use crate::limits;

/// Where a name led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub id: DatabaseId,
    /// What its head referred to for the folded state.
    pub base: Option<BaseRef>,
}

impl Known {
    pub fn of(head: &Head) -> Self {
        Self { id: head.database, base: shared_of(head).ok().flatten() }
    }
}

pub type KnownNames = ByName<Known, { limits::KNOWN_NAMES_MAX }>;
pub type KnownRecords = ByName<Versioned<NameRecord>, { limits::KNOWN_RECORDS_MAX }>;

/// Something of each of `MAX` names, in two halves: what was used since the newer one began stays when the older one goes.
pub struct ByName<T, const MAX: usize> {
    newer: BTreeMap<Name, T>,
    older: BTreeMap<Name, T>,
}

impl<T, const MAX: usize> Default for ByName<T, MAX> {
    fn default() -> Self {
        Self { newer: BTreeMap::new(), older: BTreeMap::new() }
    }
}

impl<T: Clone, const MAX: usize> ByName<T, MAX> {
    pub fn get(&mut self, name: &Name) -> Option<T> {
        if let Some(known) = self.newer.get(name) {
            return Some(known.clone());
        }
        let known = self.older.remove(name)?;
        self.learn(name, known.clone());
        Some(known)
    }

    pub fn learn(&mut self, name: &Name, known: T) {
        if self.newer.len() >= MAX / 2 && !self.newer.contains_key(name) {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(name.clone(), known);
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
        let id = |number: usize| Known { id: DatabaseId::from_bytes((number as u128).to_le_bytes()), base: None };
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
