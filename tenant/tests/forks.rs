//! Forks and restores in place, step by step: a node dies at each of its writes, before it or after it without an
//! answer, and what it leaves is finished or undone by others.

mod support;

use std::collections::BTreeSet;

use bytes::Bytes;
use support::*;
use tenant::head::{ChunkRef, Folded, ForkPoint, Head, HeadState, MapField};
use tenant::keys::{self, Written};
use tenant::lifecycle::{self, Beginning, ChildLook, Fold, LeftoverPlan, NameLook, OwnerState, PinPlan};
use tenant::limits;
use tenant::registry::{
    ChildError, Followed, abandon_fork, claim_fork, create_child, create_database, follow_name, occupy,
    read_head, read_name, read_pins, resolve, resolve_head, swap_head, swing_name, unpinned,
};
use walstore::id::{DatabaseId, Lsn, PutId};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::register::{self, Record, Versioned};
use walstore::seam::Seam;
use walstore::store::{Condition, CountedStore, MemoryStore, Op, Store};

const AT: u64 = 7;

/// A database of A with commits up to [`AT`], all of them folded.
async fn parent(store: &dyn Store, seam: &Seam) -> Versioned<Head> {
    let head = create_database(store, seam, &name("app"), A, settings(), patience()).await.unwrap();
    let folded = Folded { lsn: Lsn::new(AT), chain: [1; 16], time_micros: 5, page_count: 1, pages_total: AT };
    let fold = Fold {
        folded,
        own_after: None,
        map: MapField::Inline(Bytes::from_static(b"map")),
        image: None,
        horizon: Lsn::new(AT),
        history: Bytes::new(),
        fold_seq: 1,
        dead: Vec::new(),
    };
    let next = lifecycle::fold(&head.value, fold, PutId::random(seam));
    won(swap_head(store, seam, &head, next, patience()).await.unwrap())
}

fn point(parent: &Head) -> ForkPoint {
    ForkPoint { parent: parent.database, lsn: parent.folded.lsn }
}

async fn pin(store: &dyn Store, seam: &Seam, head: &Versioned<Head>, child: DatabaseId) -> Option<Versioned<Head>> {
    let mut next = head.value.successor(PutId::random(seam));
    let written = Written { epoch: next.epoch, seq: next.fold_seq + 1, nonce: seam.random_u64() };
    let key = keys::pins(next.database, written);
    if let Some(chunk) = lifecycle::spill_pins(&mut next, &key).unwrap() {
        register::put(store, seam, &key, chunk.encode(), patience()).await.ok()?;
        next.fold_seq += 1;
    }
    let at = next.folded.lsn;
    lifecycle::pin(&mut next, child, at, at).unwrap();
    swap_head(store, seam, head, next, patience()).await.ok().map(won)
}

fn child_of(seam: &Seam, parent: &Head, text: &str, child: DatabaseId) -> Head {
    let map = MapField::Shared(ChunkRef(Bytes::from_static(b"base")));
    let beginning =
        Beginning { parent: parent.database, folded: parent.folded, map, image: None, history: Bytes::new() };
    lifecycle::child_head(&name(text), child, beginning, settings(), PutId::random(seam))
}

/// Forks `head` as `fork`. `None`: it was cut off.
async fn fork(store: &dyn Store, seam: &Seam, head: &Versioned<Head>, child: DatabaseId) -> Option<Versioned<Head>> {
    claim_fork(store, seam, (&name("fork"), child), point(&head.value), None, A, patience()).await.ok()?;
    pin(store, seam, head, child).await?;
    create_child(store, seam, child_of(seam, &head.value, "fork", child), patience()).await.ok()
}

/// Restores `head` in place. `None`: it was cut off.
async fn restore(store: &dyn Store, seam: &Seam, head: &Versioned<Head>, child: DatabaseId) -> Option<()> {
    let pinned = pin(store, seam, head, child).await?;
    create_child(store, seam, child_of(seam, &head.value, "app", child), patience()).await.ok()?;
    let next = lifecycle::moved(&pinned.value, child, Lsn::new(AT), PutId::random(seam)).unwrap();
    let moved = won(swap_head(store, seam, &pinned, next, patience()).await.ok()?);
    swing_name(store, seam, (&moved.value, None), None, A, patience()).await.ok().map(drop)
}

/// A is over, and nobody owns what it owned.
async fn bury(store: &MemoryStore, seam: &Seam, database: DatabaseId) -> Versioned<Head> {
    let state = State::Sealed { end: walstore::id::Slot::ZERO };
    let record = IncarnationRecord { state, ..IncarnationRecord::new(A, PutId::random(seam), 1, String::new()) };
    store.put(&walstore::keys::incarnation(A), record.encode(), &Condition::None).await.unwrap();
    let head = read_head(store, seam, database, patience()).await.unwrap().unwrap();
    if head.value.owner.is_none() {
        return head;
    }
    let next = lifecycle::release(&head.value, head.value.folded.lsn, PutId::random(seam)).unwrap();
    won(swap_head(store, seam, &head, next, patience()).await.unwrap())
}

/// What a sweep does about the pins of a database that nobody owns: two looks at each child.
async fn scavenge(store: &MemoryStore, seam: &Seam, mut head: Versioned<Head>) -> Versioned<Head> {
    for _ in 0..2 {
        let pins = read_pins(store, seam, &head.value, patience()).await.unwrap();
        let mut gone = BTreeSet::new();
        for pin in pins.all() {
            let child = read_head(store, seam, pin.child, patience()).await.unwrap();
            let look = child.as_ref().map(|child| {
                let reaches = matches!(child.value.map, MapField::Shared(_));
                ChildLook::Head { head: &child.value, reaches }
            });
            match lifecycle::plan_pin(&head.value, &OwnerState::None, look.unwrap_or(ChildLook::Missing), false) {
                PinPlan::Keep => {}
                PinPlan::Unpin => drop(gone.insert(pin.child)),
                PinPlan::Occupy => {
                    occupy(store, seam, &name("fork"), pin.child, None, patience()).await.unwrap();
                }
            }
        }
        if !gone.is_empty() {
            let next = unpinned(store, seam, &head.value, &pins, &gone, Bytes::new(), patience()).await.unwrap();
            head = won(swap_head(store, seam, &head, next, patience()).await.unwrap());
        }
    }
    head
}

#[tokio::test]
async fn a_death_at_any_write_of_a_fork_leaves_it_or_nothing() {
    let seam = Seam::production();
    let mut deaths = 0;
    for death in [Death::Before, Death::Unanswered] {
        for at in 0.. {
            let store = MemoryStore::new();
            let head = parent(&store, &seam).await;
            let mortal = Mortal::new(store.clone(), at, death);
            let child = DatabaseId::random(&seam);
            let made = fork(&mortal, &seam, &head, child).await;
            let head = bury(&store, &seam, head.value.database).await;
            let found = resolve_head(&store, &seam, &name("fork"), B, patience()).await.unwrap();
            assert!(found.is_some() || made.is_none(), "a fork that was made is gone");
            let head = scavenge(&store, &seam, head).await;
            let pins = read_pins(&store, &seam, &head.value, patience()).await.unwrap();
            assert_eq!(pins.all().count(), usize::from(found.is_some()), "a pin for a fork, and none for nothing");
            let next = DatabaseId::random(&seam);
            let claimed = claim_fork(&store, &seam, (&name("fork"), next), point(&head.value), None, B, patience()).await;
            assert_eq!(claimed.is_ok(), found.is_none(), "the name is free again");
            if !mortal.is_dead() {
                assert!(made.is_some());
                break;
            }
            deaths += 1;
        }
    }
    assert_eq!(deaths, 2 * 3, "name, parent, child");
}

#[tokio::test]
async fn a_death_at_any_write_of_a_restore_in_place_leaves_one_of_the_two_databases() {
    let seam = Seam::production();
    let mut deaths = 0;
    for death in [Death::Before, Death::Unanswered] {
        for at in 0.. {
            let store = MemoryStore::new();
            let head = parent(&store, &seam).await;
            let old = head.value.database;
            let mortal = Mortal::new(store.clone(), at, death);
            let child = DatabaseId::random(&seam);
            let done = restore(&mortal, &seam, &head, child).await;
            let head = bury(&store, &seam, old).await;
            let look = match follow_name(&store, &seam, &name("app"), child, patience()).await.unwrap() {
                Followed::There => NameLook::Itself,
                Followed::Elsewhere(other) => NameLook::Other { database: other.value.database, owner: OwnerState::None },
                other => panic!("{other:?}"),
            };
            let left = read_head(&store, &seam, child, patience()).await.unwrap();
            let is_moved = head.value.state == HeadState::Moved { new: child };
            if let Some(left) = left {
                let is_deleted = lifecycle::plan_leftover(&left.value, &look, false) == LeftoverPlan::Delete;
                assert_eq!(is_deleted, !is_moved, "what no name can come to lead to, and nothing else");
                if is_deleted {
                    let next = lifecycle::delete(&left.value, 1, PutId::random(&seam));
                    won(swap_head(&store, &seam, &left, next, patience()).await.unwrap());
                }
            }
            let found = resolve_head(&store, &seam, &name("app"), B, patience()).await.unwrap().expect("one of the two");
            assert_eq!(found.value.database, if is_moved { child } else { old });
            assert!(is_moved || done.is_none());
            let next = resolve(&store, &seam, &name("app"), patience()).await.unwrap();
            assert_eq!(next, Some(found.value.database), "the name has swung");
            if !mortal.is_dead() {
                assert!(done.is_some());
                break;
            }
            deaths += 1;
        }
    }
    assert_eq!(deaths, 2 * 4, "pin, child, moved, name");
}

#[tokio::test]
async fn a_fork_that_was_given_up_frees_its_name_and_one_that_was_undone_says_so() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    let head = parent(&store, &seam).await;
    let child = DatabaseId::random(&seam);
    let claimed = claim_fork(&store, &seam, (&name("fork"), child), point(&head.value), None, A, patience()).await.unwrap();
    assert!(abandon_fork(&store, &seam, &claimed, patience()).await.unwrap());
    assert_eq!(resolve(&store, &seam, &name("fork"), patience()).await.unwrap(), None);
    let late = create_child(&store, &seam, child_of(&seam, &head.value, "fork", child), patience()).await;
    assert!(matches!(late, Err(ChildError::Undone { child: undone }) if undone == child));

    let child = DatabaseId::random(&seam);
    fork(&store, &seam, &head, child).await.unwrap();
    let claimed = read_name(&store, &seam, &name("fork"), patience()).await.unwrap().unwrap();
    assert!(!abandon_fork(&store, &seam, &claimed, patience()).await.unwrap(), "it lives");
    assert_eq!(resolve(&store, &seam, &name("fork"), patience()).await.unwrap(), Some(child));
}

#[tokio::test]
async fn the_head_of_a_fork_cannot_be_another_than_a_first_one() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    let head = parent(&store, &seam).await;
    let foreign = Head { owner: head.value.owner, tail: head.value.tail.clone(), ..head.value.clone() };
    let refused = create_child(&store, &seam, foreign, patience()).await.unwrap_err();
    assert!(refused.to_string().contains("does not begin as a fork does"), "{refused}");
}

#[tokio::test]
async fn two_hundred_forks_are_pinned_in_chunks_and_let_go_again() {
    let (store, seam) = (CountedStore::new(MemoryStore::new()), Seam::production());
    let mut head = parent(&store, &seam).await;
    let children: Vec<DatabaseId> = (0..200).map(|_| DatabaseId::random(&seam)).collect();
    store.take();
    for child in &children {
        head = pin(&store, &seam, &head, *child).await.unwrap();
    }
    let puts: u64 = store.take().iter().filter(|((op, _), _)| *op == Op::Put).map(|(_, counter)| counter.requests).sum();
    assert_eq!(puts, 200 + 3, "a chunk for every 64th");
    assert_eq!((head.value.pin_chunks.len(), head.value.pins.len()), (3, 200 - 3 * limits::PINS_MAX));
    let pins = read_pins(&store, &seam, &head.value, patience()).await.unwrap();
    assert_eq!(pins.all().map(|pin| pin.child).collect::<BTreeSet<_>>(), children.iter().copied().collect());

    let gone: BTreeSet<DatabaseId> = children.iter().skip(1).copied().collect();
    let next = unpinned(&store, &seam, &head.value, &pins, &gone, Bytes::new(), patience()).await.unwrap();
    let head = won(swap_head(&store, &seam, &head, next, patience()).await.unwrap());
    assert_eq!((head.value.pin_chunks.len(), head.value.pins.len()), (1, 0));
    let pins = read_pins(&store, &seam, &head.value, patience()).await.unwrap();
    assert_eq!(pins.all().map(|pin| pin.child).collect::<Vec<_>>(), children[..1]);
}
