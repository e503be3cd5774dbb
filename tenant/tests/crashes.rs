//! A node dies at each of its writes, before it or after it without an answer; another node finds a bucket
//! that it can finish.

mod support;

use support::*;
use tenant::head::{Head, HeadState};
use tenant::keys;
use tenant::lifecycle;
use tenant::registry::{CreateError, create_database, delete_database, list, resolve_head, swap_head};
use walstore::id::{DatabaseId, PutId};
use walstore::register::{self, Versioned};
use walstore::seam::Seam;
use walstore::store::{MemoryStore, Store};

#[derive(Clone, Copy, Debug)]
enum Operation {
    Create,
    CreateOverDeleted,
    Delete,
    FinishRestore,
}

const OPERATIONS: [Operation; 4] =
    [Operation::Create, Operation::CreateOverDeleted, Operation::Delete, Operation::FinishRestore];

/// What the operation begins with: the head that is there, if any.
async fn prepare(operation: Operation, store: &MemoryStore, seam: &Seam) -> Option<Versioned<Head>> {
    if matches!(operation, Operation::Create) {
        return None;
    }
    let head = create_database(store, seam, &name("app"), A, settings(), patience()).await.unwrap();
    match operation {
        Operation::CreateOverDeleted => {
            Some(delete_database(store, seam, &head, A, patience()).await.unwrap())
        }
        Operation::FinishRestore => Some(move_away(store, seam, &head).await),
        Operation::Create | Operation::Delete => Some(head),
    }
}

/// A restore in place up to where the name is to be swung.
async fn move_away(store: &MemoryStore, seam: &Seam, old: &Versioned<Head>) -> Versioned<Head> {
    let new = DatabaseId::random(seam);
    let head = lifecycle::first_head(&name("app"), new, A, settings(), PutId::random(seam));
    won(register::create(store, seam, &keys::head(new), head, patience()).await.unwrap());
    let moved = lifecycle::release(&old.value, None, PutId::random(seam)).unwrap();
    let moved = Head { state: HeadState::Moved { new }, ..moved };
    won(swap_head(store, seam, old, moved, patience()).await.unwrap())
}

/// Whether the operation was told that it succeeded.
async fn run(operation: Operation, store: &dyn Store, seam: &Seam, head: Option<&Versioned<Head>>) -> bool {
    match operation {
        Operation::Create | Operation::CreateOverDeleted => {
            create_database(store, seam, &name("app"), A, settings(), patience()).await.is_ok()
        }
        Operation::Delete => delete_database(store, seam, head.unwrap(), A, patience()).await.is_ok(),
        Operation::FinishRestore => resolve_head(store, seam, &name("app"), A, patience()).await.is_ok(),
    }
}

/// What must hold of the name after the operation, successful or not.
async fn check(
    operation: Operation,
    succeeded: bool,
    store: &MemoryStore,
    seam: &Seam,
    before: Option<&Versioned<Head>>,
) -> Option<Versioned<Head>> {
    let found = resolve_head(store, seam, &name("app"), B, patience()).await.unwrap();
    let again = resolve_head(store, seam, &name("app"), B, patience()).await.unwrap();
    assert_eq!(found.as_ref().map(|head| &head.value), again.as_ref().map(|head| &head.value));
    match operation {
        Operation::Create | Operation::CreateOverDeleted => {
            assert!(found.is_some() || !succeeded, "a database that was created is gone");
            assert!(found.as_ref().is_none_or(|head| head.value.settings == settings()));
        }
        Operation::Delete => {
            let stored = stored_head(store, before.unwrap().value.database).unwrap();
            assert!(found.is_none() || !succeeded, "a database that was deleted is back");
            assert_eq!(found.is_none(), stored.state.is_final(), "the name says what the head says");
        }
        Operation::FinishRestore => {
            let HeadState::Moved { new } = before.unwrap().value.state else { panic!("not moved") };
            assert_eq!(found.as_ref().map(|head| head.value.database), Some(new));
        }
    }
    found
}

/// Whatever was left behind, the name can be deleted and created again, and the listing agrees.
async fn start_over(store: &MemoryStore, seam: &Seam, found: Option<Versioned<Head>>) {
    let listed = list(store, seam, "", None, 10, patience()).await.unwrap().names;
    assert_eq!(listed.len(), usize::from(found.is_some()));
    if let Some(head) = found {
        let error = create_database(store, seam, &name("app"), B, settings(), patience()).await.unwrap_err();
        assert!(matches!(error, CreateError::AlreadyExists { .. }), "{error}");
        let head = take_over(store, seam, head, B).await;
        delete_database(store, seam, &head, B, patience()).await.unwrap();
    }
    assert!(resolve_head(store, seam, &name("app"), B, patience()).await.unwrap().is_none());
    let head = create_database(store, seam, &name("app"), B, settings(), patience()).await.unwrap();
    assert_eq!((head.value.owner, head.value.epoch), (Some(B), 1));
}

#[tokio::test]
async fn a_death_at_any_write_leaves_what_another_node_can_finish() {
    let seam = Seam::production();
    let mut deaths = 0;
    for operation in OPERATIONS {
        for death in [Death::Before, Death::Unanswered] {
            for at in 0.. {
                let store = MemoryStore::new();
                let before = prepare(operation, &store, &seam).await;
                let mortal = Mortal::new(store.clone(), at, death);
                let succeeded = run(operation, &mortal, &seam, before.as_ref()).await;
                let found = check(operation, succeeded, &store, &seam, before.as_ref()).await;
                start_over(&store, &seam, found).await;
                if !mortal.is_dead() {
                    assert!(succeeded);
                    break;
                }
                deaths += 1;
            }
        }
    }
    // Creates write twice, over a deleted name three times (the first try finds the record), deletes three
    // times, and the swing of a name once.
    assert_eq!(deaths, 2 * (2 + 3 + 3 + 1));
}
