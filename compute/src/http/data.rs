//! The data plane: Hrana over HTTP, and databases as a whole.
//!
//! One handler serves every path: which database and endpoint are meant is [`route`]'s business. Bodies
//! are read whatever their content type, since clients send odd ones or none.
//!
//! | header of an answer | what |
//! |---|---|
//! | `shoal-lsn` | the last commit that it shows (a cursor's answer: this, or a later one) |
//! | `shoal-role` | `owner`, `replica`, or `past` where the URL names a moment |
//! | `shoal-staleness-ms` | of a replica: everything that was acknowledged longer ago is in the answer |
//!
//! A request with `shoal-min-lsn`, or with a `replication_index` in its statements or its batch, is not answered with
//! less than that: a replica waits for it, and refuses if it takes too long.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use futures_util::stream::poll_fn;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Request, StatusCode};
use pageserver::service::server::PageServer;
use tenant::name::Name;
use tokio::sync::{mpsc, oneshot};
use tower_http::cors::CorsLayer;

use super::route::{self, Endpoint, Route, Target};
use super::body::{borrow_for_parts, read_lent_body};
use super::{download, failure, going_down, json, server_failure};
use crate::context::BodyLoan;
use crate::core::{CursorReply, Job, JobError, Message, PipelineReply, Shown, Work};
use crate::hrana::HranaVersion;
use crate::hrana::baton::BatonKey;
use crate::hrana::cursor::{self, CursorResponseBody};
use crate::hrana::error::ProtocolError;
use crate::hrana::json::WriteJson;
use crate::hrana::request::{CursorRequestBody, PipelineRequestBody, StreamRequest};
use crate::hrana::response::PipelineResponseBody;
use crate::node::NodeHandle;
use crate::session::download::Download;
use crate::session::output::RESULT_BYTES;

pub const LSN_HEADER: &str = "shoal-lsn";
pub const MIN_LSN_HEADER: &str = "shoal-min-lsn";
pub const ROLE_HEADER: &str = "shoal-role";
pub const STALENESS_HEADER: &str = "shoal-staleness-ms";

/// What the data plane is told.
pub struct DataPlane {
    pub node: NodeHandle,
    pub batons: BatonKey,
    pub default_database: Option<Name>,
    pub create_on_first_use: bool,
    pub body_bytes_max: usize,
}

/// The data plane as a service.
pub fn router(plane: DataPlane) -> Router {
    let cors = CorsLayer::permissive().allow_private_network(true);
    Router::new().fallback(handle).with_state(Arc::new(plane)).layer(cors)
}

/// What other nodes ask for, by gRPC, to be merged into a router of the same port.
pub fn peers_router(pages: PageServer) -> Router {
    let path = format!("/{}/{{method}}", pageserver::service::SERVICE);
    Router::new().route(&path, post(answer_peer)).with_state(pages)
}

async fn answer_peer(State(pages): State<PageServer>, Path(method): Path<String>, request: Request<Body>) -> Response {
    pages.call(&method, request).await.map(Body::new)
}

async fn handle(State(plane): State<Arc<DataPlane>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let default = plane.default_database.as_ref();
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let route = match route::resolve(&parts.method, parts.uri.path(), authority, &parts.headers, default) {
        Ok(route) => route,
        Err(error) => return refuse(&error),
    };
    let (target, endpoint) = match route {
        Route::Health => return Response::new(Body::empty()),
        Route::Version => return text(&format!("shoal {}\n", env!("CARGO_PKG_VERSION"))),
        Route::Probe(version) => return text(&format!("Hello, this is HTTP API {version} (Hrana over HTTP)\n")),
        Route::Database { target, endpoint } => (target, endpoint),
    };
    let min_lsn = match min_lsn(&parts.headers) {
        Ok(min_lsn) => min_lsn,
        Err(response) => return *response,
    };
    let mut loan = BodyLoan::new(&plane.node.context);
    let body = match read_lent_body(body, plane.body_bytes_max, &mut loan).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let answered = match endpoint {
        Endpoint::Pipeline(version) => pipeline(&plane, &target, version, min_lsn, (body, loan)).await,
        Endpoint::Dump => {
            let with_rowids = match download::with_rowids(parts.uri.query()) {
                Ok(with_rowids) => with_rowids,
                Err(error) => return server_failure(&error),
            };
            let download = Download::Dump { with_rowids };
            download::respond(&plane.node, &target, plane.create_on_first_use, min_lsn, download).await
        }
        Endpoint::Export => match download::of_file(parts.uri.query()) {
            Ok(wanted) => download::respond(&plane.node, &target, plane.create_on_first_use, min_lsn, wanted).await,
            Err(response) => return *response,
        },
        Endpoint::Cursor => cursor(&plane, &target, min_lsn, (body, loan)).await,
    };
    answered.unwrap_or_else(|error| job_failure(&error))
}

fn text(text: &str) -> Response {
    Response::new(Body::from(text.to_owned()))
}

fn refuse(error: &route::RouteError) -> Response {
    let mut response = json(error.status, error.body());
    if let Some(allow) = error.allow {
        response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static(allow));
    }
    response
}

async fn pipeline(
    plane: &DataPlane,
    target: &Target,
    version: HranaVersion,
    min_lsn: u64,
    (body, mut loan): (Bytes, BodyLoan),
) -> Result<Response, JobError> {
    let parsed_bytes = match borrow_for_parts(&body, &mut loan) {
        Ok(bytes) => bytes,
        Err(refusal) => return Ok(*refusal),
    };
    let PipelineRequestBody { baton, requests } = PipelineRequestBody::parse(&body)?;
    drop(body);
    loan.is_parsed(parsed_bytes);
    if let Some(refusal) = too_many_requests(plane, requests.len()) {
        return Ok(refusal);
    }
    // A baton belongs to one database, or one moment of it.
    let shown_as = target.to_string();
    let baton = baton.map(|text| plane.batons.open(&text, &shown_as)).transpose().map_err(ProtocolError::from)?;
    let min_lsn = requests.iter().filter_map(StreamRequest::replication_index).fold(min_lsn, u64::max);
    let (reply, answer) = oneshot::channel();
    let work = Work::Pipeline { requests, reply };
    let Target { name, at } = target.clone();
    // For as long as it runs, also if its client goes, and here until the answer is written.
    let loan = Arc::new(loan);
    let held = Some(loan.clone());
    let job = Job { database: name, at, create: plane.create_on_first_use, baton, version, min_lsn, work, loan: held };
    plane.node.send(&target.name, Message::Job(job)).map_err(JobError::from)?;
    let PipelineReply { baton, results, shown } = answer.await.map_err(|_| going_down())??;
    let baton = baton.map(|baton| plane.batons.seal(&baton, &shown_as));
    let body = PipelineResponseBody { baton, base_url: None, results }.to_json();
    drop(loan);
    Ok(showing(shown, json(StatusCode::OK, body)))
}

/// Each of them is answered, so as many as fit into an answer.
fn too_many_requests(plane: &DataPlane, count: usize) -> Option<Response> {
    let max = plane.node.context.settings.response_bytes_max / RESULT_BYTES;
    (count > max).then(|| {
        let text = format!("{count} requests in one are more than an answer has room for, {max} (--max-response-size)");
        failure(StatusCode::PAYLOAD_TOO_LARGE, &text, "SHOAL_INVALID")
    })
}

async fn cursor(
    plane: &DataPlane,
    target: &Target,
    min_lsn: u64,
    (body, mut loan): (Bytes, BodyLoan),
) -> Result<Response, JobError> {
    let parsed_bytes = match borrow_for_parts(&body, &mut loan) {
        Ok(bytes) => bytes,
        Err(refusal) => return Ok(*refusal),
    };
    let CursorRequestBody { baton, batch } = CursorRequestBody::parse(&body)?;
    drop(body);
    loan.is_parsed(parsed_bytes);
    // A baton belongs to one database, or one moment of it.
    let shown_as = target.to_string();
    let baton = baton.map(|text| plane.batons.open(&text, &shown_as)).transpose().map_err(ProtocolError::from)?;
    let min_lsn = batch.replication_index().map_or(min_lsn, |index| index.max(min_lsn));
    let (head, answer) = oneshot::channel();
    let work = Work::Cursor { batch, head };
    let version = HranaVersion::Hrana3;
    let Target { name, at } = target.clone();
    let loan = Some(Arc::new(loan));
    let job = Job { database: name, at, create: plane.create_on_first_use, baton, version, min_lsn, work, loan };
    plane.node.send(&target.name, Message::Job(job)).map_err(JobError::from)?;
    let CursorReply { baton, pieces, shown } = answer.await.map_err(|_| going_down())??;
    let baton = baton.map(|baton| plane.batons.seal(&baton, &shown_as));
    let mut first = Vec::new();
    cursor::write_line(&mut first, &CursorResponseBody { baton, base_url: None });
    let mut response = Response::new(stream_body(first.into(), pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(showing(shown, response))
}

/// Says what state an answer shows.
pub(super) fn showing(shown: Shown, mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(LSN_HEADER, HeaderValue::from(shown.lsn));
    headers.insert(ROLE_HEADER, HeaderValue::from_static(shown.role.as_str()));
    if let Some(staleness) = shown.staleness {
        // Rounded up: it is a bound.
        let millis = u64::try_from(staleness.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
        headers.insert(STALENESS_HEADER, HeaderValue::from(millis));
    }
    response
}

/// The last commit that a client says it has seen.
fn min_lsn(headers: &HeaderMap) -> Result<u64, Box<Response>> {
    let Some(value) = headers.get(MIN_LSN_HEADER) else { return Ok(0) };
    let lsn = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    lsn.ok_or_else(|| {
        let text = format!("the header {MIN_LSN_HEADER} is not a number: send what {LSN_HEADER} said");
        Box::new(failure(StatusCode::BAD_REQUEST, &text, "SHOAL_INVALID"))
    })
}

/// The first line, then the pieces as they come.
fn stream_body(first: Bytes, mut pieces: mpsc::Receiver<Bytes>) -> Body {
    let mut first = Some(first);
    let next = move |context: &mut Context<'_>| match first.take() {
        Some(first) => Poll::Ready(Some(Ok::<_, Infallible>(first))),
        None => pieces.poll_recv(context).map(|piece| piece.map(Ok)),
    };
    Body::from_stream(poll_fn(next))
}

pub(super) fn job_failure(error: &JobError) -> Response {
    match error {
        JobError::Server(error) => server_failure(error),
        JobError::NoSuchDatabase(name) => {
            let text = format!("there is no database `{name}`; create it with `shoal db create {name}`");
            failure(StatusCode::NOT_FOUND, &text, "SHOAL_NO_SUCH_DATABASE")
        }
        // Clients of libSQL's server expect JSON for this one, and show the text of all others.
        JobError::Protocol(error) => failure(StatusCode::BAD_REQUEST, &error.to_string(), error.code()),
    }
}
