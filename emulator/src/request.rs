//! The way of one request: read in full, counted, delayed, struck by faults, applied, answered.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use s3s::{Body, HttpRequest, HttpResponse, S3Error, S3ErrorCode};
use tokio::time::Instant;

use crate::class::Target;
use crate::clock;
use crate::control;
use crate::fault_answer::{Closed, strike};
use crate::limits::{BODY_BYTES_MAX, BODY_RESERVED_BYTES_MAX};
use crate::server::Core;

/// Answers one request, or closes its connection.
pub(crate) async fn answer(
    core: Arc<Core>,
    request: Request<Incoming>,
) -> Result<HttpResponse, Closed> {
    let arrived = clock::now();
    let (head, body) = request.into_parts();
    if head.uri.path().starts_with(control::PREFIX) {
        return Ok(control::answer(&core, &head.method, head.uri.path()));
    }
    let Some(body) = read(&head, body).await? else {
        let error = S3Error::new(S3ErrorCode::EntityTooLarge);
        return error.to_http_response().map_err(|_| Closed("BUG: an error has no XML"));
    };
    // From here on the request is carried out whatever becomes of the connection, as in a real store: a
    // client that gives up cannot take a write back.
    let task = core.spawn(carry_out(Arc::clone(&core), arrived, head, body));
    let done = task.await.map_err(|_| Closed("BUG: a request panicked"))?;
    done.unwrap_or(Err(Closed("the emulator has stopped")))
}

/// The whole body, or `None` if it is larger than a PUT may be.
///
/// It is copied into a buffer of its own: as a slice of the connection's read buffer, a small object would
/// keep all of that in memory.
pub(crate) async fn read(head: &Parts, mut body: Incoming) -> Result<Option<Bytes>, Closed> {
    let announced = body.size_hint().lower();
    if announced > BODY_BYTES_MAX {
        return Ok(None);
    }
    let mut whole = Vec::with_capacity(announced.min(BODY_RESERVED_BYTES_MAX) as usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            tracing::debug!(method = %head.method, uri = %head.uri, %error, "the request broke off");
            Closed("the request broke off")
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() as u64 + data.len() as u64 > BODY_BYTES_MAX {
            return Ok(None);
        }
        whole.extend_from_slice(&data);
    }
    Ok(Some(Bytes::from(whole)))
}

async fn carry_out(
    core: Arc<Core>,
    arrived: Instant,
    head: Parts,
    body: Bytes,
) -> Result<HttpResponse, Closed> {
    let Target { operation, class } = Target::of(&head.method, &head.uri, &core.config.prefix);
    let _in_flight = core.tally.arrive(operation, &class, body.len() as u64);
    if let Some(fault) = core.faults.admit().await {
        return strike(fault, None).await;
    }
    let latency = core.draw_latency(operation);
    // Half of the time passes before the request is applied and half after, so that requests in flight at
    // the same time take effect in an order that no client can tell from outside.
    let mut due = arrived + latency / 2;
    clock::sleep_until(due).await;
    let verdict = core.faults.decide(operation, &class);
    if let Some(fault) = verdict.before {
        return strike(fault, None).await;
    }
    if !verdict.delay.is_zero() || verdict.gate.is_some() {
        clock::sleep(verdict.delay).await;
        if let Some(gate) = verdict.gate {
            gate.wait_open().await;
        }
        due = clock::now();
    }
    let (method, uri) = (head.method.clone(), head.uri.clone());
    let request = HttpRequest::from_parts(head, Body::from(body));
    let applied = core.service.call(request).await;
    clock::sleep_until(due + latency / 2).await;
    let answer = applied.map_err(|_| Closed("BUG: an S3 operation has no answer"))?;
    tracing::debug!(%method, %uri, status = answer.status().as_u16(), fault = ?verdict.after, "answered");
    if answer.status().is_success() && verdict.after.is_none() {
        core.tally.send(operation, &class, answer.body().size_hint().exact().unwrap_or(0));
    }
    match verdict.after {
        Some(fault) => strike(fault, Some(answer)).await,
        None => Ok(answer),
    }
}
