//! Forks, restores and what is left of them: each transition, and what is refused.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use walstore::store::Key;

use super::*;
use crate::head::{ChunkRef, Pin, invariant};

const PARENT: DatabaseId = DatabaseId::from_bytes([1; 16]);
const CHILD: DatabaseId = DatabaseId::from_bytes([2; 16]);
const ME: IncarnationId = IncarnationId::from_bytes([0xa; 16]);
const OTHER: IncarnationId = IncarnationId::from_bytes([0xb; 16]);

fn put(number: u8) -> PutId {
    PutId::from_bytes([number; 16])
}

fn lsn(lsn: u64) -> Option<Lsn> {
    Lsn::new(lsn)
}

fn name() -> Name {
    Name::parse("app").unwrap()
}

fn folded(to: u64) -> Folded {
    Folded { lsn: lsn(to), chain: [to as u8; 16], time_micros: to, page_count: 1, pages_total: to }
}

/// The parent, mine and folded up to 10, of which 5 is the oldest that can be restored.
fn parent() -> Head {
    let head = first_head(&name(), PARENT, ME, Settings::new(1), put(1));
    let made = Fold {
        folded: folded(10),
        own_after: None,
        map: MapField::Inline(Bytes::from_static(b"map")),
        image: None,
        horizon: lsn(5),
        history: Bytes::from_static(b"history"),
        fold_seq: 1,
        dead: Vec::new(),
    };
    step(&head, fold(&head, made, put(2)))
}

fn step(before: &Head, after: Head) -> Head {
    assert_eq!(invariant(before, &after), Ok(()));
    after
}

fn beginning(at: u64) -> Beginning {
    let map = MapField::Shared(ChunkRef(Bytes::from_static(b"base")));
    Beginning { parent: PARENT, folded: folded(at), map, image: None, history: Bytes::new() }
}

fn child(at: u64) -> Head {
    child_head(&name(), CHILD, beginning(at), Settings::new(5), put(7))
}

fn forked(head: &Head, base: u64, at: u64) -> Result<Head, ForkRefused> {
    let mut next = head.successor(put(9));
    pin(&mut next, CHILD, lsn(base), lsn(at))?;
    Ok(step(head, next))
}

#[test]
fn a_fork_pins_what_it_begins_with_and_lies_inside_of_the_window() {
    let next = forked(&parent(), 4, 5).unwrap();
    assert_eq!(next.pins, [Pin { child: CHILD, lsn: lsn(4) }], "a base below the horizon is kept by the pin");
    let outside = |asked| ForkRefused::Outside { asked, oldest: 5, newest: 10 };
    assert_eq!(forked(&parent(), 4, 4), Err(outside(4)));
    assert_eq!(forked(&parent(), 10, 11), Err(outside(11)));
    assert_eq!(check_fork(&parent(), None), Err(outside(0)));
}

/// Neon's pull request 863: a branch began where everything had been collected.
#[test]
fn the_horizon_that_a_fork_is_checked_against_is_the_one_of_the_same_write() {
    let head = parent();
    let mut made = head.successor(put(9));
    made.horizon = lsn(8);
    assert_eq!(pin(&mut made, CHILD, lsn(5), lsn(7)), Err(ForkRefused::Outside { asked: 7, oldest: 8, newest: 10 }));
}

#[test]
fn a_fork_begins_alone() {
    let head = child(7);
    assert_eq!(head.check_first(), Ok(()));
    assert_eq!((head.owner, &head.tail[..], head.horizon), (None, &[][..], lsn(7)));
    assert_eq!(head.parent, Some(ForkPoint { parent: PARENT, lsn: lsn(7) }));
    let opened = step(&head, acquire(&head, OTHER, put(8)));
    assert_eq!(opened.tail[0].after, lsn(7), "its own commits go on from the fork's");
    let strange = [
        Head { owner: opened.owner, tail: opened.tail.clone(), ..head.clone() },
        Head { horizon: None, ..head.clone() },
        Head { parent: None, ..head.clone() },
        Head { pins: vec![Pin { child: PARENT, lsn: None }], ..head.clone() },
        Head { version: 2, ..head.clone() },
        abort(&name(), CHILD, head.parent, 1, put(1)),
    ];
    assert!(strange.iter().all(|head| head.check_first().is_err()));
}

#[test]
fn pins_beyond_those_of_a_head_go_to_chunks_and_are_lifted_there_too() {
    let key = Key::new("t/x/y/f/1");
    let mut head = parent();
    for byte in 0..limits::PINS_MAX as u8 {
        let mut next = head.successor(put(byte.wrapping_add(20)));
        assert_eq!(spill_pins(&mut next, &key), Ok(None));
        pin(&mut next, DatabaseId::from_bytes([byte + 100; 16]), lsn(10), lsn(10)).unwrap();
        head = step(&head, next);
    }
    let mut next = head.successor(put(3));
    let chunk = spill_pins(&mut next, &key).unwrap().expect("it is full");
    assert_eq!((chunk.database, &chunk.pins), (PARENT, &head.pins));
    pin(&mut next, CHILD, lsn(10), lsn(10)).unwrap();
    let head = step(&head, next);
    assert_eq!((head.pins.len(), &head.pin_chunks[..]), (1, &[key.clone()][..]));

    let gone = BTreeSet::from([CHILD, DatabaseId::from_bytes([100; 16])]);
    let rewritten = Key::new("t/x/y/f/2");
    let chunks = BTreeMap::from([(key.clone(), Some(rewritten.clone()))]);
    let lifted = step(&head, unpin(&head, &gone, &chunks, head.history.clone(), 2, put(4)));
    assert_eq!((&lifted.pins[..], &lifted.pin_chunks[..], lifted.fold_seq), (&[][..], &[rewritten.clone()][..], 2));
    let none = BTreeMap::from([(rewritten, None)]);
    let empty = step(&lifted, unpin(&lifted, &gone, &none, Bytes::new(), 2, put(5)));
    assert!(!empty.is_pinned());
}

#[test]
fn a_full_number_of_forks_is_an_error() {
    let full = Head {
        pins: (0..limits::PINS_MAX as u8).map(|byte| Pin { child: DatabaseId::from_bytes([byte; 16]), lsn: None }).collect(),
        pin_chunks: vec![Key::new("k"); limits::PIN_CHUNKS_MAX],
        ..parent()
    };
    let refused = spill_pins(&mut full.clone(), &Key::new("l")).unwrap_err();
    assert!(refused.to_string().contains("has 65536 forks"), "{refused}");
}

#[test]
fn without_an_owner_pins_go_but_do_not_come() {
    let pinned = forked(&parent(), 10, 10).unwrap();
    let free = step(&pinned, release(&pinned, lsn(10), put(3)).unwrap());
    let lifted = unpin(&free, &BTreeSet::from([CHILD]), &BTreeMap::new(), Bytes::new(), 0, put(4));
    assert!(!step(&free, lifted.clone()).is_pinned());
    let mut again = lifted.successor(put(5));
    pin(&mut again, CHILD, lsn(10), lsn(10)).unwrap();
    assert!(invariant(&lifted, &again).unwrap_err().contains("a pin without an owner"));
}

#[test]
fn a_final_head_is_forked_until_it_is_emptied() {
    let deleted = step(&parent(), delete(&parent(), 5, put(3)));
    let undeleted = forked(&deleted, 10, 10).unwrap();
    let emptied = step(&undeleted, shrink(&undeleted, Bytes::from_static(b"pinned"), put(4)));
    assert!(emptied.is_emptied() && !emptied.is_shrunk() && emptied.is_pinned());
    assert_eq!(forked(&emptied, 10, 10), Err(ForkRefused::Gone { database: PARENT }));
    let lifted = unpin(&emptied, &BTreeSet::from([CHILD]), &BTreeMap::new(), Bytes::new(), 0, put(5));
    assert!(step(&emptied, lifted).is_shrunk());
}

#[test]
#[should_panic(expected = "keeps history for nobody")]
fn what_is_not_pinned_keeps_no_history() {
    shrink(&delete(&parent(), 5, put(3)), Bytes::from_static(b"pinned"), put(4));
}

#[test]
fn a_restore_in_place_ends_a_database_all_of_which_is_folded() {
    let moved_head = step(&parent(), moved(&parent(), CHILD, lsn(10), put(3)).unwrap());
    assert_eq!((moved_head.state, moved_head.owner, moved_head.epoch), (HeadState::Moved { new: CHILD }, None, 2));
    assert_eq!(moved_head.map, parent().map, "the restore can be undone");
    assert_eq!(moved(&parent(), CHILD, lsn(11), put(3)).unwrap_err().last, lsn(11));
}

#[test]
fn settings_change_but_not_the_time_of_creation() {
    let settings = Settings { retention_secs: 9, expires_micros: 77, ..Settings::new(123) };
    let next = step(&parent(), with_settings(&parent(), settings, put(3)));
    assert_eq!(next.settings, Settings { created_micros: 1, ..settings });
    assert!(next.settings.is_expired(77) && !next.settings.is_expired(76) && !Settings::new(1).is_expired(u64::MAX));
}

#[test]
fn only_what_was_deleted_is_undeleted() {
    let (record, _) = create(&name(), PARENT, ME, Settings::new(1), None, [put(1), put(2)]);
    let databases = |record: &NameRecord| undelete_of(record).map(Iterator::collect::<Vec<_>>);
    assert_eq!(databases(&record), Err(ForkRefused::NotDeleted { name: name() }));
    let record = record.deleted(5, put(3));
    assert_eq!(databases(&record), Ok(vec![PARENT]));
    // An undelete that was cut off: its fork never lived.
    let point = ForkPoint { parent: PARENT, lsn: lsn(10) };
    let claimed = NameState::Live { database: CHILD, origin: Origin::Fork(point), incarnation: ME, is_made: false };
    let record = record.led_to(claimed, put(4)).deleted(6, put(5));
    assert_eq!(databases(&record), Ok(vec![CHILD, PARENT]));
}

/// What is not found may be on its way.
#[test]
fn a_missing_child_is_occupied_before_its_pin_is_lifted() {
    let free = release(&forked(&parent(), 10, 10).unwrap(), lsn(10), put(3)).unwrap();
    let plan = |child| plan_pin(&free, &OwnerState::None, child, false);
    assert_eq!(plan(ChildLook::Missing), PinPlan::Occupy);
    let aborted = abort(&name(), CHILD, None, 7, put(4));
    assert_eq!(plan(ChildLook::Head { head: &aborted, reaches: false }), PinPlan::Unpin);
    let child = child(10);
    assert_eq!(plan(ChildLook::Head { head: &child, reaches: true }), PinPlan::Keep);
    assert_eq!(plan(ChildLook::Head { head: &child, reaches: false }), PinPlan::Unpin);
    let owned = acquire(&child, OTHER, put(5));
    assert_eq!(plan(ChildLook::Head { head: &owned, reaches: false }), PinPlan::Keep, "its readers may need it");
    let deleted = delete(&child, 5, put(5));
    assert_eq!(plan(ChildLook::Head { head: &deleted, reaches: true }), PinPlan::Keep, "it may be undeleted");
    let shrunk = shrink(&deleted, Bytes::new(), put(6));
    assert_eq!(plan(ChildLook::Head { head: &shrunk, reaches: false }), PinPlan::Unpin);
}

#[test]
fn nobody_touches_the_pins_of_somebody_who_may_live() {
    let owned = forked(&parent(), 10, 10).unwrap();
    let alive = OwnerState::Alive { address: String::new() };
    for owner in [OwnerState::None, OwnerState::MeLeaving, OwnerState::Sealed, OwnerState::LeaseOver, alive] {
        assert_eq!(plan_pin(&owned, &owner, ChildLook::Missing, false), PinPlan::Keep, "{owner:?}");
    }
    assert_eq!(plan_pin(&owned, &OwnerState::Me, ChildLook::Missing, false), PinPlan::Occupy);
    assert_eq!(plan_pin(&owned, &OwnerState::Me, ChildLook::Missing, true), PinPlan::Keep);
}

#[test]
fn a_fork_that_its_name_cannot_come_to_lead_to_is_deleted() {
    let left = child(10);
    let other = |owner| NameLook::Other { database: PARENT, owner };
    let plan = |name: &NameLook| plan_leftover(&left, name, false);
    assert_eq!(plan(&NameLook::Itself), LeftoverPlan::Keep);
    assert_eq!(plan(&other(OwnerState::None)), LeftoverPlan::Delete);
    assert_eq!(plan(&NameLook::Nobody), LeftoverPlan::Delete);
    for owner in [OwnerState::Sealed, OwnerState::LeaseOver, OwnerState::Alive { address: String::new() }] {
        assert_eq!(plan(&other(owner)), LeftoverPlan::Keep);
    }
    assert_eq!(plan_leftover(&left, &other(OwnerState::Me), true), LeftoverPlan::Keep);
    let last = left.folded.time_micros;
    // Not before its last commit, whatever the clock says.
    for (now, at_micros) in [(9, last), (last + 9, last + 9)] {
        let deleted = step(&left, delete(&left, now, put(9)));
        assert_eq!(deleted.state, HeadState::Deleted { at_micros });
    }
    let opened = acquire(&left, OTHER, put(8));
    assert_eq!(plan_leftover(&opened, &NameLook::Nobody, false), LeftoverPlan::Keep);
    let never_a_fork = release(&parent(), lsn(10), put(8)).unwrap();
    assert_eq!(plan_leftover(&never_a_fork, &NameLook::Nobody, false), LeftoverPlan::Keep);
}
