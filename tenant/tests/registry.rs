//! Names and heads in a bucket: what each operation does, costs, and says.

mod support;

use std::collections::BTreeMap;

use bytes::Bytes;
use support::*;
use tenant::due::DueMarker;
use tenant::head::{ForkPoint, Head, HeadState};
use tenant::keys;
use tenant::lifecycle;
use tenant::name::Name;
use tenant::record::{NameRecord, NameState, Origin};
use tenant::registry::{
    CreateError, DeleteError, NamePage, ResolveError, SwapHeadError, claim_fork, create_database, delete_database, list,
    note_made, read_head, read_name, resolve, resolve_head, swap_head, swing_name,
};
use tenant::settings::Settings;
use walstore::id::{DatabaseId, IncarnationId, Lsn, PutId, Slot};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::register::{self, Record, RecordError, Swap, Versioned};
use walstore::seam::Seam;
use walstore::store::{Condition, CountedStore, Key, MemoryStore, Op, Store};

async fn create(store: &dyn Store, seam: &Seam, text: &str, me: IncarnationId) -> Result<Versioned<Head>, CreateError> {
    create_database(store, seam, &name(text), me, settings(), patience()).await
}

/// Seals the record of `id`, or writes it open.
async fn put_incarnation(store: &dyn Store, seam: &Seam, id: IncarnationId, state: State) {
    let record = IncarnationRecord { state, ..IncarnationRecord::new(id, PutId::random(seam), 1, String::new()) };
    let key = walstore::keys::incarnation(id);
    store.put(&key, record.encode(), &Condition::None).await.unwrap();
}

/// A name record whose maker has not written the head.
async fn put_record(store: &dyn Store, seam: &Seam, text: &str, origin: Origin) -> DatabaseId {
    let database = DatabaseId::random(seam);
    let state = NameState::Live { database, origin, incarnation: A, is_made: false };
    let record = NameRecord::new(PutId::random(seam), name(text), state);
    won(register::create(store, seam, &keys::name(&name(text)), record, patience()).await.unwrap());
    database
}

fn puts_and_gets(counters: &walstore::store::Counters) -> BTreeMap<(Op, String), u64> {
    counters.iter().map(|(what, counter)| (what.clone(), counter.requests)).collect()
}

fn cost(rows: &[(Op, &str, u64)]) -> BTreeMap<(Op, String), u64> {
    rows.iter().map(|(op, class, count)| ((*op, (*class).to_owned()), *count)).collect()
}

#[tokio::test]
async fn creating_finding_and_deleting_cost_what_the_readme_says() {
    let (store, seam) = (CountedStore::new(MemoryStore::new()), Seam::production());
    let head = create(&store, &seam, "app", A).await.unwrap();
    assert_eq!((head.value.owner, head.value.settings), (Some(A), settings()));
    assert_eq!(puts_and_gets(&store.take()), cost(&[(Op::Put, "n", 1), (Op::Put, "head", 1)]));

    let database = resolve(&store, &seam, &name("app"), patience()).await.unwrap().unwrap();
    assert_eq!(database, head.value.database);
    assert_eq!(puts_and_gets(&store.take()), cost(&[(Op::Get, "n", 1)]));
    let found = resolve_head(&store, &seam, &name("app"), B, patience()).await.unwrap().unwrap();
    assert_eq!(found.value, head.value);
    assert_eq!(puts_and_gets(&store.take()), cost(&[(Op::Get, "n", 1), (Op::Get, "head", 1)]));

    let deleted = delete_database(&store, &seam, &head, A, patience()).await.unwrap();
    assert!(matches!(deleted.value.state, HeadState::Deleted { .. }));
    let expected = cost(&[(Op::Put, "due", 1), (Op::Put, "head", 1), (Op::Get, "n", 1), (Op::Put, "n", 1)]);
    assert_eq!(puts_and_gets(&store.take()), expected);
    assert_eq!(resolve(&store, &seam, &name("app"), patience()).await.unwrap(), None);
}

#[tokio::test]
async fn what_never_was_is_not_found_and_nothing_is_written() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    assert_eq!(resolve(&store, &seam, &name("app"), patience()).await.unwrap(), None);
    assert!(resolve_head(&store, &seam, &name("app"), A, patience()).await.unwrap().is_none());
    assert!(read_head(&store, &seam, DatabaseId::random(&seam), patience()).await.unwrap().is_none());
    assert_eq!(store.keys(), []);
}

#[tokio::test]
async fn a_name_is_taken_until_it_is_deleted_and_then_leads_to_another_database() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    let first = create(&store, &seam, "app", A).await.unwrap();
    let error = create(&store, &seam, "app", B).await.unwrap_err();
    assert!(matches!(&error, CreateError::AlreadyExists { database, .. } if *database == first.value.database));
    assert!(error.to_string().contains("`app`"), "{error}");
    delete_database(&store, &seam, &first, A, patience()).await.unwrap();
    let second = create(&store, &seam, "app", B).await.unwrap();
    assert_ne!(second.value.database, first.value.database);
    let record = read_name(&store, &seam, &name("app"), patience()).await.unwrap().unwrap().value;
    assert_eq!((record.database(), &record.past[..]), (second.value.database, &[first.value.database][..]));
    assert!(stored_head(&store, first.value.database).unwrap().state.is_final(), "the old head is a fence for ever");
}

#[tokio::test]
async fn of_many_creators_one_succeeds() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    let creators = (0..16u8).map(|byte| {
        let (store, seam) = (store.clone(), seam.clone());
        async move { create(&store, &seam, "app", IncarnationId::from_bytes([byte; 16])).await }
    });
    let results = futures_util::future::join_all(creators).await;
    let winners: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(winners.len(), 1);
    let database = winners[0].value.database;
    let lost = |error: &CreateError| matches!(error, CreateError::AlreadyExists { database: d, .. } if *d == database);
    assert!(results.iter().filter_map(|result| result.as_ref().err()).all(lost));
}

#[tokio::test]
async fn settings_that_no_head_may_have_are_refused_before_anything_is_written() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    let bad = Settings { window_millis: 501, ..settings() };
    let error = create_database(&store, &seam, &name("app"), A, bad, patience()).await.unwrap_err();
    assert!(matches!(error, CreateError::Settings { .. }), "{error}");
    assert_eq!(store.keys(), []);
}

#[tokio::test]
async fn every_lost_answer_is_resolved() {
    let (inner, seam) = (MemoryStore::new(), Seam::production());
    let store = Stammering::new(inner.clone());
    let head = create(&store, &seam, "app", A).await.unwrap();
    let head = take_over(&store, &seam, head, B).await;
    assert_eq!((head.value.version, head.value.epoch, head.value.owner), (2, 2, Some(B)));
    delete_database(&store, &seam, &head, B, patience()).await.unwrap();
    let page = list(&store, &seam, "", None, 10, patience()).await.unwrap();
    assert_eq!(page, NamePage { names: vec![], next: None });
    assert_eq!(stored_head(&inner, head.value.database).unwrap().version, 3);
}

#[tokio::test]
async fn a_swap_that_loses_shows_what_won_and_a_bad_successor_is_never_sent() {
    let (store, seam) = (CountedStore::new(MemoryStore::new()), Seam::production());
    let head = create(&store, &seam, "app", A).await.unwrap();
    let taken = take_over(&store, &seam, head.clone(), B).await;
    let late = lifecycle::delete(&head.value, 1, PutId::random(&seam));
    match swap_head(&store, &seam, &head, late, patience()).await.unwrap() {
        Swap::Lost(Some(found)) => assert_eq!(found.value, taken.value),
        other => panic!("{other:?}"),
    }
    store.take();
    let bad = Head { epoch: 9, ..taken.value.successor(PutId::random(&seam)) };
    let error = swap_head(&store, &seam, &taken, bad, patience()).await.unwrap_err();
    assert!(matches!(error, SwapHeadError::Invariant { .. }), "{error}");
    assert!(error.to_string().contains(keys::head(head.value.database).as_str()), "{error}");
    assert!(store.take().is_empty());
    store.delete(&keys::head(head.value.database)).await.unwrap();
    let next = taken.value.successor(PutId::random(&seam));
    let error = swap_head(&store, &seam, &taken, next, patience()).await.unwrap_err();
    assert!(matches!(error, SwapHeadError::Gone { .. }), "{error}");
}

#[tokio::test]
async fn only_the_owner_deletes_and_only_what_it_has_seen() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    let head = create(&store, &seam, "app", A).await.unwrap();
    let error = delete_database(&store, &seam, &head, B, patience()).await.unwrap_err();
    assert!(matches!(error, DeleteError::NotOwner { .. }), "{error}");
    let taken = take_over(&store, &seam, head.clone(), B).await;
    match delete_database(&store, &seam, &head, A, patience()).await.unwrap_err() {
        DeleteError::Conflict { found } => assert_eq!(found.value, taken.value),
        other => panic!("{other}"),
    }
    assert!(resolve(&store, &seam, &name("app"), patience()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_delete_is_announced_under_its_day() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    let head = create(&store, &seam, "app", A).await.unwrap();
    delete_database(&store, &seam, &head, A, patience()).await.unwrap();
    let (key, object) = store.snapshot().into_iter().find(|(key, _)| key.as_str().starts_with("due/")).unwrap();
    let marker = DueMarker::decode(&object).unwrap();
    assert_eq!(keys::due(marker.due_micros, head.value.database, marker.kind), key);
    assert_eq!(keys::parse_due(&key).unwrap().1, head.value.database);
}

#[tokio::test]
async fn a_fork_without_a_head_waits_for_its_maker_and_is_undone_once_that_is_sealed() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    let point = ForkPoint { parent: DatabaseId::random(&seam), lsn: Lsn::new(5) };
    for (text, origin) in [("fork", Origin::Fork(point)), ("import", Origin::Import)] {
        let database = put_record(&store, &seam, text, origin).await;
        put_incarnation(&store, &seam, A, State::Open).await;
        let error = resolve_head(&store, &seam, &name(text), B, patience()).await.unwrap_err();
        assert!(matches!(error, ResolveError::Unfinished { incarnation: A, .. }), "{error}");
        let error = create(&store, &seam, text, B).await.unwrap_err();
        assert!(matches!(error, CreateError::Resolve(ResolveError::Unfinished { .. })), "{error}");

        put_incarnation(&store, &seam, A, State::Sealed { end: Slot::ZERO }).await;
        assert!(resolve_head(&store, &seam, &name(text), B, patience()).await.unwrap().is_none());
        let head = stored_head(&store, database).unwrap();
        assert_eq!(head.state, HeadState::Aborted);
        assert_eq!(head.parent, if let Origin::Fork(point) = origin { Some(point) } else { None });
        let record = read_name(&store, &seam, &name(text), patience()).await.unwrap().unwrap().value;
        assert!(matches!(record.state, NameState::Deleted { database: d, .. } if d == database));
    }
}

#[tokio::test]
async fn a_fork_whose_head_arrives_late_is_not_undone() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    let point = ForkPoint { parent: DatabaseId::random(&seam), lsn: None };
    let database = put_record(&store, &seam, "fork", Origin::Fork(point)).await;
    put_incarnation(&store, &seam, A, State::Sealed { end: Slot::ZERO }).await;
    let head = lifecycle::first_head(&name("fork"), database, A, settings(), PutId::random(&seam));
    won(register::create(&store, &seam, &keys::head(database), head, patience()).await.unwrap());
    let found = resolve_head(&store, &seam, &name("fork"), B, patience()).await.unwrap().unwrap();
    assert_eq!((found.value.database, found.value.state), (database, HeadState::Live));
}

/// Database of a restore in place whose name was not swung, and the one that took its place.
async fn half_restored(store: &dyn Store, seam: &Seam, text: &str) -> (Versioned<Head>, DatabaseId) {
    let old = create(store, seam, text, A).await.unwrap();
    let new = DatabaseId::random(seam);
    let mut head = lifecycle::first_head(&name(text), new, A, settings(), PutId::random(seam));
    head.parent = Some(ForkPoint { parent: old.value.database, lsn: None });
    won(register::create(store, seam, &keys::head(new), head, patience()).await.unwrap());
    let moved = lifecycle::release(&old.value, None, PutId::random(seam)).unwrap();
    let moved = Head { state: HeadState::Moved { new }, ..moved };
    (won(swap_head(store, seam, &old, moved, patience()).await.unwrap()), new)
}

#[tokio::test]
async fn a_restore_in_place_is_finished_by_whoever_meets_the_moved_head() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    let (old, new) = half_restored(&store, &seam, "app").await;
    let found = resolve_head(&store, &seam, &name("app"), B, patience()).await.unwrap().unwrap();
    assert_eq!(found.value.database, new);
    let record = read_name(&store, &seam, &name("app"), patience()).await.unwrap().unwrap().value;
    assert_eq!((record.database(), &record.past[..]), (new, &[old.value.database][..]));
}

#[tokio::test]
async fn a_name_whose_record_is_known_is_swung_with_one_put_and_an_old_record_does_no_harm() {
    let (store, seam) = (CountedStore::new(MemoryStore::new()), Seam::production());
    let record = async |text: &str| read_name(&store, &seam, &name(text), patience()).await.unwrap().unwrap();
    let swing = async |old: &Versioned<Head>, known| {
        store.take();
        let swung = swing_name(&store, &seam, (&old.value, None), known, A, patience()).await.unwrap();
        (swung, puts_and_gets(&store.take()))
    };
    for is_old in [false, true] {
        let text = if is_old { "old" } else { "known" };
        let (old, new) = half_restored(&store, &seam, text).await;
        let known = record(text).await;
        if is_old {
            // Somebody folded it before it ended.
            note_made(&store, &seam, &old.value, patience()).await.unwrap();
            assert_ne!(record(text).await.etag, known.etag);
        }
        let (swung, spent) = swing(&old, Some(known.clone())).await;
        let swung = swung.expect("it led to the old one");
        assert!(swung.value.leads_to(new) && swung.value.past == [old.value.database], "{swung:?}");
        assert_eq!((swung.value.clone(), swung.etag), (record(text).await.value, record(text).await.etag));
        match is_old {
            false => assert_eq!(spent, cost(&[(Op::Put, "n", 1)])),
            true => assert_eq!(spent, cost(&[(Op::Get, "n", 1), (Op::Put, "n", 2)]), "one refused, the other on what is there"),
        }
        // It is done, whatever is known.
        for known in [Some(known), Some(record(text).await), None] {
            assert!(swing(&old, known).await.0.is_none());
            assert_eq!(record(text).await.value, swung.value);
        }
    }
}

#[tokio::test]
async fn a_moved_head_that_leads_nowhere_is_corruption_that_names_it() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    let (old, new) = half_restored(&store, &seam, "app").await;
    store.delete(&keys::head(new)).await.unwrap();
    let error = resolve_head(&store, &seam, &name("app"), B, patience()).await.unwrap_err().to_string();
    assert!(error.contains(keys::head(old.value.database).as_str()) && error.contains("no head"), "{error}");
}

#[tokio::test]
async fn a_lost_head_of_a_database_that_was_made_is_corruption_and_its_name_stays_taken() {
    let (store, seam) = (CountedStore::new(MemoryStore::new()), Seam::production());
    let head = create(&store, &seam, "app", A).await.unwrap();
    store.take();
    note_made(&store, &seam, &head.value, patience()).await.unwrap();
    assert_eq!(puts_and_gets(&store.take()), cost(&[(Op::Get, "n", 1), (Op::Put, "n", 1)]));
    note_made(&store, &seam, &head.value, patience()).await.unwrap();
    assert_eq!(puts_and_gets(&store.take()), cost(&[(Op::Get, "n", 1)]), "it says so already");

    let key = keys::head(head.value.database);
    let aborted = lifecycle::abort(&name("app"), head.value.database, None, 1, PutId::random(&seam));
    store.delete(&key).await.unwrap();
    for instead in [None, Some(aborted.encode())] {
        if let Some(instead) = instead {
            store.put(&key, instead, &Condition::None).await.unwrap();
        }
        let found = resolve_head(&store, &seam, &name("app"), B, patience()).await.unwrap_err().to_string();
        let created = create(&store, &seam, "app", B).await.unwrap_err().to_string();
        assert!(found.contains(key.as_str()) && created.contains(key.as_str()), "{found}, {created}");
    }
    let record = read_name(&store, &seam, &name("app"), patience()).await.unwrap().unwrap().value;
    assert!(record.leads_to(head.value.database), "{record:?}");
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_or_nowhere_is_not_noted_as_made() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    let first = create(&store, &seam, "app", A).await.unwrap();
    delete_database(&store, &seam, &first, A, patience()).await.unwrap();
    let record = || async { read_name(&store, &seam, &name("app"), patience()).await.unwrap().unwrap().value };
    let deleted = record().await;
    note_made(&store, &seam, &first.value, patience()).await.unwrap();
    assert_eq!(record().await, deleted);
    create(&store, &seam, "app", B).await.unwrap();
    let second = record().await;
    note_made(&store, &seam, &first.value, patience()).await.unwrap();
    assert_eq!(record().await, second);

    let (old, new) = half_restored(&store, &seam, "other").await;
    resolve_head(&store, &seam, &name("other"), B, patience()).await.unwrap();
    note_made(&store, &seam, &old.value, patience()).await.unwrap();
    let swung = read_name(&store, &seam, &name("other"), patience()).await.unwrap().unwrap().value.state;
    assert!(matches!(swung, NameState::Live { database, is_made: true, .. } if database == new), "{swung:?}");
}

/// A's answers get lost, and meanwhile B has finished the database and folded it.
#[tokio::test]
async fn a_creator_whose_database_was_finished_and_folded_by_another_has_created_it() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    let database = DatabaseId::random(&seam);
    let point = ForkPoint { parent: DatabaseId::random(&seam), lsn: None };
    let child = (&name("app"), database);
    claim_fork(&store, &seam, child, point, None, A, patience()).await.unwrap();
    let head = lifecycle::first_head(&name("app"), database, B, settings(), PutId::random(&seam));
    note_made(&store, &seam, &head, patience()).await.unwrap();
    let again = claim_fork(&store, &seam, child, point, None, A, patience()).await.unwrap();
    assert!(again.value.leads_to(database));
}

#[tokio::test]
async fn objects_under_foreign_keys_are_corruption() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    let head = create(&store, &seam, "app", A).await.unwrap();
    let objects = store.snapshot();
    let record = objects[&keys::name(&name("app"))].clone();
    store.put(&keys::name(&name("other")), record, &Condition::None).await.unwrap();
    let error = resolve(&store, &seam, &name("other"), patience()).await.unwrap_err().to_string();
    assert!(error.contains("n/other") && error.contains("`app`"), "{error}");

    let other = DatabaseId::random(&seam);
    let object = objects[&keys::head(head.value.database)].clone();
    store.put(&keys::head(other), object, &Condition::None).await.unwrap();
    let error = read_head(&store, &seam, other, patience()).await.unwrap_err();
    assert!(matches!(&error, RecordError::Corrupt(corrupt) if corrupt.key == keys::head(other).as_str()), "{error}");

    let foreign = lifecycle::create(&name("alias"), head.value.database, A, settings(), None, [PutId::random(&seam); 2]);
    store.put(&keys::name(&name("alias")), foreign.0.encode(), &Condition::None).await.unwrap();
    let error = resolve_head(&store, &seam, &name("alias"), A, patience()).await.unwrap_err().to_string();
    assert!(error.contains("`alias` leads to it, but its name is `app`"), "{error}");

    store.put(&keys::name(&name("app")), Bytes::from_static(b"rubbish"), &Condition::None).await.unwrap();
    let error = create(&store, &seam, "app", A).await.unwrap_err().to_string();
    assert!(error.contains("n/app"), "{error}");
}

async fn pages(store: &dyn Store, seam: &Seam, prefix: &str, limit: usize) -> (Vec<String>, usize) {
    let (mut names, mut count, mut after) = (Vec::new(), 0, None::<Name>);
    loop {
        let page = list(store, seam, prefix, after.as_ref(), limit, patience()).await.unwrap();
        assert!(page.names.len() <= limit);
        names.extend(page.names.iter().map(Name::to_string));
        count += 1;
        match page.next {
            Some(next) => after = Some(next),
            None => return (names, count),
        }
    }
}

#[tokio::test]
async fn a_listing_shows_live_names_in_order_page_by_page() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    for number in 0..50 {
        let head = create(&store, &seam, &format!("app-{number:02}"), A).await.unwrap();
        if (10..40).contains(&number) {
            delete_database(&store, &seam, &head, A, patience()).await.unwrap();
        }
    }
    create(&store, &seam, "other", A).await.unwrap();
    let live: Vec<String> = (0..10).chain(40..50).map(|number| format!("app-{number:02}")).collect();
    assert_eq!(pages(&store, &seam, "app", 1000).await, (live.clone(), 1));
    assert_eq!(pages(&store, &seam, "app", 7).await, (live.clone(), 8), "pages of deleted names are empty, not the end");
    assert_eq!(pages(&store, &seam, "app-4", 10).await.0, &live[10..]);
    assert_eq!(pages(&store, &seam, "", 1000).await.0.len(), 21);
    for nothing in ["x", "../t", "app/", "é", "APP", &"a".repeat(64)] {
        assert_eq!(pages(&store, &seam, nothing, 10).await, (vec![], 1), "{nothing}");
    }
}

#[tokio::test]
async fn a_page_costs_one_list_and_a_get_per_record() {
    let (store, seam) = (CountedStore::new(MemoryStore::new()), Seam::production());
    for number in 0..40 {
        create(&store, &seam, &format!("app-{number:02}"), A).await.unwrap();
    }
    store.take();
    list(&store, &seam, "", None, 25, patience()).await.unwrap();
    assert_eq!(puts_and_gets(&store.take()), cost(&[(Op::List, "n", 1), (Op::Get, "n", 25)]));
}

#[tokio::test]
async fn strays_and_damaged_records_do_not_hide_the_others() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    create(&store, &seam, "app", A).await.unwrap();
    for key in ["n/.hidden", "n/bad", "n/zz/z"] {
        store.put(&Key::new(key), Bytes::from_static(b"rubbish"), &Condition::None).await.unwrap();
    }
    assert_eq!(pages(&store, &seam, "", 10).await.0, ["app", "bad"], "a damaged name is not free, so it shows");
    let error = list(&store, &seam, "", None, 1, patience()).await.unwrap_err().to_string();
    assert!(error.contains("n/.hidden"), "{error}");
}
