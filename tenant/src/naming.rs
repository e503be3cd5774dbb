//! What a name record and the head that it leads to mean together.
//!
//! The record is written before the head and after a final head, so a crash leaves a record without a head,
//! or a record that leads to a final one. Whoever meets either finishes it, as
//! [`registry::resolve_head`](crate::registry::resolve_head) does.

use walstore::id::{DatabaseId, IncarnationId};

use crate::head::{ForkPoint, Head, HeadState};
use crate::record::{NameRecord, NameState, Origin};
use crate::settings::Settings;

/// What a name is, or what has to be done first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePlan {
    /// There never was such a database.
    Missing,
    Live(DatabaseId),
    Deleted { database: DatabaseId, at_micros: u64 },
    /// A create that stopped half-way: write the head, which anybody can.
    CreateHead { database: DatabaseId, settings: Settings },
    /// A fork or import without a head. While its incarnation lives, it may still write one: ask again
    /// later. Once that is sealed, nobody will: occupy the head's key with an aborted one, and only if that
    /// stands, free the name.
    UndoOnceSealed { database: DatabaseId, incarnation: IncarnationId, parent: Option<ForkPoint> },
    /// The database is over: the record has to say so.
    Free { database: DatabaseId },
    /// The database had a head, which is gone or another's: damage, and nothing may be made in its place.
    Lost { database: DatabaseId },
    /// The database was restored in place: the record has to lead to the new one.
    Swing { from: DatabaseId, to: DatabaseId },
}

/// Decides what the name of `record` is. `head` is that of the record's database.
///
/// # Panics
/// If `head` belongs to another database.
pub fn plan_name(record: Option<&NameRecord>, head: Option<&Head>) -> NamePlan {
    let Some(record) = record else { return NamePlan::Missing };
    let (database, origin, incarnation, is_made) = match record.state {
        NameState::Deleted { database, at_micros } => return NamePlan::Deleted { database, at_micros },
        NameState::Live { database, origin, incarnation, is_made } => (database, origin, incarnation, is_made),
    };
    let Some(head) = head else {
        return if is_made { NamePlan::Lost { database } } else { without_head(database, origin, incarnation) };
    };
    assert_eq!(head.database, database, "BUG: the head of another database");
    match head.state {
        HeadState::Live => NamePlan::Live(database),
        HeadState::Moved { new } => NamePlan::Swing { from: database, to: new },
        // Only where no head was could one be put that never lives.
        HeadState::Aborted if is_made => NamePlan::Lost { database },
        HeadState::Renamed { .. } | HeadState::Deleted { .. } | HeadState::Aborted => NamePlan::Free { database },
    }
}

fn without_head(database: DatabaseId, origin: Origin, incarnation: IncarnationId) -> NamePlan {
    match origin {
        Origin::Empty(settings) => NamePlan::CreateHead { database, settings },
        Origin::Fork(point) => NamePlan::UndoOnceSealed { database, incarnation, parent: Some(point) },
        Origin::Import => NamePlan::UndoOnceSealed { database, incarnation, parent: None },
    }
}

#[cfg(test)]
mod tests {
    use walstore::id::{Lsn, PutId};

    use super::*;
    use crate::lifecycle;
    use crate::name::Name;

    const DATABASE: DatabaseId = DatabaseId::from_bytes([1; 16]);
    const NEW: DatabaseId = DatabaseId::from_bytes([2; 16]);
    const ME: IncarnationId = IncarnationId::from_bytes([3; 16]);
    const PUT: PutId = PutId::from_bytes([4; 16]);

    fn record(origin: Origin) -> NameRecord {
        let state = NameState::Live { database: DATABASE, origin, incarnation: ME, is_made: false };
        NameRecord::new(PUT, Name::parse("app").unwrap(), state)
    }

    fn head(state: HeadState) -> Head {
        let head = lifecycle::first_head(&Name::parse("app").unwrap(), DATABASE, ME, Settings::new(5), PUT);
        if state == HeadState::Live {
            return head;
        }
        Head { state, ..lifecycle::delete(&head, 6, PUT) }
    }

    #[test]
    fn a_record_and_its_head_have_one_meaning_each() {
        let empty = record(Origin::Empty(Settings::new(5)));
        let other = Name::parse("other").unwrap();
        for (state, plan) in [
            (HeadState::Live, NamePlan::Live(DATABASE)),
            (HeadState::Moved { new: NEW }, NamePlan::Swing { from: DATABASE, to: NEW }),
            (HeadState::Renamed { name: other }, NamePlan::Free { database: DATABASE }),
            (HeadState::Deleted { at_micros: 6 }, NamePlan::Free { database: DATABASE }),
            (HeadState::Aborted, NamePlan::Free { database: DATABASE }),
        ] {
            assert_eq!(plan_name(Some(&empty), Some(&head(state))), plan);
        }
        let deleted = empty.deleted(9, PUT);
        for head in [None, Some(head(HeadState::Live)), Some(head(HeadState::Aborted))] {
            let plan = NamePlan::Deleted { database: DATABASE, at_micros: 9 };
            assert_eq!(plan_name(Some(&deleted), head.as_ref()), plan);
        }
        assert_eq!(plan_name(None, None), NamePlan::Missing);
    }

    #[test]
    fn a_name_that_had_a_head_is_never_given_away_without_it() {
        let lost = NamePlan::Lost { database: DATABASE };
        let point = ForkPoint { parent: NEW, lsn: Lsn::new(3) };
        for origin in [Origin::Empty(Settings::new(5)), Origin::Fork(point), Origin::Import] {
            let live = head(HeadState::Live);
            let made = record(origin).made(&live, PUT).expect("news");
            assert_eq!(made.made(&live, PUT), None, "it says so already");
            assert_eq!(plan_name(Some(&made), None), lost);
            assert_eq!(plan_name(Some(&made), Some(&head(HeadState::Aborted))), lost);
            assert_eq!(plan_name(Some(&made), Some(&live)), NamePlan::Live(DATABASE));
            let over = head(HeadState::Deleted { at_micros: 6 });
            assert_eq!(plan_name(Some(&made), Some(&over)), NamePlan::Free { database: DATABASE });
            assert_eq!(made.deleted(7, PUT).made(&live, PUT), None, "it leads nowhere");
            let state = NameState::Live { database: NEW, origin, incarnation: ME, is_made: false };
            assert_eq!(made.led_to(state, PUT).made(&live, PUT), None, "it leads elsewhere");
        }
    }

    #[test]
    fn only_an_empty_database_is_finished_by_anybody() {
        let point = ForkPoint { parent: NEW, lsn: Lsn::new(3) };
        let undo = |parent| NamePlan::UndoOnceSealed { database: DATABASE, incarnation: ME, parent };
        for (origin, plan) in [
            (Origin::Empty(Settings::new(5)), NamePlan::CreateHead { database: DATABASE, settings: Settings::new(5) }),
            (Origin::Fork(point), undo(Some(point))),
            (Origin::Import, undo(None)),
        ] {
            assert_eq!(plan_name(Some(&record(origin)), None), plan);
        }
    }
}
