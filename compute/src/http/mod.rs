//! The HTTP surface: where requests come in, and where errors become status codes.
//!
//! | file | what |
//! |---|---|
//! | [`route`] | which database and endpoint a request means |
//! | [`data`] | the data plane: Hrana pipelines and cursors |
//! | [`body`] | bodies of requests, and the memory that they take |
//! | [`download`] | databases as a whole: dumps and files |
//! | [`import`] | files that become databases |
//! | [`admin`] | the administration plane |
//! | [`listen`] | sockets, connections and their graceful end |

pub mod admin;
pub mod body;
pub mod data;
pub mod download;
pub mod import;
pub mod listen;
pub mod route;

use axum::body::Body;
use axum::extract::{FromRequestParts, Query};
use axum::response::Response;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use serde::de::DeserializeOwned;
use tenant::name::Name;
use tokio::sync::oneshot;

use crate::core::Message;
use crate::error::{Fault, ServerError, error_body};
use crate::hrana::error::shorten;
use crate::node::NodeHandle;

/// What is told of what is wrong with a query: it may repeat some of it.
const REASON_CHARS_MAX: usize = 200;

/// An answer with a JSON body.
fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer that says what went wrong.
fn failure(status: StatusCode, message: &str, code: &str) -> Response {
    json(status, error_body(message, code))
}

fn server_failure(error: &ServerError) -> Response {
    let mut response = failure(error.fault.status(), &error.message, error.fault.code());
    if let Some(seconds) = error.fault.retry_after_seconds() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Whether the database that has a name was over and has been deleted, for somebody who wants the name.
async fn freed(node: &NodeHandle, name: &Name) -> Result<bool, ServerError> {
    let (reply, answer) = oneshot::channel();
    node.send(name, Message::FreeIfOver { name: name.clone(), reply })?;
    answer.await.map_err(|_| going_down())?
}

/// The parameters of a URL's query. Axum's own refusals are plain text.
struct Parameters<T>(T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let parsed = Query::try_from_uri(&parts.uri);
        parsed.map(|Query(parameters)| Self(parameters)).map_err(|rejection| {
            let text = rejection.body_text();
            let what = shorten(text.rsplit("query string: ").next().unwrap_or(&text), REASON_CHARS_MAX);
            let text = format!("the URL's query is not what this request takes: {what}");
            failure(StatusCode::BAD_REQUEST, &text, "SHOAL_INVALID")
        })
    }
}

/// The answer to a request that the node could not end before it went down. Whether it had written by then,
/// nobody knows.
fn going_down() -> ServerError {
    let text = "this node went down before it could answer; the outcome is unknown. Read before you write again";
    ServerError::new(Fault::Indefinite, text)
}
