//! Stores that break one rule each. Every one must be caught by that rule's name, or the probe is for show.

use std::ops::Range;

use async_trait::async_trait;

use super::*;
use crate::store::{Faults, FaultyStore, MemoryStore};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Defect {
    IgnoresIfNoneMatch,
    IgnoresIfMatch,
    /// Refuses a stale `If-Match`, but creates an object where there is none.
    MatchesNothing,
    /// Checks the condition, waits, and then writes, as a gateway over a file system may.
    ChecksBeforeWriting,
    /// So with `If-Match` only.
    ComparesBeforeWriting,
    RefusesEveryMatch,
    IgnoresRange,
    KeepsDeleted,
    /// Answers the write with another ETag than the read.
    NamesTwice,
    Forgets,
}

struct Defective {
    inner: MemoryStore,
    defect: Defect,
}

impl Defective {
    async fn is_held(&self, key: &Key, condition: &Condition) -> bool {
        let present = self.inner.get(key).await.unwrap().map(|object| object.etag);
        match condition {
            Condition::None => true,
            Condition::Absent => present.is_none(),
            Condition::Match(etag) => present.as_ref() == Some(etag),
        }
    }
}

#[async_trait]
impl Store for Defective {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        match self.defect {
            Defect::IgnoresRange => self.inner.get(key).await,
            _ => self.inner.get_range(key, range).await,
        }
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError> {
        let held = self.is_held(key, condition).await;
        let is_match = matches!(condition, Condition::Match(_));
        let writes = match self.defect {
            Defect::IgnoresIfNoneMatch => held || !is_match,
            Defect::IgnoresIfMatch => held || is_match,
            Defect::MatchesNothing => held || (is_match && self.inner.get(key).await?.is_none()),
            Defect::RefusesEveryMatch => held && !is_match,
            _ => held,
        };
        match self.defect {
            Defect::ChecksBeforeWriting => tokio::task::yield_now().await,
            Defect::ComparesBeforeWriting if is_match => tokio::task::yield_now().await,
            Defect::ComparesBeforeWriting => return self.inner.put(key, bytes, condition).await,
            Defect::Forgets if writes => return Ok(Put::Done(ETag::of_content(&bytes))),
            Defect::NamesTwice if writes => {
                self.inner.put(key, bytes, &Condition::None).await?;
                return Ok(Put::Done(ETag("\"another\"".into())));
            }
            _ => {}
        }
        if writes { self.inner.put(key, bytes, &Condition::None).await } else { Ok(Put::Refused) }
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        match self.defect {
            Defect::KeepsDeleted => Ok(()),
            _ => self.inner.delete(key).await,
        }
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        self.inner.list(prefix, after, limit).await
    }

    fn describe(&self) -> String {
        "the defective store".into()
    }
}

#[tokio::test]
async fn every_defect_is_caught_by_the_rule_that_it_breaks() {
    for (defect, expected) in [
        (Defect::IgnoresIfNoneMatch, Rule::CreateIsRefused),
        (Defect::IgnoresIfMatch, Rule::StaleMatchIsRefused),
        (Defect::MatchesNothing, Rule::MatchNeedsAnObject),
        (Defect::ChecksBeforeWriting, Rule::OneCreatorWins),
        (Defect::ComparesBeforeWriting, Rule::OneMatchWins),
        (Defect::RefusesEveryMatch, Rule::MatchWrites),
        (Defect::IgnoresRange, Rule::RangesAreExact),
        (Defect::KeepsDeleted, Rule::DeletesAreSeen),
        (Defect::NamesTwice, Rule::ReadsSeeWrites),
        (Defect::Forgets, Rule::ReadsSeeWrites),
    ] {
        let store = Defective { inner: MemoryStore::new(), defect };
        match probe(&store, &Seam::production()).await {
            Err(ProbeError::Broken { rule, .. }) => assert_eq!(rule, expected, "{defect:?}"),
            other => panic!("{defect:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_error_says_what_the_store_did_and_why_that_matters() {
    let store = Defective { inner: MemoryStore::new(), defect: Defect::IgnoresIfNoneMatch };
    let error = probe(&store, &Seam::production()).await.unwrap_err().to_string();
    for part in [
        "the defective store cannot be used",
        "If-None-Match",
        "answered 200",
        "acknowledged commits would be lost",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_good_store_passes_and_is_left_empty() {
    let store = MemoryStore::new();
    probe(&store, &Seam::production()).await.unwrap();
    assert_eq!(store.keys(), []);
}

#[test]
fn a_store_that_often_fails_passes_all_the_same_or_is_not_judged() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut passed = 0;
        for seed in 0..200 {
            let faults = Faults {
                lost: 50_000,
                answer_lost: 50_000,
                unavailable: 100_000,
                ..Faults::default()
            };
            let seam = Seam::production();
            let store = FaultyStore::new(MemoryStore::new(), seam.clone(), seed, faults, None);
            match probe(&store, &seam).await {
                Ok(()) => passed += 1,
                Err(ProbeError::Unanswered { .. }) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        assert!(passed > 190, "{passed} of 200");
    });
}

#[tokio::test]
async fn a_store_that_denies_is_not_called_broken() {
    let store = MemoryStore::new();
    let mut runs = 0;
    let seam = Seam::production();
    let probe = Probe { store: &store, seam: &seam };
    let denied = StoreError::new(StoreErrorKind::Denied, "k", "403");
    let result: Result<(), _> = probe
        .retried(|| {
            runs += 1;
            std::future::ready(Err(denied.clone()))
        })
        .await;
    assert!(matches!(result, Err(ProbeError::Unanswered { .. })));
    assert_eq!(runs, 1, "a permanent error is not asked about again");
}

/// A node probes in the background, on any thread: the future must be `Send`.
const _: fn(&dyn Store, &Seam) = |store, seam| {
    fn is_send(_: impl Send) {}
    is_send(probe(store, seam));
};

#[test]
fn the_subject_changes_with_the_store_and_the_format() {
    let memory = MemoryStore::new();
    let other = Defective { inner: MemoryStore::new(), defect: Defect::Forgets };
    assert_eq!(subject(&memory, 1), subject(&MemoryStore::new(), 1));
    assert_ne!(subject(&memory, 1), subject(&memory, 2));
    assert_ne!(subject(&memory, 1), subject(&other, 1));
}
