//! Imports at every point at which they can stop: the name is either free again, or the database is whole.

mod support;

use bytes::Bytes;
use support::*;
use tenant::head::{Folded, Head, HeadState, MapField};
use tenant::lifecycle;
use tenant::lifecycle::Beginning;
use tenant::registry::{
    Aborted, CreateError, ResolveError, abort_import, begin_import, create_database, finish_import, read_head, resolve,
    resolve_head, swap_head,
};
use walstore::id::{DatabaseId, Lsn, PutId};
use walstore::register::Versioned;
use walstore::seam::Seam;
use walstore::store::{MemoryStore, Store};

fn head_of(seam: &Seam, text: &str, database: DatabaseId) -> Head {
    let folded = Folded { lsn: Lsn::new(3), page_count: 9, pages_total: 9, time_micros: 5, ..Folded::default() };
    let state = (folded, MapField::Inline(Bytes::from_static(b"map")), None);
    lifecycle::imported(&name(text), database, settings(), state, PutId::random(seam))
}

async fn begin(store: &dyn Store, seam: &Seam, text: &str) -> Result<DatabaseId, CreateError> {
    let database = DatabaseId::random(seam);
    begin_import(store, seam, &name(text), database, A, patience()).await.map(|()| database)
}

#[tokio::test]
async fn an_import_is_seen_when_its_head_is_there_and_nobodys() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    let database = begin(&store, &seam, "app").await.unwrap();
    let error = resolve_head(&store, &seam, &name("app"), B, patience()).await;
    // Its maker's record says whether it may still come; there is none here, so it may.
    assert!(matches!(error, Err(ResolveError::Unfinished { incarnation: A, .. })), "{error:?}");
    let head = finish_import(&store, &seam, head_of(&seam, "app", database), A, patience()).await.unwrap();
    assert_eq!((head.value.owner, head.value.horizon), (None, Lsn::new(3)));
    let found = resolve_head(&store, &seam, &name("app"), B, patience()).await.unwrap().unwrap();
    assert_eq!(found.value, head.value);
    let again = begin(&store, &seam, "app").await;
    assert!(matches!(again, Err(CreateError::AlreadyExists { .. })), "{again:?}");
}

#[tokio::test]
async fn an_import_that_is_given_up_frees_its_name_for_good() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    let database = begin(&store, &seam, "app").await.unwrap();
    let aborted = abort_import(&store, &seam, &name("app"), database, A, patience()).await.unwrap();
    assert!(matches!(aborted, Aborted::Gone));
    assert_eq!(resolve(&store, &seam, &name("app"), patience()).await.unwrap(), None);
    // A head that was sent before lands in vain.
    let late = finish_import(&store, &seam, head_of(&seam, "app", database), A, patience()).await;
    assert!(matches!(late, Err(CreateError::DeletedMeanwhile { .. })), "{late:?}");
    let head = read_head(&store, &seam, database, patience()).await.unwrap().unwrap();
    assert_eq!(head.value.state, HeadState::Aborted);
    let other = create_database(&store, &seam, &name("app"), B, settings(), patience()).await.unwrap();
    assert_ne!(other.value.database, database);
    let second = begin(&store, &seam, "other").await.unwrap();
    assert_ne!(second, database);
}

#[tokio::test]
async fn giving_up_finds_a_head_that_had_landed() {
    let (store, seam) = (MemoryStore::new(), Seam::production());
    let database = begin(&store, &seam, "app").await.unwrap();
    let head = finish_import(&store, &seam, head_of(&seam, "app", database), A, patience()).await.unwrap();
    let aborted = abort_import(&store, &seam, &name("app"), database, A, patience()).await.unwrap();
    let Aborted::Lives(found) = aborted else { panic!("it lives") };
    assert_eq!(found.value, head.value);
    assert_eq!(resolve(&store, &seam, &name("app"), patience()).await.unwrap(), Some(database));
}

/// B takes the database, and `then` is what it does to its head.
async fn replaced(
    store: &MemoryStore,
    seam: &Seam,
    head: &Versioned<Head>,
    then: impl FnOnce(&Head, PutId) -> Head,
) -> Versioned<Head> {
    let owned = take_over(store, seam, head.clone(), B).await;
    let next = then(&owned.value, PutId::random(seam));
    won(swap_head(store, seam, &owned, next, patience()).await.unwrap())
}

/// Bug: whoever was never told that the head of its import had landed took any head that is final for its own, aborted.
/// Damage: it deleted what it had uploaded, and what forks of that database, or a restore of it, begin with was gone.
#[tokio::test]
async fn giving_up_finds_an_import_that_has_lived_and_ended_since() {
    for is_moved in [false, true] {
        let (store, seam) = (MemoryStore::new(), Seam::production());
        let database = begin(&store, &seam, "app").await.unwrap();
        let head = finish_import(&store, &seam, head_of(&seam, "app", database), A, patience()).await.unwrap();
        // Somebody else forks it, and deletes it or restores it in place.
        let child = DatabaseId::random(&seam);
        let pinned = |head: &Head, put_id: PutId| {
            let mut next = lifecycle::confirm(head, put_id);
            lifecycle::pin(&mut next, child, Lsn::new(3), Lsn::new(3)).unwrap();
            next
        };
        let head = replaced(&store, &seam, &head, pinned).await;
        if is_moved {
            let shared = MapField::Shared(tenant::head::ChunkRef(Bytes::from_static(b"base")));
            let folded = head.value.folded;
            let beginning = Beginning { parent: database, folded, map: shared, image: None, history: Bytes::new() };
            let new = lifecycle::child_head(&name("app"), child, beginning, settings(), PutId::random(&seam));
            let key = tenant::keys::head(child);
            walstore::register::create(&store, &seam, &key, new, patience()).await.unwrap();
        }
        let ended = replaced(&store, &seam, &head, |head, put_id| match is_moved {
            true => lifecycle::moved(head, child, head.folded.lsn, put_id).unwrap(),
            false => lifecycle::delete(head, 7, put_id),
        });
        let ended = ended.await.value;
        assert!(ended.state.is_final() && ended.is_pinned());

        let aborted = abort_import(&store, &seam, &name("app"), database, A, patience()).await.unwrap();
        let Aborted::Lives(found) = aborted else { panic!("what it uploaded is needed: {ended:?}") };
        assert_eq!(found.value, ended);
        let leads_to = resolve_head(&store, &seam, &name("app"), A, patience()).await.unwrap();
        assert_eq!(leads_to.map(|head| head.value.database), is_moved.then_some(child));
    }
}
