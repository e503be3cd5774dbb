//! Bodies of requests: each is read whole, and borrows memory as it arrives.
//!
//! One that finds no room is refused at once, and not when others are done: each of several that wait would keep what
//! the others wait for. All together have a part of what the node lends, so that statements and transactions have the
//! rest; a single one may have more.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt;
use segments::cache::Loan;

use super::{failure, server_failure};
use crate::context::NodeContext;
use crate::error::{Fault, ServerError};
use crate::limits;

/// The memory of one request.
pub struct BodyLoan {
    node: Arc<NodeContext>,
    loan: Loan,
}

impl BodyLoan {
    pub fn new(node: &Arc<NodeContext>) -> Self {
        Self { node: node.clone(), loan: node.cache.lend() }
    }

    /// So much of a body has come. It will be there together with the values in it, for a moment.
    fn has_come(&mut self, body_bytes: usize) -> bool {
        body_bytes <= limits::SMALL_BODY_BYTES || self.try_set(2 * body_bytes)
    }

    /// The values are there, and the body is not any more.
    pub fn is_parsed(&mut self) {
        let bytes = self.loan.bytes() / 2;
        self.set(bytes);
    }

    fn try_set(&mut self, bytes: usize) -> bool {
        let growth = bytes.saturating_sub(self.loan.bytes());
        let others = self.node.body_bytes.fetch_add(growth, Ordering::Relaxed) - self.loan.bytes();
        let share = self.node.cache.lent_bytes_max() / limits::BODIES_PART;
        let has_room = (others == 0 || others.saturating_add(bytes) <= share) && self.loan.try_set(bytes);
        if !has_room {
            self.node.body_bytes.fetch_sub(growth, Ordering::Relaxed);
        }
        has_room
    }

    /// No more than before.
    fn set(&mut self, bytes: usize) {
        self.node.body_bytes.fetch_sub(self.loan.bytes() - bytes, Ordering::Relaxed);
        self.loan.set(bytes);
    }

    /// What a body is told for which there is no room.
    fn refuse(&self, body_bytes: usize) -> Response {
        if body_bytes > self.node.cache.lent_bytes_max() / 2 {
            let text = format!("a request of {body_bytes} bytes and more takes more memory than this server has (--memory)");
            return failure(StatusCode::PAYLOAD_TOO_LARGE, &text, "SHOAL_INVALID");
        }
        let text = format!(
            "this node has no memory left (--memory) for a request of {body_bytes} bytes and more, beside what others \
             do; nothing was done; try again later"
        );
        server_failure(&ServerError::new(Fault::Retry, text))
    }
}

impl Drop for BodyLoan {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Reads a whole body, or answers why not. For those that are small.
pub(in crate::http) async fn read_body(body: Body, bytes_max: usize) -> Result<Bytes, Response> {
    read_pieces(body, bytes_max, None).await
}

/// The same with a loan for it.
pub(in crate::http) async fn read_lent_body(body: Body, bytes_max: usize, loan: &mut BodyLoan) -> Result<Bytes, Response> {
    read_pieces(body, bytes_max, Some(loan)).await
}

async fn read_pieces(mut body: Body, bytes_max: usize, mut loan: Option<&mut BodyLoan>) -> Result<Bytes, Response> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    loop {
        let piece = match body.frame().await {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => {
                let text = format!("the request's body broke off: {error}");
                return Err(failure(StatusCode::BAD_REQUEST, &text, "SHOAL_INVALID"));
            }
            // Most come in one piece, which is not copied.
            None if all.is_empty() => return Ok(first),
            None => return Ok(all.freeze()),
        };
        let bytes = first.len().max(all.len()) + piece.len();
        let refusal = if bytes > bytes_max {
            let text = format!("the request is larger than {bytes_max} bytes, the limit of this server (--max-body-size)");
            Some(failure(StatusCode::PAYLOAD_TOO_LARGE, &text, "SHOAL_INVALID"))
        } else {
            loan.as_mut().and_then(|loan| (!loan.has_come(bytes)).then(|| loan.refuse(bytes.max(announced))))
        };
        if let Some(refusal) = refusal {
            drop((first, all, piece));
            if let Some(loan) = loan {
                loan.set(0);
            }
            discard(body, bytes_max).await;
            return Err(refusal);
        }
        if bytes == piece.len() {
            first = piece;
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&piece);
    }
}

/// Reads the rest of a body without keeping it, since most clients look for an answer only once they have sent
/// everything: an early one would reach them as a broken connection. Only up to a bound, because nothing says
/// that the body ends.
async fn discard(mut body: Body, bytes_max: usize) {
    let mut left = bytes_max;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        left = match left.checked_sub(bytes) {
            Some(left) => left,
            None => return,
        };
    }
}
