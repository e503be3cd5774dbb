//! What was read of a family, and how it is told.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use tenant::head::{ForkPoint, Head, HeadState};
use tenant::name::Name;
use walstore::id::{DatabaseId, Lsn};

/// What is kept of a head.
pub struct Relative {
    name: Name,
    state: &'static str,
    pub begins: Option<ForkPoint>,
}

impl Relative {
    pub fn of(head: &Head) -> Self {
        Self { name: head.name.clone(), state: state_word(&head.state), begins: head.parent }
    }
}

fn state_word(state: &HeadState) -> &'static str {
    match state {
        HeadState::Live => "live",
        HeadState::Moved { .. } => "replaced",
        HeadState::Renamed { .. } => "renamed",
        HeadState::Deleted { .. } => "deleted",
        HeadState::Aborted => "aborted",
    }
}

#[derive(Serialize)]
pub struct Tree {
    tree: Vec<Told>,
    complete: bool,
}

#[derive(Serialize)]
struct Told {
    name: String,
    database: String,
    state: &'static str,
    lsn: Option<u64>,
    parent: Option<String>,
    depth: usize,
    this: bool,
}

/// What was read of a family.
pub struct Family {
    /// Databases beyond which no more forks are looked for.
    databases_max: usize,
    known: BTreeMap<DatabaseId, Relative>,
    /// Of those that were met as forks. It rises among the forks of one parent.
    places: BTreeMap<DatabaseId, usize>,
    /// Met as forks, and not read yet.
    waiting: VecDeque<DatabaseId>,
    is_complete: bool,
}

impl Family {
    pub fn new(databases_max: usize) -> Self {
        let (known, places, waiting) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        Self { databases_max, known, places, waiting, is_complete: true }
    }

    pub fn knows(&self, id: DatabaseId) -> bool {
        self.known.contains_key(&id)
    }

    /// Whether there is room for another ancestor. The first that there is none for makes it incomplete.
    pub fn has_room(&mut self) -> bool {
        let has_room = self.known.len() < self.databases_max;
        self.is_complete &= has_room;
        has_room
    }

    /// Takes a database in. Its `forks` come in the order in which they were made.
    pub fn meet(&mut self, id: DatabaseId, relative: Relative, forks: impl IntoIterator<Item = DatabaseId>) {
        self.known.insert(id, relative);
        for fork in forks {
            let is_known = self.knows(fork);
            if !is_known && self.known.len() + self.waiting.len() >= self.databases_max {
                self.is_complete = false;
                continue;
            }
            let place = self.places.len();
            if let Entry::Vacant(vacant) = self.places.entry(fork) {
                vacant.insert(place);
                self.waiting.extend(Some(fork).filter(|_| !is_known));
            }
        }
    }

    /// At most `count` of those that are to be read.
    pub fn wanted(&mut self, count: usize) -> Vec<DatabaseId> {
        self.waiting.drain(..self.waiting.len().min(count)).collect()
    }

    /// All that descends from `root`, depth first, and without recursion.
    pub fn tell(&self, root: DatabaseId, this: DatabaseId) -> Tree {
        let mut children: BTreeMap<DatabaseId, Vec<DatabaseId>> = BTreeMap::new();
        for (id, relative) in self.known.iter().filter(|(id, _)| **id != root) {
            // A pin may outlive what its child was forked from: the child's own head says what that is.
            let Some(point) = relative.begins else { continue };
            children.entry(point.parent).or_default().push(*id);
        }
        for forks in children.values_mut() {
            // One that begins with nothing is not pinned.
            forks.sort_by_key(|fork| self.places.get(fork).copied().unwrap_or(usize::MAX));
        }
        let (mut tree, mut left) = (Vec::new(), vec![(root, 0)]);
        while let Some((id, depth)) = left.pop() {
            let Relative { name, state, begins } = &self.known[&id];
            tree.push(Told {
                name: name.to_string(),
                database: id.to_string(),
                state,
                lsn: begins.map(|point| Lsn::raw(point.lsn)),
                parent: begins.map(|point| point.parent.to_string()),
                depth,
                this: id == this,
            });
            let forks = children.get(&id).into_iter().flatten();
            left.extend(forks.rev().map(|fork| (*fork, depth + 1)));
        }
        Tree { tree, complete: self.is_complete }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> DatabaseId {
        DatabaseId::from_bytes([number; 16])
    }

    fn relative(parent: Option<u8>) -> Relative {
        let begins = parent.map(|parent| ForkPoint { parent: id(parent), lsn: Lsn::new(7) });
        Relative { name: Name::parse("app").unwrap(), state: "live", begins }
    }

    /// The first byte of each id, and its depth.
    fn told(tree: &Tree) -> Vec<(String, usize)> {
        tree.tree.iter().map(|told| (told.database[..2].to_owned(), told.depth)).collect()
    }

    fn pairs(expected: &[(&str, usize)]) -> Vec<(String, usize)> {
        expected.iter().map(|(id, depth)| ((*id).to_owned(), *depth)).collect()
    }

    #[test]
    fn a_family_that_is_too_large_is_told_with_the_line_of_who_was_asked_for() {
        let mut family = Family::new(4);
        family.meet(id(9), relative(Some(1)), []);
        // Its parent has more forks than there is room for, and it is the last of them.
        assert!(family.has_room());
        family.meet(id(1), relative(None), [3, 2, 5, 6, 9].map(id));
        assert_eq!(family.wanted(1), [id(3)]);
        family.meet(id(3), relative(Some(1)), [id(7)]);
        assert_eq!(family.wanted(9), [id(2)]);
        family.meet(id(2), relative(Some(1)), []);
        assert!(family.wanted(9).is_empty());
        let tree = family.tell(id(1), id(9));
        assert_eq!(told(&tree), pairs(&[("01", 0), ("03", 1), ("02", 1), ("09", 1)]));
        assert!(!tree.complete && tree.tree[3].this);
        assert!(!family.has_room());
    }

    #[test]
    fn heads_that_descend_from_each_other_come_to_an_end() {
        // No honest bucket has them.
        let mut family = Family::new(10);
        family.meet(id(1), relative(Some(2)), [id(2)]);
        family.meet(id(2), relative(Some(1)), [id(1)]);
        assert_eq!(told(&family.tell(id(2), id(1))), pairs(&[("02", 0), ("01", 1)]));
    }
}
