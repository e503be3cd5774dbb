//! What a failed S3 request means.
//!
//! | answer | GET, DELETE, LIST | PUT |
//! |---|---|---|
//! | 404 `NoSuchKey` | no object | `If-Match`: refused |
//! | 404 `NoSuchBucket` | missing | missing |
//! | 412 | invalid | refused, if there was a condition |
//! | 401, 403, bad or expired keys | denied | denied |
//! | 507, quota codes | full | full |
//! | 409, 429, 5xx, other 404, no answer | retry | indefinite |
//! | 400, 416, 501, redirects, other | invalid | invalid |
//!
//! A 400 that tells of a broken connection rather than of a bad request counts as no answer.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::store::{Condition, StoreError, StoreErrorKind};

/// The longest text of a store that is shown, in characters.
const TEXT_MAX: usize = 200;

/// A request that did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The store answered with an error.
    Answered { status: u16, code: String, text: String },
    /// It did not answer, or not completely.
    Unanswered(String),
    /// Nothing was sent, for want of credentials.
    NoCredentials(String),
}

/// Which bucket a message is about.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub bucket: String,
    pub endpoint: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bucket `{}`", self.bucket)?;
        match &self.endpoint {
            Some(endpoint) => write!(f, " at {endpoint}"),
            None => Ok(()),
        }
    }
}

impl Failure {
    pub fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        if let Some(credentials) = find::<CredentialsError>(error) {
            return match credentials {
                CredentialsError::CredentialsNotLoaded(_) => {
                    Self::NoCredentials(chain(credentials))
                }
                _ => Self::Unanswered(format!("cannot get credentials: {}", chain(credentials))),
            };
        }
        match error {
            SdkError::ServiceError(service) => Self::Answered {
                status: service.raw().status().as_u16(),
                code: shortened(service.err().code().unwrap_or_default()),
                text: shortened(service.err().message().unwrap_or_default()),
            },
            SdkError::ResponseError(response) => {
                let status = response.raw().status().as_u16();
                Self::Unanswered(format!(
                    "{status} with an answer that is not S3's: {}",
                    cause(error)
                ))
            }
            _ => Self::Unanswered(cause(error)),
        }
    }

    pub fn timed_out(time: Duration) -> Self {
        Self::Unanswered(format!("no answer within {} s", time.as_secs_f32()))
    }

    pub fn cut_off(error: &dyn Error) -> Self {
        Self::Unanswered(format!("the answer was cut off: {}", chain(error)))
    }

    pub fn is_no_such_key(&self) -> bool {
        matches!(self, Self::Answered { status: 404, code, .. } if code == "NoSuchKey")
    }

    pub fn is_refusal_of(&self, condition: &Condition) -> bool {
        match condition {
            Condition::None => false,
            Condition::Absent => self.is_precondition_failed(),
            Condition::Match(_) => self.is_precondition_failed() || self.is_no_such_key(),
        }
    }

    fn is_precondition_failed(&self) -> bool {
        matches!(self, Self::Answered { status: 412, .. })
    }

    /// `transient` is what a failure means that may pass.
    fn kind(&self, transient: StoreErrorKind) -> StoreErrorKind {
        match self {
            Self::Unanswered(_) => transient,
            Self::NoCredentials(_) => StoreErrorKind::Denied,
            Self::Answered { status, code, .. } => answered_kind(*status, code, transient),
        }
    }
}

fn answered_kind(status: u16, code: &str, transient: StoreErrorKind) -> StoreErrorKind {
    match code {
        "NoSuchBucket" => return StoreErrorKind::Missing,
        "ExpiredToken" | "InvalidToken" | "InvalidAccessKeyId" => return StoreErrorKind::Denied,
        "QuotaExceeded"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded"
        | "InsufficientStorage" => {
            return StoreErrorKind::Full;
        }
        "RequestTimeout" | "IncompleteBody" | "BadDigest" | "XAmzContentSHA256Mismatch" => {
            return transient;
        }
        _ => {}
    }
    match status {
        401 | 403 => StoreErrorKind::Denied,
        507 => StoreErrorKind::Full,
        501 => StoreErrorKind::Invalid,
        // The object ends before the range that was asked for.
        416 => StoreErrorKind::Corrupt,
        404 | 408 | 409 | 425 | 429 | 500..=599 => transient,
        _ => StoreErrorKind::Invalid,
    }
}

impl Place {
    /// The error of a read, a delete or a listing.
    pub fn read_error(&self, key: impl fmt::Display, failure: &Failure) -> StoreError {
        self.error(key, failure, StoreErrorKind::Retry)
    }

    pub fn write_error(&self, key: impl fmt::Display, failure: &Failure) -> StoreError {
        self.error(key, failure, StoreErrorKind::Indefinite)
    }

    fn error(
        &self,
        key: impl fmt::Display,
        failure: &Failure,
        transient: StoreErrorKind,
    ) -> StoreError {
        let message = match failure {
            Failure::Unanswered(why) => format!("{why}, from {self}"),
            Failure::NoCredentials(why) => {
                format!(
                    "no credentials for {self} ({why}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                )
            }
            Failure::Answered { status, code, text } => self.answer(*status, code, text),
        };
        StoreError::new(failure.kind(transient), key, message)
    }

    fn answer(&self, status: u16, code: &str, text: &str) -> String {
        let mut message = status.to_string();
        if !code.is_empty() {
            message += &format!(" {code}");
        }
        message += &format!(" from {self}");
        match advice(status, code) {
            "" if text.is_empty() => {}
            "" => message += &format!(": {text}"),
            advice => message += &format!(": {advice}"),
        }
        message
    }
}

/// What to do about an error, for those where S3's own text does not say it.
fn advice(status: u16, code: &str) -> &'static str {
    match (status, code) {
        (_, "NoSuchBucket") => "make the bucket, or correct its name in the URL",
        (_, "SignatureDoesNotMatch" | "InvalidAccessKeyId") => {
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        }
        (_, "ExpiredToken" | "InvalidToken") => {
            "the temporary credentials are no longer valid: renew them"
        }
        (_, "RequestTimeTooSkewed") => "this machine's clock is wrong: set it (NTP)",
        (_, "AccessDenied") | (401 | 403, _) => {
            "these credentials may not do this: allow s3:GetObject, s3:PutObject, s3:DeleteObject and \
             s3:ListBucket on the bucket"
        }
        (301 | 307, _) | (_, "AuthorizationHeaderMalformed" | "PermanentRedirect") => {
            "the bucket is in another region: set AWS_REGION, or ?region=… in the URL, to the bucket's"
        }
        (404, code) if code != "NoSuchKey" => "is the endpoint an S3 store, and path_style right?",
        (501, _) => {
            "this store cannot do conditional writes (If-None-Match, If-Match), which Shoal needs"
        }
        _ => "",
    }
}

/// The causes of one of the SDK's errors, which itself says only "dispatch failure" or the like.
fn cause(error: &dyn Error) -> String {
    chain(error.source().unwrap_or(error))
}

/// An error with its causes, shortened.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let part = error.to_string();
        if !parts.iter().any(|known| known.contains(&part)) {
            parts.push(part);
        }
        next = error.source();
    }
    shortened(&parts.join(": "))
}

fn shortened(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(TEXT_MAX).map(clean).collect();
    if text.chars().nth(TEXT_MAX).is_some() {
        short.push('…');
    }
    short
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ETag;

    fn answered(status: u16, code: &str) -> Failure {
        Failure::Answered { status, code: code.into(), text: "Text.".into() }
    }

    fn place() -> Place {
        Place { bucket: "x".into(), endpoint: Some("http://localhost:9000".into()) }
    }

    fn kinds(status: u16, code: &str) -> (StoreErrorKind, StoreErrorKind) {
        let failure = answered(status, code);
        (place().read_error("k", &failure).kind, place().write_error("k", &failure).kind)
    }

    #[test]
    fn answers_that_may_pass_are_retried_for_reads_and_indefinite_for_writes() {
        let transient = (StoreErrorKind::Retry, StoreErrorKind::Indefinite);
        for (status, code) in [
            (409, "ConditionalRequestConflict"),
            (429, "TooManyRequests"),
            (500, "InternalError"),
            (503, "SlowDown"),
            (400, "RequestTimeout"),
            (404, ""),
        ] {
            assert_eq!(kinds(status, code), transient, "{status} {code}");
        }
        let failure = Failure::Unanswered("connection reset".into());
        assert_eq!(place().write_error("k", &failure).kind, StoreErrorKind::Indefinite);
        assert_eq!(place().read_error("k", &failure).kind, StoreErrorKind::Retry);
    }

    #[test]
    fn permanent_answers_mean_the_same_for_reads_and_writes() {
        for (status, code, kind) in [
            (404, "NoSuchBucket", StoreErrorKind::Missing),
            (403, "SignatureDoesNotMatch", StoreErrorKind::Denied),
            (401, "", StoreErrorKind::Denied),
            (400, "ExpiredToken", StoreErrorKind::Denied),
            (507, "XMinioStorageFull", StoreErrorKind::Full),
            (403, "QuotaExceeded", StoreErrorKind::Full),
            (400, "InvalidArgument", StoreErrorKind::Invalid),
            (416, "InvalidRange", StoreErrorKind::Corrupt),
            (501, "NotImplemented", StoreErrorKind::Invalid),
            (301, "PermanentRedirect", StoreErrorKind::Invalid),
        ] {
            assert_eq!(kinds(status, code), (kind, kind), "{status} {code}");
        }
    }

    #[test]
    fn only_a_conditional_write_is_refused() {
        let matching = Condition::Match(ETag("\"e\"".into()));
        let (mismatch, no_object) =
            (answered(412, "PreconditionFailed"), answered(404, "NoSuchKey"));
        assert!(mismatch.is_refusal_of(&Condition::Absent) && mismatch.is_refusal_of(&matching));
        assert!(!mismatch.is_refusal_of(&Condition::None));
        assert!(no_object.is_refusal_of(&matching) && !no_object.is_refusal_of(&Condition::Absent));
        let no_bucket = answered(404, "NoSuchBucket");
        assert!(!no_bucket.is_refusal_of(&matching) && !no_bucket.is_no_such_key());
        assert!(!answered(409, "ConditionalRequestConflict").is_refusal_of(&matching));
    }

    #[test]
    fn messages_name_status_code_and_bucket_and_say_what_to_do() {
        let error = place().read_error("meta/cluster", &answered(403, "SignatureDoesNotMatch"));
        assert_eq!(
            error.to_string(),
            "meta/cluster: 403 SignatureDoesNotMatch from bucket `x` at http://localhost:9000: \
             check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        );
        let error = place().read_error("k", &answered(400, "InvalidArgument"));
        assert!(error.message.ends_with("at http://localhost:9000: Text."), "{error}");
    }

    #[test]
    fn long_and_wild_texts_are_cut_and_cleaned() {
        let text = shortened(&format!("a\nb{}", "é".repeat(999)));
        assert!(text.starts_with("a b"));
        assert_eq!(text.chars().count(), TEXT_MAX + 1);
    }
}
