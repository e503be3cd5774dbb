//! The oracle: what clients sent and were told, against what the database holds.
//!
//! It lives in the test's process, so it outlives every kill. Its rule for each transaction:
//!
//! | the client | the database holds |
//! |---|---|
//! | never sent its COMMIT | nothing of it |
//! | was told that it is committed | all of its rows |
//! | was told that it did not happen | nothing of it |
//! | was told that the outcome is unknown, or nothing | all of its rows, or nothing |
//!
//! After a restart an unknown outcome is known ([`Ledger::settle`]): from then on it may not change.

use std::collections::BTreeMap;

use crate::hrana::Outcome;

/// Chosen by the client, and never used twice.
pub type TransactionId = i64;

/// What the clients of one database know.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<TransactionId, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    row_count: i64,
    fate: Fate,
}

#[derive(Clone, Debug)]
enum Fate {
    /// What would commit it was not sent.
    Unsent,
    /// It was, and no answer came yet.
    Sent,
    Answered(Outcome),
    /// A restart has shown it.
    Settled {
        present: bool,
    },
}

/// The rows of one transaction as found in a database. Each row says its number, from 0, and how many
/// there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub row_count: i64,
    pub first: i64,
    pub last: i64,
    /// The smallest and the largest count that the rows say.
    pub said: (i64, i64),
}

impl Found {
    /// A transaction with all of its rows.
    pub fn whole(row_count: i64) -> Self {
        Self { row_count, first: 0, last: row_count - 1, said: (row_count, row_count) }
    }
}

/// How many transactions came to which end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub acknowledged: usize,
    pub refused: usize,
    pub unknown: usize,
    pub unsent: usize,
}

impl Ledger {
    /// Notes a transaction of `row_count` rows, before its first request.
    ///
    /// # Panics
    /// If the id was used before.
    pub fn begin(&mut self, id: TransactionId, row_count: i64) {
        let former = self.entries.insert(id, Entry { row_count, fate: Fate::Unsent });
        assert!(former.is_none(), "transaction {id} was begun twice");
    }

    /// Notes that what commits it is being sent.
    pub fn send(&mut self, id: TransactionId) {
        self.entry(id).fate = Fate::Sent;
    }

    /// Notes what the client was told.
    pub fn answer(&mut self, id: TransactionId, outcome: Outcome) {
        self.entry(id).fate = Fate::Answered(outcome);
    }

    fn entry(&mut self, id: TransactionId) -> &mut Entry {
        self.entries.get_mut(&id).expect("a transaction that was begun")
    }

    /// Takes over what another client noted.
    pub fn absorb(&mut self, other: Self) {
        for (id, entry) in other.entries {
            let former = self.entries.insert(id, entry);
            assert!(former.is_none(), "two clients used transaction {id}");
        }
    }

    /// Every rule that the database breaks, in sentences; none if all is well.
    pub fn violations(&self, found: &BTreeMap<TransactionId, Found>) -> Vec<String> {
        let strangers = found.keys().filter(|id| !self.entries.contains_key(id));
        let strangers = strangers.map(|id| format!("transaction {id} is there, and nobody sent it"));
        let broken = self.entries.iter().filter_map(|(id, entry)| {
            let what = entry.violation(found.get(id))?;
            Some(format!("transaction {id} of {} rows {what}", entry.row_count))
        });
        strangers.chain(broken).collect()
    }

    /// Makes what a restart has shown the truth, which a later restart may not change.
    pub fn settle(&mut self, found: &BTreeMap<TransactionId, Found>) {
        for (id, entry) in &mut self.entries {
            entry.fate = Fate::Settled { present: found.contains_key(id) };
        }
    }

    /// Counts what was not settled yet.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for entry in self.entries.values() {
            match &entry.fate {
                Fate::Unsent => tally.unsent += 1,
                Fate::Sent | Fate::Answered(Outcome::Unknown(_)) => tally.unknown += 1,
                Fate::Answered(Outcome::Acknowledged) => tally.acknowledged += 1,
                Fate::Answered(Outcome::Refused(_)) => tally.refused += 1,
                Fate::Settled { .. } => {}
            }
        }
        tally
    }
}

impl Entry {
    fn violation(&self, found: Option<&Found>) -> Option<String> {
        let is_whole = found.is_none_or(|found| *found == Found::whole(self.row_count));
        if !is_whole {
            return Some(format!("is not whole: {found:?}"));
        }
        match (&self.fate, found.is_some()) {
            (Fate::Unsent, true) => Some("is there, though its COMMIT was never sent".to_owned()),
            (Fate::Answered(Outcome::Acknowledged), false) => Some("was acknowledged and is lost".to_owned()),
            (Fate::Answered(Outcome::Refused(why)), true) => {
                Some(format!("is there, though its client was told: {why}"))
            }
            (Fate::Settled { present: true }, false) => Some("was there after a former restart and is lost".to_owned()),
            (Fate::Settled { present: false }, true) => {
                Some("was not there after a former restart, and is now".to_owned())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(fates: &[(TransactionId, Fate)]) -> Ledger {
        let entry = |fate: &Fate| Entry { row_count: 3, fate: fate.clone() };
        Ledger { entries: fates.iter().map(|(id, fate)| (*id, entry(fate))).collect() }
    }

    fn refused() -> Fate {
        Fate::Answered(Outcome::Refused("no".into()))
    }

    fn unknown() -> Fate {
        Fate::Answered(Outcome::Unknown("?".into()))
    }

    /// Whether one transaction of three rows with this fate may be found so.
    fn is_allowed(fate: Fate, found: Option<Found>) -> bool {
        ledger(&[(1, fate)]).violations(&found.map(|found| (1, found)).into_iter().collect()).is_empty()
    }

    #[test]
    fn each_fate_allows_what_the_table_says() {
        let whole = Some(Found::whole(3));
        for (fate, may_be_there, may_be_absent) in [
            (Fate::Unsent, false, true),
            (Fate::Sent, true, true),
            (Fate::Answered(Outcome::Acknowledged), true, false),
            (refused(), false, true),
            (unknown(), true, true),
            (Fate::Settled { present: true }, true, false),
            (Fate::Settled { present: false }, false, true),
        ] {
            assert_eq!(is_allowed(fate.clone(), whole), may_be_there, "{fate:?}");
            assert_eq!(is_allowed(fate.clone(), None), may_be_absent, "{fate:?}");
        }
    }

    #[test]
    fn a_torn_transaction_is_never_allowed() {
        let whole = Found::whole(3);
        for torn in [
            Found::whole(2),
            Found::whole(4),
            Found { last: 3, ..whole },
            Found { first: 1, ..whole },
            Found { said: (2, 3), ..whole },
            Found { row_count: 2, ..whole },
        ] {
            for fate in [Fate::Sent, unknown(), Fate::Answered(Outcome::Acknowledged), Fate::Settled { present: true }]
            {
                assert!(!is_allowed(fate.clone(), Some(torn)), "{fate:?} {torn:?}");
            }
        }
    }

    #[test]
    fn what_nobody_sent_is_a_violation() {
        let found = [(9, Found::whole(3))].into();
        assert_eq!(Ledger::default().violations(&found).len(), 1);
    }

    #[test]
    fn an_unknown_outcome_is_settled_by_what_a_restart_shows() {
        let mut ledger = ledger(&[(1, unknown()), (2, Fate::Sent), (3, refused())]);
        assert_eq!(ledger.tally(), Tally { unknown: 2, refused: 1, ..Tally::default() });
        let only_first = BTreeMap::from([(1, Found::whole(3))]);
        assert_eq!(ledger.violations(&only_first), Vec::<String>::new());
        ledger.settle(&only_first);
        assert_eq!(ledger.violations(&only_first), Vec::<String>::new());
        assert_eq!(ledger.violations(&BTreeMap::new()).len(), 1, "the first may not go");
        let both = BTreeMap::from([(1, Found::whole(3)), (2, Found::whole(3))]);
        assert_eq!(ledger.violations(&both).len(), 1, "the second may not come");
    }

    #[test]
    fn a_client_notes_each_step() {
        let mut one = Ledger::default();
        one.begin(1, 3);
        one.begin(2, 3);
        one.send(2);
        one.begin(3, 3);
        one.send(3);
        one.answer(3, Outcome::Acknowledged);
        let mut all = Ledger::default();
        all.absorb(one);
        assert_eq!(all.tally(), Tally { unsent: 1, unknown: 1, acknowledged: 1, refused: 0 });
    }
}
