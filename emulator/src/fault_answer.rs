//! How each fault looks on the wire.

use bytes::Bytes;
use futures_util::stream;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use s3s::{Body, HttpResponse, S3Error, S3ErrorCode};

use crate::faults::Fault;

/// The connection is closed instead of answering.
#[derive(Debug)]
pub(crate) struct Closed(pub &'static str);

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Closed {}

/// What the client gets instead of `answer`, if it gets anything.
///
/// # Panics
/// If the fault is one that changes no answer.
pub(crate) async fn strike(
    fault: Fault,
    answer: Option<HttpResponse>,
) -> Result<HttpResponse, Closed> {
    let code = match fault {
        Fault::LostRequest => return Err(Closed("fault: the request is lost")),
        Fault::LostAnswer => return Err(Closed("fault: the answer is lost")),
        Fault::CutAnswer => return cut(answer).await,
        Fault::OutageUnavailable => S3ErrorCode::ServiceUnavailable,
        Fault::Unavailable => S3ErrorCode::SlowDown,
        Fault::Denied => S3ErrorCode::AccessDenied,
        Fault::Conflict => S3ErrorCode::ConditionalRequestConflict,
        Fault::FailedAfter => S3ErrorCode::InternalError,
        Fault::OutageHang | Fault::Delayed | Fault::Held | Fault::ConditionIgnored => {
            panic!("BUG: {fault:?} has no answer of its own")
        }
    };
    let error = S3Error::with_message(code, format!("fault: {fault:?}"));
    error.to_http_response().map_err(|_| Closed("BUG: an error has no XML"))
}

/// Sends the whole head and half of the body, then closes the connection.
async fn cut(answer: Option<HttpResponse>) -> Result<HttpResponse, Closed> {
    let (mut head, body) = answer.ok_or(Closed("fault: the answer is cut"))?.into_parts();
    if let Some(length) = body.size_hint().exact() {
        head.headers.insert(http::header::CONTENT_LENGTH, length.into());
    }
    let whole = body.collect().await.map_err(|_| Closed("BUG: a body in memory cannot be read"))?;
    let whole = whole.to_bytes();
    let half: Bytes = whole.slice(..whole.len() / 2);
    let sent = stream::once(async { Ok(Frame::data(half)) });
    let closed = stream::once(async {
        // A connection that fails drops what it has buffered, so it gets a turn to write first.
        tokio::task::yield_now().await;
        Err(std::io::Error::other(Closed("fault: the answer is cut")))
    });
    let frames = stream::StreamExt::chain(sent, closed);
    Ok(HttpResponse::from_parts(head, Body::http_body_unsync(StreamBody::new(frames))))
}
