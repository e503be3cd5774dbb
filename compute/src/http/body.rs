//! Bodies of requests: each is read whole, and borrows memory as it arrives, and before it is parsed.
//!
//! One that finds no room is refused at once, and not when others are done: each of several that wait would keep what
//! the others wait for. All together have a part of what the node lends, so that statements and transactions have the
//! rest; a single one may have more.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt;

use super::{failure, server_failure};
use crate::context::{BodyLoan, NodeContext};
use crate::error::{Fault, ServerError};
use crate::hrana::parts::Parts;
use crate::limits;

/// So much of a body has come. It will be there together with the values in it, for a moment.
fn has_room(loan: &mut BodyLoan, body_bytes: usize) -> bool {
    body_bytes <= limits::SMALL_BODY_BYTES || loan.try_set(2 * body_bytes)
}

/// What a body is told for which there is no room: it takes so many bytes, or more.
fn refusal(loan: &BodyLoan, needed_bytes: usize, what: &str) -> Response {
    if needed_bytes > loan.most_bytes() {
        let text = format!("{what} takes more memory than this server has (--memory)");
        return failure(StatusCode::PAYLOAD_TOO_LARGE, &text, "SHOAL_INVALID");
    }
    let text = format!(
        "this node has no memory left (--memory) for {what}, beside what others do; nothing was done; try again later"
    );
    server_failure(&ServerError::new(Fault::Retry, text))
}

/// Borrows what a whole body takes while it is parsed, or answers why not. Afterwards that are so many bytes.
///
/// A short body with many parts is not small.
pub(in crate::http) fn borrow_for_parts(body: &[u8], loan: &mut BodyLoan) -> Result<usize, Box<Response>> {
    let parts = Parts::of(body);
    let needed = parts.bytes_while_parsed();
    if needed > 2 * limits::SMALL_BODY_BYTES && !loan.try_set(needed) {
        let what = format!("a request of {} bytes with {} objects and lists in it", body.len(), parts.count);
        return Err(Box::new(refusal(loan, needed, &what)));
    }
    Ok(parts.bytes_when_parsed())
}

/// The next piece of a body, of which `bytes` have come, and which has been large since then. Who keeps memory from others
/// by sending slowly is not waited for.
async fn next_piece(body: &mut Body, loan: Option<&BodyLoan>, bytes: usize, since: Option<u64>) -> Result<Option<Bytes>, Response> {
    let frame = match loan.zip(since) {
        None => body.frame().await,
        Some((loan, since_micros)) => {
            let NodeContext { seam, settings, .. } = loan.node();
            let large_bytes = (bytes - limits::SMALL_BODY_BYTES) as u64;
            let for_its_size = Duration::from_micros(large_bytes * 1_000_000 / limits::LARGE_BODY_BYTES_PER_SECOND);
            let took = Duration::from_micros(seam.boot_micros().saturating_sub(since_micros));
            tokio::select! {
                biased;
                frame = body.frame() => frame,
                () = seam.sleep((settings.large_body_patience + for_its_size).saturating_sub(took)) => {
                    let text = "the request's body comes too slowly for its size; nothing was done";
                    return Err(failure(StatusCode::REQUEST_TIMEOUT, text, "SHOAL_INVALID"));
                }
            }
        }
    };
    match frame {
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(error)) => {
            let text = format!("the request's body broke off: {error}");
            Err(failure(StatusCode::BAD_REQUEST, &text, "SHOAL_INVALID"))
        }
        None => Ok(None),
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
    let mut large_since = None;
    loop {
        let so_far = first.len().max(all.len());
        if let Some(loan) = loan.as_ref().filter(|loan| loan.bytes() > 0) {
            large_since.get_or_insert_with(|| loan.node().seam.boot_micros());
        }
        let piece = match next_piece(&mut body, loan.as_deref(), so_far, large_since).await? {
            Some(piece) => piece,
            // Most come in one piece, which is not copied.
            None if all.is_empty() => return Ok(first),
            None => return Ok(all.freeze()),
        };
        let bytes = so_far + piece.len();
        let refusal = if bytes > bytes_max {
            let text = format!("the request is larger than {bytes_max} bytes, the limit of this server (--max-body-size)");
            Some(failure(StatusCode::PAYLOAD_TOO_LARGE, &text, "SHOAL_INVALID"))
        } else {
            let refused = |loan: &BodyLoan| {
                let all_bytes = bytes.max(announced);
                refusal(loan, all_bytes.saturating_mul(2), &format!("a request of {all_bytes} bytes and more"))
            };
            loan.as_mut().and_then(|loan| (!has_room(loan, bytes)).then(|| refused(loan)))
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
