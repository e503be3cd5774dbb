//! Databases as a whole, sent as they are read: SQL text, or a SQLite file.
//!
//! | request | answer |
//! |---|---|
//! | `GET …/dump` | SQL that makes the database again; `?preserve_row_ids=true` names rowids too |
//! | `GET …/export` | the SQLite file, as of the commit in the header `shoal-lsn`; an empty one for an empty database |
//! | `GET …/export?check_from=<byte>` | nothing, or the error for which an answer broke off after so many bytes |
//!
//! An answer that breaks off is cut short: its chunks lack the last one, or its length the rest. A dump that is whole
//! ends with `COMMIT;`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::poll_fn;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use tokio::sync::{mpsc, oneshot};

use super::data::showing;
use super::{failure, going_down};
use super::route::Target;
use crate::core::{DownloadReply, Job, JobError, Message, Work};
use crate::error::{Fault, ServerError};
use crate::hrana::HranaVersion;
use crate::node::NodeHandle;
use crate::session::download::Download;

/// Answers with the whole database.
pub async fn respond(
    node: &NodeHandle,
    target: &Target,
    create: bool,
    min_lsn: u64,
    download: Download,
) -> Result<Response, JobError> {
    let (head, answer) = oneshot::channel();
    let work = Work::Download { download, head };
    let Target { name, at } = target.clone();
    let job = Job { database: name, at, create, baton: None, version: HranaVersion::Hrana3, min_lsn, work, loan: None };
    node.send(&target.name, Message::Job(job)).map_err(JobError::from)?;
    let DownloadReply { shown, bytes, pieces, complete } = answer.await.map_err(|_| going_down())??;
    let mut response = Response::new(body(pieces, complete));
    let content_type = match download {
        Download::Dump { .. } => "application/sql; charset=utf-8",
        Download::File | Download::Check { .. } => "application/vnd.sqlite3",
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(bytes) = bytes {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    Ok(showing(shown, response))
}

/// Whether a dump is to name rowids, by the URL's query, as libSQL's server has it.
pub fn with_rowids(query: Option<&str>) -> Result<bool, ServerError> {
    let mut named = false;
    for parameter in query.into_iter().flat_map(|query| query.split('&')) {
        match parameter.split_once('=').unwrap_or((parameter, "true")) {
            ("preserve_row_ids", "true") => named = true,
            ("preserve_row_ids", "false") => named = false,
            ("preserve_row_ids", _) => {
                return Err(ServerError::new(Fault::Invalid, "`preserve_row_ids` is `true` or `false`"));
            }
            // Whoever stands between may add some of his own.
            _ => {}
        }
    }
    Ok(named)
}

/// What of a file is wanted, by the URL's query.
pub fn of_file(query: Option<&str>) -> Result<Download, Box<Response>> {
    let mut parts = query.into_iter().flat_map(|query| query.split('&'));
    match parts.find_map(|it| it.strip_prefix("check_from=")).map(str::parse) {
        None => Ok(Download::File),
        Some(Ok(from)) => Ok(Download::Check { from }),
        Some(Err(_)) => {
            Err(Box::new(failure(StatusCode::BAD_REQUEST, "`check_from` is the number of a byte", "SHOAL_INVALID")))
        }
    }
}

fn body(mut pieces: mpsc::Receiver<Bytes>, complete: oneshot::Receiver<()>) -> Body {
    let mut complete = Some(complete);
    let next = move |context: &mut Context<'_>| {
        if let Some(piece) = ready!(pieces.poll_recv(context)) {
            return Poll::Ready(Some(Ok(piece)));
        }
        let Some(end) = &mut complete else { return Poll::Ready(None) };
        let ended = ready!(Pin::new(end).poll(context));
        complete = None;
        Poll::Ready(ended.err().map(|_| Err(io::Error::other("the download was broken off"))))
    };
    Body::from_stream(poll_fn(next))
}
