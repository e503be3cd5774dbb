//! The object map: buckets of objects in memory, with the two conditional writes, each one atomic.
//!
//! Every operation takes one lock for the time of a map access; hashing and copying happen outside of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

use bytes::Bytes;
use s3s::crypto::{Checksum as _, Md5};

use crate::clock;
use crate::listing::{self, Page, Query};

/// One object.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub bytes: Bytes,
    /// The MD5 of the bytes in hex, as S3 has it: equal bytes have equal ETags.
    pub etag: String,
    pub modified: SystemTime,
}

impl Object {
    pub(crate) fn new(bytes: Bytes) -> Self {
        let etag = hex(&Md5::checksum(&bytes));
        Self { bytes, etag, modified: clock::wall() }
    }
}

fn hex(digest: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let nibbles = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

/// The objects of one bucket by key, in byte order.
pub(crate) type Bucket = BTreeMap<String, Object>;

/// What a PUT demands of the key's present state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    None,
    Absent,
    Match(String),
}

/// Why an operation did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoSuchBucket,
    NoSuchKey,
    PreconditionFailed,
    BucketExists,
}

/// All buckets.
#[derive(Debug, Default)]
pub(crate) struct Objects(Mutex<BTreeMap<String, Bucket>>);

impl Objects {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Bucket>> {
        self.0.lock().expect("BUG: an access to the object map panicked")
    }

    pub(crate) fn create_bucket(&self, name: &str) -> Result<(), Refusal> {
        let mut buckets = self.lock();
        if buckets.contains_key(name) {
            return Err(Refusal::BucketExists);
        }
        buckets.insert(name.to_owned(), Bucket::new());
        Ok(())
    }

    pub(crate) fn bucket_names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Runs `f` on a bucket, under the lock.
    pub(crate) fn with<T>(
        &self,
        bucket: &str,
        f: impl FnOnce(&mut Bucket) -> T,
    ) -> Result<T, Refusal> {
        self.lock().get_mut(bucket).map(f).ok_or(Refusal::NoSuchBucket)
    }

    pub(crate) fn get(&self, bucket: &str, key: &str) -> Result<Object, Refusal> {
        self.with(bucket, |objects| objects.get(key).cloned())?.ok_or(Refusal::NoSuchKey)
    }

    pub(crate) fn put(
        &self,
        bucket: &str,
        key: &str,
        object: Object,
        condition: &Condition,
    ) -> Result<(), Refusal> {
        self.with(bucket, |objects| {
            check(objects.get(key), condition)?;
            objects.insert(key.to_owned(), object);
            Ok(())
        })?
    }

    /// Deletes an object; there may be none. Tells whether there was.
    pub(crate) fn delete(&self, bucket: &str, key: &str) -> Result<bool, Refusal> {
        self.with(bucket, |objects| objects.remove(key).is_some())
    }

    pub(crate) fn list(&self, bucket: &str, query: &Query) -> Result<Page, Refusal> {
        self.with(bucket, |objects| listing::page(objects, query))
    }
}

fn check(present: Option<&Object>, condition: &Condition) -> Result<(), Refusal> {
    match (condition, present) {
        (Condition::None, _) | (Condition::Absent, None) => Ok(()),
        (Condition::Absent, Some(_)) => Err(Refusal::PreconditionFailed),
        // S3 says 404 here, not 412: there is nothing to compare with.
        (Condition::Match(_), None) => Err(Refusal::NoSuchKey),
        (Condition::Match(etag), Some(object)) if object.etag == *etag => Ok(()),
        (Condition::Match(_), Some(_)) => Err(Refusal::PreconditionFailed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &'static str) -> Object {
        Object::new(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn an_etag_is_the_md5_of_the_bytes() {
        assert_eq!(object("").etag, "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(object("abc").etag, "900150983cd24fb0d6963f7d28e17f72");
    }

    #[test]
    fn conditions_decide_by_the_present_state() {
        let objects = Objects::default();
        objects.create_bucket("b").unwrap();
        let put = |text, condition: Condition| objects.put("b", "k", object(text), &condition);
        let etag = |text| Condition::Match(object(text).etag);
        assert_eq!(put("one", etag("one")), Err(Refusal::NoSuchKey));
        assert_eq!(put("one", Condition::Absent), Ok(()));
        assert_eq!(put("two", Condition::Absent), Err(Refusal::PreconditionFailed));
        assert_eq!(put("two", etag("two")), Err(Refusal::PreconditionFailed));
        assert_eq!(put("two", etag("one")), Ok(()));
        assert_eq!(put("three", Condition::None), Ok(()));
        assert_eq!(objects.get("b", "k").unwrap().bytes, "three");
        assert_eq!(
            objects.put("none", "k", object(""), &Condition::None),
            Err(Refusal::NoSuchBucket)
        );
    }
}
