//! Each transition, and what the invariant refuses.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use walstore::register::Record;

use super::*;
use crate::head::{Pin, invariant};

const DATABASE: DatabaseId = DatabaseId::from_bytes([1; 16]);
const C_DATABASE: DatabaseId = DatabaseId::from_bytes([9; 16]);
const A: IncarnationId = IncarnationId::from_bytes([0xa; 16]);
const B: IncarnationId = IncarnationId::from_bytes([0xb; 16]);
const C: IncarnationId = IncarnationId::from_bytes([0xc; 16]);

fn put(number: u64) -> PutId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    PutId::from_bytes(bytes)
}

fn app() -> Name {
    Name::parse("app").unwrap()
}

fn new_head() -> Head {
    first_head(&app(), DATABASE, A, Settings::new(1), put(1))
}

fn lsn(lsn: u64) -> Option<Lsn> {
    Lsn::new(lsn)
}

/// A fold up to `to`, by an owner whose first commit is the one after `own_after`.
fn fold_to(head: &Head, to: u64, own_after: u64) -> Fold {
    let folded = Folded {
        lsn: lsn(to),
        chain: [to as u8; 16],
        time_micros: to * 100_000_000,
        page_count: 1,
        pages_total: to,
    };
    Fold {
        folded: if lsn(to) == head.folded.lsn { head.folded } else { folded },
        own_after: lsn(own_after),
        map: MapField::Inline(Bytes::copy_from_slice(&to.to_le_bytes())),
        image: Some(Bytes::copy_from_slice(&[to as u8; 3])),
        horizon: head.horizon,
        history: Bytes::copy_from_slice(&[to as u8; 5]),
        fold_seq: head.fold_seq + 1,
        dead: head.dead.clone(),
    }
}

/// The successor, after checking that it may be one.
fn step(before: &Head, after: Head) -> Head {
    assert_eq!(invariant(before, &after), Ok(()));
    after
}

fn tail(head: &Head) -> Vec<(IncarnationId, u64, u64)> {
    head.tail.iter().map(|entry| (entry.incarnation, entry.epoch, Lsn::raw(entry.after))).collect()
}

#[test]
fn a_new_database_is_its_creators_at_epoch_1() {
    let (record, head) = create(&app(), DATABASE, A, Settings::new(1), None, [put(1), put(2)]);
    assert_eq!(head.check(), Ok(()));
    assert_eq!((head.owner, head.epoch, head.version, tail(&head)), (Some(A), 1, 1, vec![(A, 1, 0)]));
    assert_eq!((record.database(), record.version, &record.past[..]), (DATABASE, 1, &[][..]));
    let again = DatabaseId::from_bytes([2; 16]);
    let deleted = record.deleted(9, put(3));
    let (record, _) = create(&app(), again, B, Settings::new(1), Some(&deleted), [put(4), put(5)]);
    assert_eq!((record.database(), record.version, &record.past[..]), (again, 3, &[DATABASE][..]));
}

#[test]
fn opening_follows_the_owner() {
    let mine = new_head();
    let alive = OwnerState::Alive { address: "http://a".into() };
    let elsewhere = OpenPlan::OwnedElsewhere { incarnation: A, address: "http://a".into() };
    assert_eq!(plan_open(&mine, A, OwnerState::Me), OpenPlan::Serve);
    assert_eq!(plan_open(&mine, A, OwnerState::MeLeaving), OpenPlan::Confirm);
    step(&mine, confirm(&mine, put(2)));
    assert_eq!(plan_open(&mine, B, alive), elsewhere);
    assert_eq!(plan_open(&mine, B, OwnerState::LeaseOver), OpenPlan::SealFirst(A));
    assert_eq!(plan_open(&mine, B, OwnerState::Sealed), OpenPlan::Acquire);
    let free = step(&mine, release(&mine, None, put(2)).unwrap());
    assert_eq!(plan_open(&free, A, OwnerState::None), OpenPlan::Acquire);
    let deleted = step(&mine, delete(&mine, 5, put(2)));
    assert_eq!(plan_open(&deleted, A, OwnerState::None), OpenPlan::Gone(HeadState::Deleted { at_micros: 5 }));
}

#[test]
fn a_state_of_another_owner_is_never_acted_upon() {
    let mine = new_head();
    for state in [OwnerState::None, OwnerState::Sealed, OwnerState::LeaseOver] {
        assert_eq!(plan_open(&mine, A, state), OpenPlan::ReadAgain);
    }
    for state in [OwnerState::None, OwnerState::Me, OwnerState::MeLeaving] {
        assert_eq!(plan_open(&mine, B, state), OpenPlan::ReadAgain);
    }
    let free = release(&mine, None, put(2)).unwrap();
    for state in [OwnerState::Me, OwnerState::MeLeaving, OwnerState::Sealed, OwnerState::LeaseOver] {
        assert_eq!(plan_open(&free, A, state), OpenPlan::ReadAgain);
    }
}

#[test]
fn each_owner_adds_its_entry_and_a_full_tail_is_drained_first() {
    let mut head = new_head();
    while head.tail.len() < limits::TAIL_ENTRIES_MAX {
        let next = IncarnationId::from_bytes((head.epoch as u128).to_le_bytes());
        assert_eq!(plan_open(&head, next, OwnerState::Sealed), OpenPlan::Acquire);
        head = step(&head, acquire(&head, next, put(head.version + 1)));
    }
    assert_eq!(plan_open(&head, C, OwnerState::Sealed), OpenPlan::DrainFirst);
    let drained = step(&head, drain(&head, fold_to(&head, 9, 0), lsn(9), put(0)).unwrap());
    assert_eq!((drained.owner, tail(&drained), drained.epoch), (None, vec![], head.epoch + 1));
    let acquired = step(&drained, acquire(&drained, C, put(1)));
    assert_eq!(tail(&acquired), [(C, head.epoch + 2, 9)]);
}

/// Bug: a node that was sealed without knowing it acquired its former database again, once its successor was sealed
/// too. Damage: it left out its own commits, which it took to be in its open log; its next fold would have dropped
/// them from the tail. Fix: its entry in the tail of another owner's head tells it that it is over.
#[test]
fn a_node_that_others_have_succeeded_knows_that_it_is_over() {
    let theirs = step(&new_head(), acquire(&new_head(), B, put(2)));
    for state in [OwnerState::Sealed, OwnerState::LeaseOver, OwnerState::Alive { address: String::new() }] {
        assert_eq!(plan_open(&theirs, A, state), OpenPlan::Fenced);
    }
    assert_eq!(plan_open(&theirs, C, OwnerState::Sealed), OpenPlan::Acquire);
    // Given up by B, the database has no tail. A may win it, read all of it, and never acknowledge anything.
    let free = step(&theirs, drain(&theirs, fold_to(&theirs, 3, 0), lsn(3), put(3)).unwrap());
    assert_eq!(plan_open(&free, A, OwnerState::None), OpenPlan::Acquire);
}

#[test]
fn a_fold_drops_earlier_entries_once_all_their_commits_are_folded() {
    // A wrote 1..=10 and folded none; B wrote 11..=20; C is the owner and wrote 21..=30.
    let a = new_head();
    let b = step(&a, acquire(&a, B, put(2)));
    let c = step(&b, acquire(&b, C, put(3)));
    assert_eq!(tail(&c), [(A, 1, 0), (B, 2, 0), (C, 3, 0)]);
    let part = step(&c, fold(&c, fold_to(&c, 15, 20), put(4)));
    assert_eq!(tail(&part), [(A, 1, 15), (B, 2, 15), (C, 3, 20)], "LSNs 16..=20 are in B's log alone");
    let forgetful = step(&part, fold(&part, fold_to(&part, 16, 0), put(5)));
    assert_eq!(tail(&forgetful), [(A, 1, 16), (B, 2, 16), (C, 3, 20)], "the head remembers where C began");
    let all = step(&part, fold(&part, fold_to(&part, 20, 20), put(5)));
    assert_eq!(tail(&all), [(C, 3, 20)]);
    let more = step(&all, fold(&all, fold_to(&all, 30, 20), put(6)));
    assert_eq!((tail(&more), more.folded.lsn), (vec![(C, 3, 30)], lsn(30)));
}

#[test]
fn a_fold_without_commits_tidies_the_tail() {
    let a = new_head();
    let b = step(&a, acquire(&a, B, put(2)));
    let tidy = step(&b, fold(&b, fold_to(&b, 0, 0), put(3)));
    assert_eq!(tail(&tidy), [(B, 2, 0)]);
}

#[test]
fn nothing_is_released_before_it_is_folded() {
    let head = new_head();
    let folded = step(&head, fold(&head, fold_to(&head, 7, 0), put(2)));
    let error = release(&folded, lsn(8), put(3)).unwrap_err();
    assert_eq!(error, NotFolded { database: DATABASE, folded: lsn(7), last: lsn(8) });
    assert_eq!(drain(&folded, fold_to(&folded, 8, 0), lsn(9), put(3)).unwrap_err().last, lsn(9));
    let free = step(&folded, release(&folded, lsn(7), put(3)).unwrap());
    assert_eq!((free.owner, free.epoch, tail(&free)), (None, 2, vec![]));
    let back = step(&free, acquire(&free, A, put(4)));
    assert_eq!(tail(&back), [(A, 3, 7)], "the same node's second term has another epoch");
}

#[test]
fn commits_belong_to_the_term_in_which_they_were_logged() {
    let entry = TailEntry { incarnation: A, epoch: 3, after: lsn(7) };
    let holds = |incarnation, epoch, at| entry.holds(incarnation, epoch, Lsn::new(at).unwrap());
    assert!(holds(A, 3, 8));
    assert!(!holds(A, 3, 7), "folded before");
    assert!(!holds(A, 1, 8), "an earlier term of the same node");
    assert!(!holds(B, 3, 8), "somebody who lost the race for the epoch");
}

#[test]
fn a_deleted_head_keeps_what_forks_need() {
    let mut head = fold(&new_head(), fold_to(&new_head(), 7, 0), put(2));
    head.pins = vec![Pin { child: DatabaseId::from_bytes([9; 16]), lsn: lsn(5) }];
    head.dead = vec![PackRef(Bytes::from_static(b"pack"))];
    let deleted = step(&head, delete(&head, 5, put(3)));
    assert_eq!((&deleted.pins, &deleted.dead, &deleted.map), (&head.pins, &head.dead, &head.map));
    assert_eq!((deleted.owner, deleted.epoch, tail(&deleted)), (None, 2, vec![]));
    let unpinned = Head { pins: Vec::new(), ..deleted.successor(put(4)) };
    step(&deleted, unpinned);
}

#[test]
fn an_aborted_head_is_valid_and_final() {
    let point = ForkPoint { parent: DatabaseId::from_bytes([9; 16]), lsn: lsn(5) };
    let head = abort(&app(), DATABASE, Some(point), 7, put(1));
    assert_eq!(Head::decode(&head.encode()), Ok(head.clone()));
    assert_eq!(plan_open(&head, A, OwnerState::None), OpenPlan::Gone(HeadState::Aborted));
}

#[test]
fn the_invariant_refuses_what_would_lose_data() {
    let start = new_head();
    let owned = step(&start, fold(&start, fold_to(&start, 7, 0), put(2)));
    let two = step(&owned, acquire(&owned, B, put(3)));
    let deleted = delete(&owned, 5, put(3));
    let free = release(&owned, lsn(7), put(3)).unwrap();
    let gone = shrink(&deleted, Bytes::new(), put(4));
    let next = |head: &Head| head.successor(put(99));
    let rows: Vec<(&str, &Head, Head)> = vec![
        ("version 2 after 2", &owned, Head { version: 2, ..next(&owned) }),
        ("put id", &owned, owned.successor(owned.put_id)),
        ("a head of", &owned, Head { database: DatabaseId::from_bytes([9; 16]), ..next(&owned) }),
        ("another name", &owned, Head { name: Name::parse("other").unwrap(), ..next(&owned) }),
        ("another name", &owned, Head { settings: Settings::new(2), ..next(&owned) }),
        ("folded falls", &owned, {
            let tail = vec![TailEntry { after: lsn(6), ..owned.tail[0] }];
            Head { folded: Folded { lsn: lsn(6), ..owned.folded }, tail, ..next(&owned) }
        }),
        ("another commit", &owned, Head { folded: Folded { chain: [9; 16], ..owned.folded }, ..next(&owned) }),
        ("epoch 2 after 1", &owned, {
            let tail = vec![TailEntry { epoch: 2, ..owned.tail[0] }];
            Head { epoch: 2, tail, ..next(&owned) }
        }),
        ("epoch 1 after 1", &owned, {
            let tail = vec![TailEntry { incarnation: B, ..owned.tail[0] }];
            Head { owner: Some(B), tail, ..next(&owned) }
        }),
        ("earlier entries", &owned, {
            let taken = acquire(&owned, B, put(99));
            Head { tail: taken.tail[1..].to_vec(), ..taken }
        }),
        ("more than the owner", &owned, Head { map: MapField::default(), ..acquire(&owned, B, put(99)) }),
        ("the tail grows", &two, {
            let entry = TailEntry { incarnation: C, epoch: 1, ..two.tail[1] };
            let first = TailEntry { epoch: 0, ..two.tail[0] };
            Head { tail: vec![first, entry, two.tail[1]], ..next(&two) }
        }),
        ("fold 1 at epoch 2 after 1", &owned, Head { fold_seq: 1, ..release(&owned, lsn(7), put(99)).unwrap() }),
        ("fold 0 at epoch 1 after 1", &owned, Head { fold_seq: 0, ..next(&owned) }),
        ("without an owner", &free, Head { dead: vec![PackRef(Bytes::from_static(b"pack"))], ..next(&free) }),
        ("without an owner", &free, Head { map: MapField::default(), ..next(&free) }),
        ("without an owner", &free, Head { settings: Settings { retention_secs: 9, ..free.settings }, ..next(&free) }),
        ("without an owner", &free, Head { fold_seq: 1, folded: Folded { lsn: lsn(8), ..free.folded }, ..next(&free) }),
        ("without an owner", &free, Head { fold_seq: 1, ..delete(&Head { map: MapField::default(), ..free.clone() }, 5, put(99)) }),
        ("without an owner", &deleted, Head { fold_seq: 1, map: MapField::Inline(Bytes::from_static(b"x")), ..next(&deleted) }),
        ("without an owner", &deleted, Head { map: MapField::Inline(Bytes::from_static(b"x")), ..next(&deleted) }),
        ("a pin without an owner", &free, Head { pins: vec![Pin { child: C_DATABASE, lsn: lsn(7) }], ..next(&free) }),
        ("a pin of what is gone", &gone, Head { pins: vec![Pin { child: C_DATABASE, lsn: lsn(7) }], ..next(&gone) }),
        ("Live after Deleted", &deleted, Head { state: HeadState::Live, ..next(&deleted) }),
        ("after Deleted", &deleted, Head { state: HeadState::Aborted, ..next(&deleted) }),
        ("Aborted after Live", &owned, Head { state: HeadState::Aborted, ..delete(&owned, 5, put(99)) }),
        ("Deleted { at_micros: 6 } after", &deleted, Head {
            state: HeadState::Deleted { at_micros: 6 },
            ..next(&deleted)
        }),
        ("but owned by", &deleted, acquire(&Head { state: HeadState::Live, ..deleted.clone() }, A, put(99))),
    ];
    for (message, before, after) in rows {
        let after = match message {
            "but owned by" => Head { state: deleted.state.clone(), ..after },
            _ => after,
        };
        let refusal = invariant(before, &after).expect_err(message);
        assert!(refusal.contains(message), "{refusal:?} does not say {message:?}");
    }
}

#[test]
fn what_nobody_owns_can_be_compacted() {
    let start = new_head();
    let owned = step(&start, fold(&start, fold_to(&start, 7, 0), put(2)));
    let free = step(&owned, release(&owned, lsn(7), put(3)).unwrap());
    let mut closer = fold_to(&free, 7, 7);
    (closer.map, closer.fold_seq) = (MapField::Inline(Bytes::from_static(b"closer")), free.fold_seq + 1);
    closer.dead = vec![PackRef(Bytes::from_static(b"pack"))];
    let compacted = step(&free, fold(&free, closer.clone(), put(4)));
    assert_eq!((compacted.owner, compacted.epoch, compacted.folded), (None, free.epoch, free.folded));
    // Its objects would have the number of those that are linked.
    closer.fold_seq = free.fold_seq;
    assert!(invariant(&free, &fold(&free, closer, put(4))).unwrap_err().contains("without an owner"));
}

#[test]
fn the_horizon_and_commit_times_never_go_back() {
    let start = new_head();
    let mut first = fold_to(&start, 7, 0);
    first.horizon = lsn(5);
    let head = step(&start, fold(&start, first, put(2)));
    let mut earlier = fold_to(&head, 8, 0);
    earlier.horizon = lsn(4);
    assert!(invariant(&head, &fold(&head, earlier, put(3))).unwrap_err().contains("the horizon falls"));
    let mut slower = fold_to(&head, 8, 0);
    slower.folded.time_micros = head.folded.time_micros;
    assert!(invariant(&head, &fold(&head, slower, put(3))).unwrap_err().contains("commit time"));
}

proptest! {
    /// Whatever owners come and go and however they fold, every step is one that may be written, and what
    /// the head says about the tail stays true of the commits that were made.
    #[test]
    fn every_walk_through_life_keeps_the_invariants(steps in vec((0u8..5, 0u64..8), 0..60)) {
        let mut head = new_head();
        let mut history: Vec<(IncarnationId, u64)> = Vec::new();
        let mut own_after = 0;
        for (kind, amount) in steps {
            let last = history.len() as u64;
            let next = match (kind, head.owner) {
                (0 | 1, Some(owner)) => {
                    history.extend((0..amount).map(|_| (owner, head.epoch)));
                    continue;
                }
                (2, Some(_)) => {
                    let folded = Lsn::raw(head.folded.lsn);
                    let to = (folded + amount).min(last);
                    fold(&head, fold_to(&head, to, own_after), put(head.version + 1))
                }
                (3, Some(_)) => match release(&head, lsn(last), put(head.version + 1)) {
                    Ok(next) => next,
                    Err(_) => drain(&head, fold_to(&head, last, own_after), lsn(last), put(head.version + 1)).unwrap(),
                },
                (_, owner) => {
                    own_after = last;
                    let next = [A, B, C].into_iter().find(|id| Some(*id) != owner).unwrap();
                    acquire(&head, next, put(head.version + 1))
                }
            };
            head = step(&head, next);
            prop_assert_eq!(Head::decode(&head.encode()), Ok(head.clone()));
            let unfolded = (1..).zip(&history).skip(Lsn::raw(head.folded.lsn) as usize);
            for (at, (incarnation, epoch)) in unfolded {
                let at = Lsn::new(at).unwrap();
                let holders = head.tail.iter().filter(|entry| entry.holds(*incarnation, *epoch, at));
                prop_assert_eq!(holders.count(), 1, "LSN {} in {:?}", at, head.tail);
            }
        }
    }
}
