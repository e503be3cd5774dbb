//! The contract of [`Store`], as checks that run over any implementation.
//!
//! [`conformance`] panics with a sentence at the first rule that does not hold. It works under a new random
//! prefix, so that it can run on a bucket in use, and removes what it wrote if all went well.
//!
//! One thing is left out on purpose: that a key may also be the directory of another (`a` and `a/b`). MinIO
//! takes both and then does not list the second, so no two keys of Shoal's are like this.
//!
//! Answers that ask for patience (`Retry`, `Indefinite`) are failures here: this is about what a store does
//! when it works.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;

use super::{Condition, ETag, Key, Object, Put, Store, StoreErrorKind};
use crate::seam::Seam;

const RACERS: usize = 32;
const MATCHERS: usize = 16;

/// Asserts the whole contract.
///
/// # Panics
/// At the first rule that the store breaks, and if it cannot be reached.
pub async fn conformance(store: Arc<dyn Store>) {
    let id = Seam::production().random_id();
    let nonce = id.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let test = Test { store, prefix: format!("conformance/{nonce}") };
    test.absent_objects().await;
    test.creation().await;
    test.unconditional_writes().await;
    test.matches().await;
    test.etags().await;
    test.bodies().await;
    test.ranges().await;
    test.deletion().await;
    test.deep_keys().await;
    test.listing().await;
    test.listing_limits().await;
    test.concurrent_creation().await;
    test.concurrent_matches().await;
    test.clean_up().await;
}

struct Test {
    store: Arc<dyn Store>,
    prefix: String,
}

fn body(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Bytes that no piece of a store would make by accident, different at each offset.
fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

impl Test {
    fn key(&self, name: &str) -> Key {
        Key::new(format!("{}/{name}", self.prefix))
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: Condition) -> Put {
        self.store.put(key, bytes, &condition).await.expect("a put must be answered")
    }

    async fn done(&self, key: &Key, bytes: Bytes, condition: Condition) -> ETag {
        match self.put(key, bytes, condition).await {
            Put::Done(etag) => etag,
            Put::Refused => panic!("{key}: refused though its condition holds"),
        }
    }

    async fn get(&self, key: &Key) -> Option<Object> {
        self.store.get(key).await.expect("a get must be answered")
    }

    async fn content(&self, key: &Key) -> Option<Bytes> {
        self.get(key).await.map(|object| object.bytes)
    }

    async fn absent_objects(&self) {
        let key = self.key("absent");
        assert!(self.get(&key).await.is_none(), "an object that was never written is absent");
        let range = self.store.get_range(&key, 0..1).await.expect("a get must be answered");
        assert!(range.is_none(), "so is a part of it");
        self.store.delete(&key).await.expect("deleting nothing is no error");
        let condition = Condition::Match(ETag::of_content(b"x"));
        assert_eq!(self.put(&key, body("x"), condition).await, Put::Refused, "If-Match of nothing");
        assert!(self.get(&key).await.is_none(), "a refused write wrote nothing");
    }

    async fn creation(&self) {
        let key = self.key("created");
        let etag = self.done(&key, body("first"), Condition::Absent).await;
        let object = self.get(&key).await.expect("the object is there at once");
        assert_eq!(object.bytes, "first");
        assert_eq!(object.etag, etag, "a read names the version as the write did");
        let second = self.put(&key, body("second"), Condition::Absent).await;
        assert_eq!(second, Put::Refused, "a second create is refused");
        let same = self.put(&key, body("first"), Condition::Absent).await;
        assert_eq!(same, Put::Refused, "even with the same bytes");
        assert_eq!(self.content(&key).await, Some(body("first")), "and changes nothing");
    }

    async fn unconditional_writes(&self) {
        let key = self.key("unconditional");
        self.done(&key, body("first"), Condition::None).await;
        self.done(&key, body("second"), Condition::None).await;
        assert_eq!(self.content(&key).await, Some(body("second")));
    }

    async fn matches(&self) {
        let key = self.key("matched");
        let first = self.done(&key, body("first"), Condition::Absent).await;
        let second = self.done(&key, body("second"), Condition::Match(first.clone())).await;
        assert_ne!(first, second, "other bytes have another ETag");
        let stale = self.put(&key, body("third"), Condition::Match(first)).await;
        assert_eq!(stale, Put::Refused, "a stale If-Match is refused");
        let object = self.get(&key).await.expect("the object is there");
        assert_eq!((object.bytes, object.etag), (body("second"), second.clone()));
        self.done(&key, body("fourth"), Condition::Match(second)).await;
        assert_eq!(self.content(&key).await, Some(body("fourth")));
    }

    async fn etags(&self) {
        let key = self.key("etag");
        let etag = self.done(&key, body("content"), Condition::Absent).await;
        assert!(etag.is_valid(), "an ETag is in double quotes: {etag:?}");
        for _ in 0..3 {
            assert_eq!(self.get(&key).await.expect("there").etag, etag, "reading changes no ETag");
        }
        let part = self.store.get_range(&key, 2..4).await.expect("answered").expect("there");
        assert_eq!(part.etag, etag, "a part has the ETag of the whole");
    }

    async fn bodies(&self) {
        for length in [0, 1, 24, 4096, 5 << 20] {
            let key = self.key(&format!("body-{length}"));
            let bytes = pattern(length);
            self.done(&key, bytes.clone(), Condition::Absent).await;
            assert!(
                self.content(&key).await == Some(bytes),
                "{length} bytes come back as they were"
            );
        }
    }

    async fn ranges(&self) {
        let key = self.key("ranges");
        let length = 100_000_u64;
        let bytes = pattern(length as usize);
        self.done(&key, bytes.clone(), Condition::Absent).await;
        for range in [0..1, 0..length, 7..13, 65_535..65_537, length - 1..length] {
            let part =
                self.store.get_range(&key, range.clone()).await.expect("answered").expect("there");
            assert_eq!(
                part.bytes,
                bytes.slice(range.start as usize..range.end as usize),
                "{range:?}"
            );
        }
        let beyond = self.store.get_range(&key, 99_990..u64::MAX / 2).await.expect("answered");
        assert_eq!(
            beyond.expect("there").bytes,
            bytes.slice(99_990..),
            "an end beyond the object is clamped"
        );
        let reversed = Range { start: 6, end: 5 };
        let (too_short, empty) = (StoreErrorKind::Corrupt, StoreErrorKind::Invalid);
        let bad = [length..length + 1, length + 5..length + 9, 5..5, reversed];
        for (bad, expected) in bad.into_iter().zip([too_short, too_short, empty, empty]) {
            let error = self.store.get_range(&key, bad.clone()).await.err();
            let kind = error.map(|error| error.kind);
            assert_eq!(kind, Some(expected), "{bad:?} cannot be answered");
        }
    }

    async fn deletion(&self) {
        let key = self.key("deleted");
        let etag = self.done(&key, body("old"), Condition::Absent).await;
        self.store.delete(&key).await.expect("deletes");
        assert!(self.get(&key).await.is_none(), "a deleted object is gone at once");
        let stale = self.put(&key, body("new"), Condition::Match(etag)).await;
        assert_eq!(stale, Put::Refused, "its ETag matches nothing");
        self.store.delete(&key).await.expect("deletes again");
        self.done(&key, body("new"), Condition::Absent).await;
        assert_eq!(self.content(&key).await, Some(body("new")), "its name is free again");
    }

    async fn deep_keys(&self) {
        let deep = vec!["part"; 30].join("/");
        let wide = "x".repeat(200);
        let names = ["a", "A", "a.b", "a-b", "a_b", "..a", ".hidden", "b/c", "b/d/e", &deep, &wide];
        for name in names {
            let key = self.key(&format!("deep/{name}"));
            self.done(&key, body(name), Condition::Absent).await;
        }
        for name in names {
            let key = self.key(&format!("deep/{name}"));
            assert_eq!(self.content(&key).await, Some(body(name)), "keys are apart: {name}");
        }
    }

    /// With names that sort differently by directory and by byte (`-` and `.` come before `/`, digits after).
    async fn listing(&self) {
        let mut names =
            ["a-b", "a.c", "a/b-c", "a/b/c", "a/b/d", "a/c", "a0", "b/z", "b/y/x", "c", "cc", "B"];
        for name in names {
            self.done(&self.key(&format!("list/{name}")), body(name), Condition::Absent).await;
        }
        names.sort_unstable();
        let start = format!("{}/list/", self.prefix);
        let all = names.map(|name| format!("{start}{name}"));
        for prefix in ["", "a", "a/", "a/b", "a/b/", "a/b/c", "b/y", "c", "cc", "d"] {
            let prefix = format!("{start}{prefix}");
            for after in ["", "a", "a/", "a/b", "a/b/c", "a/bb", "b", "zz"] {
                let after = Some(after).filter(|after| !after.is_empty());
                self.listings(&all, &prefix, after.map(|after| format!("{start}{after}"))).await;
            }
        }
    }

    /// One prefix and start, in pages of several lengths.
    async fn listings(&self, all: &[String], prefix: &str, after: Option<String>) {
        let is_wanted = |key: &&String| {
            key.starts_with(prefix) && after.as_ref().is_none_or(|after| *key > after)
        };
        for limit in [1, 3, 1000] {
            let expected: Vec<String> = all.iter().filter(is_wanted).take(limit).cloned().collect();
            let listed = self.list(prefix, after.as_deref(), limit).await;
            assert_eq!(listed, expected, "{prefix} after {after:?}, at most {limit}");
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
        let keys = self.store.list(prefix, after, limit).await.expect("a listing must be answered");
        keys.iter().map(|key| key.as_str().to_owned()).collect()
    }

    async fn listing_limits(&self) {
        let start = format!("{}/page/", self.prefix);
        let writes = (0..45).map(|n| async move {
            self.done(&self.key(&format!("page/{n:03}")), body("x"), Condition::Absent).await;
        });
        join_all(writes).await;
        let mut pages: Vec<String> = Vec::new();
        loop {
            let page = self.list(&start, pages.last().map(String::as_str), 10).await;
            let is_last = page.len() < 10;
            pages.extend(page);
            if is_last {
                break;
            }
        }
        let all: Vec<String> = (0..45).map(|n| format!("{start}{n:03}")).collect();
        assert_eq!(pages, all, "pages follow each other without gap or repeat");
        assert_eq!(self.list(&start, None, 0).await, Vec::<String>::new());
        let error = self.store.list(&start, None, 1001).await.err();
        assert_eq!(
            error.map(|error| error.kind),
            Some(StoreErrorKind::Invalid),
            "1000 keys at most"
        );
    }

    async fn race(&self, key: &Key, condition: &Condition, racers: usize) -> ETag {
        let bodies: Vec<Bytes> = (0..racers).map(|racer| body(&format!("racer {racer}"))).collect();
        let writes = bodies.iter().map(|body| self.store.put(key, body.clone(), condition));
        let mut winners = Vec::new();
        for (racer, answer) in join_all(writes).await.into_iter().enumerate() {
            match answer.expect("a put must be answered") {
                Put::Done(etag) => winners.push((racer, etag)),
                Put::Refused => {}
            }
        }
        let [(winner, etag)] = winners.as_slice() else {
            panic!(
                "{} of {racers} writers at the same time succeeded: {condition:?}",
                winners.len()
            )
        };
        let object = self.get(key).await.expect("the winner's object is there");
        assert_eq!((&object.bytes, &object.etag), (&bodies[*winner], etag), "it is the winner's");
        etag.clone()
    }

    async fn concurrent_creation(&self) {
        for round in 0..4 {
            self.race(&self.key(&format!("race/{round}")), &Condition::Absent, RACERS).await;
        }
    }

    async fn concurrent_matches(&self) {
        let key = self.key("race/match");
        let mut etag = self.done(&key, body("start"), Condition::Absent).await;
        for round in 0..4 {
            etag = self.race(&key, &Condition::Match(etag), MATCHERS).await;
            // Otherwise the next round's winner could write the same bytes, with the same ETag.
            etag = self.done(&key, body(&format!("round {round}")), Condition::Match(etag)).await;
        }
    }

    async fn clean_up(&self) {
        let prefix = format!("{}/", self.prefix);
        let keys = self.store.list(&prefix, None, 1000).await.expect("a listing must be answered");
        let deletes = keys.iter().map(|key| self.store.delete(key));
        for deleted in join_all(deletes).await {
            deleted.expect("deletes");
        }
        assert_eq!(self.list(&prefix, None, 1).await, Vec::<String>::new(), "nothing is left");
    }
}
