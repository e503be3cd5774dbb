//! A node dies at each request of a fork or a restore; others finish or undo what it left.

use std::sync::Arc;

use pageserver::fork::Restore;
use tenant::head::{Head, HeadState};
use tenant::lifecycle;
use tenant::name::Name;
use tenant::registry;
use walstore::id::{Lsn, PutId, Slot};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::register::{Patience, Record, Versioned};
use walstore::store::{Condition, Store};

use crate::forest::{Forest, ME, OTHER, RETENTION_SECS};
use crate::held::Held;

impl Forest {
    /// Which database the name of `at` leads to, whoever has to finish what for that.
    pub async fn resolve(&self, at: usize) -> Option<walstore::id::DatabaseId> {
        self.resolved(&self.all[at].name).await.map(|head| head.value.database)
    }

    pub async fn resolved(&self, name: &Name) -> Option<Versioned<Head>> {
        let resolved = registry::resolve_head(&self.memory, &self.seam, name, OTHER, Patience::endless()).await;
        resolved.expect("it can be told")
    }

    /// This node is over, and others have taken everything from it.
    pub async fn bury(&mut self) {
        let record = IncarnationRecord {
            state: State::Sealed { end: Slot::ZERO },
            ..IncarnationRecord::new(ME, PutId::random(&self.seam), 1, String::new())
        };
        let key = walstore::keys::incarnation(ME);
        self.memory.put(&key, record.encode(), &Condition::None).await.expect("it takes all");
        for at in 0..self.all.len() {
            let head = self.head(at).await;
            if head.value.owner.is_some() {
                let next = lifecycle::release(&head.value, head.value.folded.lsn, PutId::random(&self.seam));
                self.swap(&head, next.expect("all is folded")).await;
            }
        }
    }

    /// Nothing stays once everything is deleted and forgotten.
    pub async fn assert_nothing_leaks(&mut self) {
        for at in 0..self.all.len() {
            if !self.head(at).await.value.state.is_final() {
                self.delete(at).await;
            }
        }
        tokio::time::advance(std::time::Duration::from_secs(200_000)).await;
        for _ in 0..4 {
            self.sweep().await;
        }
        let left = self.objects();
        assert!(left.is_empty(), "R20: {left:?} stay, and nothing leads there");
    }
}

#[tokio::test(start_paused = true)]
async fn a_death_at_any_request_of_a_fork_leaves_it_or_nothing() {
    let mut deaths = 0;
    // Of the newest state, of a stored base, and of what has to be replayed.
    for lsn in [6, 4, 5] {
        for at in 0.. {
            let mut forest = Forest::new();
            let root = forest.create(RETENTION_SECS).await;
            crate::history(&mut forest, root).await;
            let dying = Held::dying(&forest.memory, at);
            let made = forest.try_fork(Arc::new(dying.clone()), root, lsn, "fork").await;
            let has_died = dying.request_count() > at;
            forest.all.truncate(1);
            forest.bury().await;
            let name = Name::parse("fork").unwrap();
            let found = forest.resolved(&name).await;
            assert!(found.is_some() || made.is_err(), "a fork that was made is gone");
            forest.sweep().await;
            let pins = forest.head(root).await.value.pins.len();
            // What was replayed for a small fork stands in its head as a whole, and needs no pin.
            assert!(pins == usize::from(found.is_some()) || (pins == 0 && lsn < 6), "{pins} pins, died at {at}");
            forest.check(root).await;
            if let Some(found) = found {
                let fork = forest.grow(root, lsn, found.value.database, name);
                forest.settle(fork).await;
                forest.check(fork).await;
            }
            forest.assert_nothing_leaks().await;
            if !has_died {
                assert!(made.is_ok());
                break;
            }
            deaths += 1;
        }
    }
    assert!(deaths >= 4 + 5 + 6, "{deaths} requests are too few to be all");
}

#[tokio::test(start_paused = true)]
async fn a_death_at_any_request_of_a_restore_leaves_one_of_the_two_databases() {
    let mut deaths = 0;
    for lsn in [6, 5] {
        for at in 0.. {
            let mut forest = Forest::new();
            let root = forest.create(RETENTION_SECS).await;
            crate::history(&mut forest, root).await;
            let dying = Held::dying(&forest.memory, at);
            let store: Arc<dyn Store> = Arc::new(dying.clone());
            let fetcher = forest.fetcher(&store);
            let (head, settings) = (forest.head(root).await, forest.settings(RETENTION_SECS));
            let last = head.value.folded.lsn;
            let forker = forest.forker(&*store, &fetcher);
            let restore = Restore { source: head, at: Lsn::new(lsn), replaced: None, last, settings, record: None };
            let done = forker.restore(restore).await.is_ok();
            let has_died = dying.request_count() > at;
            // Whatever it has left is no damage.
            crate::check_bucket(&forest).await;
            forest.bury().await;
            forest.sweep().await;
            let name = forest.all[root].name.clone();
            let found = forest.resolved(&name).await.expect("one of the two").value.database;
            let moved = forest.head(root).await.value.state;
            let expected = match moved {
                HeadState::Moved { new } => new,
                _ => forest.all[root].id,
            };
            assert_eq!(found, expected);
            assert!(!done || found != forest.all[root].id);
            if found != forest.all[root].id {
                let new = forest.grow(root, lsn, found, name);
                forest.settle(new).await;
                forest.check(new).await;
            } else {
                forest.check(root).await;
            }
            forest.assert_nothing_leaks().await;
            if !has_died {
                assert!(done);
                break;
            }
            deaths += 1;
        }
    }
    assert!(deaths >= 6 + 8, "{deaths} requests are too few to be all");
}
