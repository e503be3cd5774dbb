//! The S3 operations over the object map. What is not here answers 501 `NotImplemented`, and so does a
//! header that asks for something this emulator would have to ignore.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::*;
use s3s::{Body, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use crate::digest;
use crate::faults::Faults;
use crate::limits::LIST_PAGE_KEYS_MAX;
use crate::listing::{self, Page, Query};
use crate::objects::{Condition, Object as Stored, Objects, Refusal};

/// Knows one pair of keys. The signature itself is checked by `s3s`.
pub(crate) struct OneKey {
    pub access_key: String,
    pub secret_key: SecretKey,
}

#[async_trait]
impl S3Auth for OneKey {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.access_key {
            Ok(self.secret_key.clone())
        } else {
            Err(s3_error!(InvalidAccessKeyId, "no such access key"))
        }
    }
}

pub(crate) struct Api {
    pub objects: Arc<Objects>,
    pub faults: Faults,
}

impl From<Refusal> for S3Error {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::NoSuchBucket => S3ErrorCode::NoSuchBucket,
            Refusal::NoSuchKey => S3ErrorCode::NoSuchKey,
            Refusal::PreconditionFailed => S3ErrorCode::PreconditionFailed,
            Refusal::BucketExists => S3ErrorCode::BucketAlreadyOwnedByYou,
        };
        Self::new(code)
    }
}

#[async_trait]
impl S3 for Api {
    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let mut input = request.input;
        let condition = self.put_condition(&input)?;
        let bytes = match input.body.take() {
            Some(body) => collect(body).await?,
            None => Bytes::new(),
        };
        digest::check(&input, request.trailing_headers.as_ref(), &bytes)?;
        let object = Stored::new(bytes);
        let e_tag = Some(ETag::Strong(object.etag.clone()));
        self.objects.put(&input.bucket, &input.key, object, &condition)?;
        Ok(S3Response::new(PutObjectOutput { e_tag, ..Default::default() }))
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        unsupported(input.version_id.is_some(), "versionId")?;
        unsupported(input.part_number.is_some(), "partNumber")?;
        let object = self.objects.get(&input.bucket, &input.key)?;
        check_read(&object, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let whole = object.bytes.len() as u64;
        let (bytes, content_range) = match input.range {
            None => (object.bytes, None),
            Some(range) => {
                let range = range.check(whole)?;
                let header = format!("bytes {}-{}/{whole}", range.start, range.end - 1);
                let part = object.bytes.slice(range.start as usize..range.end as usize);
                (part, Some(header))
            }
        };
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(bytes.len() as i64),
            content_range,
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(object.modified.into()),
            body: Some(StreamingBlob::from(Body::from(bytes))),
            ..Default::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        unsupported(input.version_id.is_some(), "versionId")?;
        unsupported(input.part_number.is_some(), "partNumber")?;
        unsupported(input.range.is_some(), "Range on HEAD")?;
        let object = self.objects.get(&input.bucket, &input.key)?;
        check_read(&object, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(object.bytes.len() as i64),
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(object.modified.into()),
            ..Default::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        unsupported(input.version_id.is_some(), "versionId")?;
        unsupported(input.if_match.is_some(), "If-Match on DELETE")?;
        self.objects.delete(&input.bucket, &input.key)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let query = list_query(&input)?;
        let page = self.objects.list(&input.bucket, &query)?;
        Ok(S3Response::new(list_output(input, &query, page)))
    }

    async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let name = request.input.bucket;
        self.objects.create_bucket(&name)?;
        let location = Some(format!("/{name}"));
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.objects.with(&request.input.bucket, |_| ())?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.objects.with(&request.input.bucket, |_| ())?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn list_buckets(
        &self,
        _request: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let names = self.objects.bucket_names().into_iter();
        let buckets = names.map(|name| Bucket { name: Some(name), ..Default::default() }).collect();
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets), ..Default::default() }))
    }
}

impl Api {
    /// The one condition that a PUT may carry.
    fn put_condition(&self, input: &PutObjectInput) -> S3Result<Condition> {
        unsupported(input.write_offset_bytes.is_some(), "appending")?;
        let condition = match (&input.if_none_match, &input.if_match) {
            (None, None) => return Ok(Condition::None),
            (Some(ETagCondition::Any), None) => Condition::Absent,
            (None, Some(ETagCondition::ETag(ETag::Strong(etag)))) => Condition::Match(etag.clone()),
            _ => {
                let message = "a PUT takes either If-None-Match: * or If-Match: <etag>";
                return Err(S3Error::with_message(S3ErrorCode::NotImplemented, message));
            }
        };
        Ok(if self.faults.ignores_condition() { Condition::None } else { condition })
    }
}

fn unsupported(asked: bool, what: &str) -> S3Result<()> {
    if asked { Err(s3_error!(NotImplemented, "{what} is not implemented")) } else { Ok(()) }
}

fn check_read(
    object: &Stored,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<()> {
    let is = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(etag) => etag.value() == object.etag,
    };
    if if_match.is_some_and(|condition| !is(condition)) {
        return Err(s3_error!(PreconditionFailed));
    }
    if if_none_match.is_some_and(is) {
        return Err(s3_error!(NotModified));
    }
    Ok(())
}

/// The body in one piece. It is in one piece already, and is not copied, unless the client sent it in
/// signed chunks.
async fn collect(mut body: StreamingBlob) -> S3Result<Bytes> {
    // What fails here is a check of the body against its signature: the body itself is in memory.
    let bad = |error| S3Error::with_source(S3ErrorCode::BadDigest, error);
    let first = body.try_next().await.map_err(bad)?.unwrap_or_default();
    let Some(second) = body.try_next().await.map_err(bad)? else { return Ok(first) };
    let mut whole = BytesMut::from(&first[..]);
    whole.extend_from_slice(&second);
    while let Some(next) = body.try_next().await.map_err(bad)? {
        whole.extend_from_slice(&next);
    }
    Ok(whole.freeze())
}

fn list_query(input: &ListObjectsV2Input) -> S3Result<Query> {
    let wrong = |what: &str| s3_error!(InvalidArgument, "{what}");
    let after = match &input.continuation_token {
        Some(token) => {
            let after = listing::parse_token(token);
            Some(after.ok_or_else(|| wrong("the continuation token is not one of this store"))?)
        }
        None => input.start_after.clone(),
    };
    let asked = input.max_keys.map_or(Ok(LIST_PAGE_KEYS_MAX), usize::try_from);
    let asked = asked.map_err(|_| wrong("max-keys is negative"))?;
    Ok(Query {
        prefix: input.prefix.clone().unwrap_or_default(),
        after,
        delimiter: input.delimiter.clone().filter(|delimiter| !delimiter.is_empty()),
        limit: asked.min(LIST_PAGE_KEYS_MAX),
    })
}

fn list_output(input: ListObjectsV2Input, query: &Query, page: Page) -> ListObjectsV2Output {
    let key_count = page.len() as i32;
    let contents = page.objects.into_iter().map(|(key, object)| Object {
        key: Some(key),
        size: Some(object.bytes.len() as i64),
        e_tag: Some(ETag::Strong(object.etag)),
        last_modified: Some(object.modified.into()),
        ..Default::default()
    });
    let prefixes = page.common_prefixes.into_iter();
    ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: input.prefix,
        delimiter: input.delimiter,
        start_after: input.start_after,
        continuation_token: input.continuation_token,
        max_keys: Some(query.limit as i32),
        key_count: Some(key_count),
        is_truncated: Some(page.next_token.is_some()),
        next_continuation_token: page.next_token,
        contents: Some(contents.collect()),
        common_prefixes: Some(
            prefixes.map(|prefix| CommonPrefix { prefix: Some(prefix) }).collect(),
        ),
        ..Default::default()
    }
}
