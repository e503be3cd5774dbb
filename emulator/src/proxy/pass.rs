//! The way of one request through the proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use s3s::{Body, HttpResponse};

use super::Shared;
use super::faults::{ProxyFault, Verdict};
use crate::class::{Operation, Target};
use crate::clock;
use crate::fault_answer::{Closed, strike};
use crate::faults::Fault;
use crate::request::read;

/// A request that is sent again later comes so many times as late as a slow one.
const LATER: u32 = 10;

/// Answers one request, or closes its connection; with a reset, if `resets` is set by then.
pub(super) async fn pass(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    resets: Arc<AtomicBool>,
) -> Result<HttpResponse, Closed> {
    let (head, body) = request.into_parts();
    let body = read(&head, body).await?.ok_or(Closed("the request is too large"))?;
    // As with a store itself, a request that has arrived goes on without its client.
    let task = super::spawn(async move { Passing { shared, head, body, resets }.carry_out().await });
    task.await.map_err(|_| Closed("BUG: a request panicked"))?
}

struct Passing {
    shared: Arc<Shared>,
    head: Parts,
    body: Bytes,
    resets: Arc<AtomicBool>,
}

impl Passing {
    async fn carry_out(self) -> Result<HttpResponse, Closed> {
        let operation = Target::of(&self.head.method, &self.head.uri, "").operation;
        let uri = self.head.uri.to_string();
        let verdict = self.shared.faults.decide(operation, self.shared.earlier(&uri).is_some());
        if let Some(ends) = verdict.hole_ends {
            clock::sleep_until(ends).await;
            if verdict.is_before {
                return Err(Closed("fault: swallowed by a black hole"));
            }
            return self.forward().await;
        }
        let Some(fault) = verdict.fault else {
            let answer = self.forward().await?;
            return if operation == Operation::List { self.keep(uri, answer).await } else { Ok(answer) };
        };
        tracing::debug!(method = %self.head.method, uri, ?fault, "struck");
        self.suffer(fault, &verdict, &uri).await
    }

    async fn suffer(&self, fault: ProxyFault, verdict: &Verdict, uri: &str) -> Result<HttpResponse, Closed> {
        match fault {
            ProxyFault::LostRequest => strike(Fault::LostRequest, None).await,
            ProxyFault::ResetBefore => Err(self.reset()),
            ProxyFault::Conflict => strike(Fault::Conflict, None).await,
            ProxyFault::Throttled => strike(Fault::Unavailable, None).await.map(|mut answer| {
                *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
                answer
            }),
            ProxyFault::Unavailable => strike(Fault::Unavailable, None).await,
            ProxyFault::Slow if verdict.is_before => {
                clock::sleep(verdict.delay).await;
                self.forward().await
            }
            ProxyFault::Slow => {
                let answer = self.forward().await;
                clock::sleep(verdict.delay).await;
                answer
            }
            ProxyFault::SentTwice => {
                self.forward().await?;
                self.forward().await
            }
            ProxyFault::SentAgainLater => {
                let answer = self.forward().await;
                self.forward_later(verdict);
                answer
            }
            ProxyFault::FailedAfter => strike(Fault::FailedAfter, Some(self.forward().await?)).await,
            ProxyFault::LostAnswer => strike(Fault::LostAnswer, Some(self.forward().await?)).await,
            ProxyFault::ResetAfter => {
                self.forward().await?;
                Err(self.reset())
            }
            ProxyFault::CutAnswer => strike(Fault::CutAnswer, Some(self.forward().await?)).await,
            ProxyFault::StaleList => self.shared.earlier(uri).ok_or(Closed("BUG: no earlier answer")),
            ProxyFault::BlackHole => unreachable!("BUG: a black hole has an end"),
        }
    }

    async fn forward(&self) -> Result<HttpResponse, Closed> {
        self.shared.upstream.send(&self.head, self.body.clone()).await.map_err(|error| {
            tracing::debug!(%error, uri = %self.head.uri, "the store has not answered");
            Closed("the store has not answered")
        })
    }

    fn forward_later(&self, verdict: &Verdict) {
        let delay = verdict.delay * LATER;
        let (shared, head, body) = (self.shared.clone(), self.head.clone(), self.body.clone());
        drop(super::spawn(async move {
            clock::sleep(delay).await;
            // Nobody waits for this answer.
            let _ = shared.upstream.send(&head, body).await;
        }));
    }

    /// Keeps a listing, to serve it again when it is stale.
    async fn keep(&self, uri: String, answer: HttpResponse) -> Result<HttpResponse, Closed> {
        let (head, body) = answer.into_parts();
        let whole = body.collect().await.map_err(|_| Closed("BUG: a body in memory cannot be read"))?.to_bytes();
        if head.status.is_success() {
            self.shared.keep(uri, head.clone(), whole.clone());
        }
        Ok(HttpResponse::from_parts(head, Body::from(whole)))
    }

    fn reset(&self) -> Closed {
        self.resets.store(true, Ordering::Relaxed);
        Closed("fault: the connection is reset")
    }
}
