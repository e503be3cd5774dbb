//! A store in an S3 bucket, or in anything that speaks S3's protocol with conditional writes.
//!
//! One call is one HTTP request, or for a listing a few. The SDK's own retries are off: only the protocol
//! above knows whether a write may be sent again, and a retry down here would report our own success as
//! somebody else's (a 412). Checksum trailers are sent only where S3 demands them, since many stores
//! reject them.
//!
//! A request that has no complete answer after [`ATTEMPT_TIMEOUT`](super::limits::ATTEMPT_TIMEOUT), plus a
//! second per MiB of its body, is dropped with its connection: a write's outcome is then unknown.
//!
//! What each failure means is in `failure.rs`; how the client is set up is in `connect.rs`.

mod connect;
mod date;
mod failure;

use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::limits::{LIST_MAX, TRANSFER_BYTES_PER_SECOND_MIN};
use super::{Condition, ETag, Key, Object, Put, Store, StoreError, StoreErrorKind, check};
pub use connect::{S3Credentials, S3Location, S3Options};
use date::LatestDate;
use failure::{Failure, Place};

/// The objects under one prefix of one bucket.
pub struct S3Store {
    client: Client,
    bucket: String,
    /// Empty, or with a `/` at its end.
    prefix: String,
    place: Place,
    attempt_timeout: Duration,
    url: String,
    date: LatestDate,
}

impl S3Store {
    fn object_key(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The time that a request with so many bytes may take.
    fn time_for(&self, bytes: u64) -> Duration {
        self.attempt_timeout + Duration::from_secs(bytes / TRANSFER_BYTES_PER_SECOND_MIN)
    }

    /// Waits for one step of a request, at most as long as `bytes` may take.
    async fn within<T>(&self, bytes: u64, step: impl Future<Output = T>) -> Result<T, Failure> {
        let time = self.time_for(bytes);
        tokio::time::timeout(time, step).await.map_err(|_| Failure::timed_out(time))
    }

    fn get_request(&self, key: &Key) -> GetObjectFluentBuilder {
        self.client.get_object().bucket(&self.bucket).key(self.object_key(key))
    }

    /// Sends a GET; `None` if there is no object.
    async fn fetch(
        &self,
        key: &Key,
        request: GetObjectFluentBuilder,
    ) -> Result<Option<Answer>, StoreError> {
        let sent = self.within(0, request.send()).await;
        let fail = |failure: Failure| self.place.read_error(key, &failure);
        match sent.map_err(fail)?.map_err(|error| Failure::of(&error)) {
            Ok(output) => self.body(key, output).await.map(Some),
            Err(failure) if failure.is_no_such_key() => Ok(None),
            Err(failure) => Err(fail(failure)),
        }
    }

    async fn body(&self, key: &Key, output: GetObjectOutput) -> Result<Answer, StoreError> {
        let fail = |failure: Failure| self.place.read_error(key, &failure);
        let range = output.content_range().map(str::to_owned);
        let length = output.content_length().and_then(|length| u64::try_from(length).ok());
        let etag = output.e_tag().map(|etag| ETag(etag.to_owned()));
        let etag = etag.ok_or_else(|| self.broken(key, "it answered a GET without an ETag"))?;
        let collected =
            self.within(length.unwrap_or(0), output.body.collect()).await.map_err(fail)?;
        let collected = collected.map_err(|error| fail(Failure::cut_off(&error)))?;
        let bytes = collected.into_bytes();
        if length.is_some_and(|length| length != bytes.len() as u64) {
            return Err(fail(Failure::Unanswered("the answer was cut off".to_owned())));
        }
        Ok(Answer { object: Object { bytes, etag }, range })
    }

    fn broken(&self, key: impl std::fmt::Display, what: &str) -> StoreError {
        StoreError::new(
            StoreErrorKind::Invalid,
            key,
            format!("{} broke S3's rules: {what}", self.place),
        )
    }

    /// One page of a listing, which may hold fewer keys than there are.
    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListObjectsV2Output, StoreError> {
        let limit = i32::try_from(limit).expect("a checked limit");
        let request = self.client.list_objects_v2().bucket(&self.bucket).max_keys(limit);
        let request = request.prefix(format!("{}{prefix}", self.prefix));
        let request = request.set_start_after(after.map(|after| format!("{}{after}", self.prefix)));
        let fail = |failure: Failure| self.place.read_error(prefix, &failure);
        let sent = self.within(0, request.send()).await.map_err(fail)?;
        sent.map_err(|error| fail(Failure::of(&error)))
    }
}

struct Answer {
    object: Object,
    /// The `Content-Range` header.
    range: Option<String>,
}

/// The parts of `bytes <first>-<last>/<total>`, as a half-open range and the object's size.
fn parse_content_range(header: &str) -> Option<(Range<u64>, u64)> {
    let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total: u64 = total.parse().ok()?;
    (first <= last && last < total).then_some((first..last + 1, total))
}

/// Whether an answer with this `Content-Range` and so many bytes is what `asked` was about.
fn is_whole_answer(asked: &Range<u64>, content_range: &str, received_bytes: u64) -> bool {
    parse_content_range(content_range).is_some_and(|(answered, total)| {
        answered == (asked.start..asked.end.min(total))
            && answered.end - answered.start == received_bytes
    })
}

#[async_trait]
impl Store for S3Store {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        Ok(self.fetch(key, self.get_request(key)).await?.map(|answer| answer.object))
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        check::range(key, &range)?;
        let request =
            self.get_request(key).range(format!("bytes={}-{}", range.start, range.end - 1));
        let Some(answer) = self.fetch(key, request).await? else {
            return Ok(None);
        };
        let Some(content_range) = answer.range else {
            return Err(self.broken(key, "it ignored the Range header of a GET"));
        };
        if !is_whole_answer(&range, &content_range, answer.object.bytes.len() as u64) {
            let message =
                format!("an answer of `{content_range}` to {}..{}", range.start, range.end);
            return Err(StoreError::new(StoreErrorKind::Retry, key, message));
        }
        Ok(Some(answer.object))
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError> {
        check::put(key, &bytes, condition)?;
        let length = bytes.len() as u64;
        let request = self.client.put_object().bucket(&self.bucket).key(self.object_key(key));
        let request = request.body(ByteStream::from(bytes));
        let request = match condition {
            Condition::None => request,
            Condition::Absent => request.if_none_match("*"),
            Condition::Match(etag) => request.if_match(&etag.0),
        };
        let sent = self.within(length, request.send()).await;
        let failure = match sent.map(|sent| sent.map_err(|error| Failure::of(&error))) {
            Ok(Ok(output)) => {
                let etag = output.e_tag().map(|etag| Put::Done(ETag(etag.to_owned())));
                return etag.ok_or_else(|| self.broken(key, "it answered a PUT without an ETag"));
            }
            Ok(Err(failure)) | Err(failure) => failure,
        };
        if failure.is_refusal_of(condition) {
            return Ok(Put::Refused);
        }
        Err(self.place.write_error(key, &failure))
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let request = self.client.delete_object().bucket(&self.bucket).key(self.object_key(key));
        let sent = self.within(0, request.send()).await;
        let failure = match sent.map(|sent| sent.map_err(|error| Failure::of(&error))) {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(failure)) | Err(failure) => failure,
        };
        if failure.is_no_such_key() {
            return Ok(());
        }
        Err(self.place.read_error(key, &failure))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        check::limit(prefix, limit)?;
        let mut found: Vec<Key> = Vec::new();
        let mut after = after.map(str::to_owned);
        while found.len() < limit {
            // A page may be short, and may hold objects of others, whose keys are none of ours.
            let page =
                self.list_page(prefix, after.as_deref(), LIST_MAX.min(limit - found.len())).await?;
            for object in page.contents() {
                let key = object.key().and_then(|key| key.strip_prefix(&self.prefix));
                let key =
                    key.ok_or_else(|| self.broken(prefix, "it listed a key without the prefix"))?;
                if after.as_deref().is_some_and(|after| key <= after) {
                    return Err(self.broken(prefix, "its listing is not in ascending order"));
                }
                after = Some(key.to_owned());
                if Key::is_valid(key) && found.len() < limit {
                    found.push(Key::new(key));
                }
            }
            if page.is_truncated() != Some(true) {
                break;
            }
            if page.contents().is_empty() {
                return Err(self.broken(prefix, "its listing is cut off but empty"));
            }
        }
        Ok(found)
    }

    fn date_micros(&self) -> Option<u64> {
        self.date.micros()
    }

    fn describe(&self) -> String {
        self.url.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read_and_bad_ones_are_not() {
        assert_eq!(parse_content_range("bytes 0-9/100"), Some((0..10, 100)));
        for bad in ["", "bytes 0-9", "bytes 9-0/100", "bytes 0-100/100", "bytes */100", "0-9/100"] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_answer_is_whole_if_it_is_the_range_clamped_to_the_object() {
        assert!(is_whole_answer(&(0..10), "bytes 0-9/100", 10));
        assert!(is_whole_answer(&(90..200), "bytes 90-99/100", 10));
        assert!(!is_whole_answer(&(0..10), "bytes 0-9/100", 9), "cut off");
        assert!(
            !is_whole_answer(&(0..10), "bytes 0-4/100", 5),
            "short, though the object has more"
        );
        assert!(!is_whole_answer(&(0..10), "bytes 1-10/100", 10), "another range");
        assert!(!is_whole_answer(&(0..10), "rubbish", 10));
    }
}
