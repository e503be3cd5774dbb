//! The administration plane, with the paths of libSQL's server and a listing, which theirs lacks.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/namespaces/<name>/create` | 200; 400 if it exists, as libSQL's server has it |
//! | `DELETE /v1/namespaces/<name>` | 200, `{"name","database","bookmark":"…"\|null}`, see [`remove`]; 404 |
//! | `POST /v1/namespaces/<name>/release` | 200: this node has folded it and given it up; 404 |
//! | `GET /v1/namespaces/<name>/export` | the SQLite file, see [`super::download`]; 404 |
//! | `GET /v1/namespaces?prefix=&after=&limit=` | `{"namespaces":[{"name":"…"}],"next":"…"\|null}` |
//! | `POST …/fork/<to>`, `…/restore`, `…/undo`, `…/reset`, `…/undelete` | see [`changes`] |
//! | `GET …/history?before=&limit=` | see [`history`] |
//! | `GET …/retention` | `{"retention":"7d","expires":"…"\|null}` |
//! | `POST …/retention`, `{"retention"?,"expires"?}` | the same, as it is then |
//! | `GET …/tree` | `{"tree":[{"name","database","depth",…}],"complete":true}`, see [`tree`] |
//! | `GET /health` | 200 |

mod bodies;
mod changes;
mod found;
mod history;
mod moments;
mod retention;
mod tree;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::{delete, get, post};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant::name::Name;
use tenant::registry;
use tokio::sync::oneshot;
use walstore::register::Patience;

use super::data::job_failure;
use super::route::Target;
use super::body::read_body;
use super::{Parameters, download, failure, going_down, import, json as json_answer, server_failure};
use crate::core::{Deleted, Message, OpenError};
use crate::error::Fault;
use crate::moment::Moment;
use crate::node::NodeHandle;

const LIST_LIMIT_DEFAULT: usize = 100;
const BODY_BYTES_MAX: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(15);

/// The administration plane as a service.
pub fn router(node: NodeHandle) -> Router {
    Router::new()
        .route("/", get(|| async { "Welcome to the admin API of Shoal\n" }))
        .route("/health", get(|| async {}))
        .route("/v1/namespaces", get(list))
        .route("/v1/namespaces/{name}/create", post(create))
        .route("/v1/namespaces/{name}/release", post(release))
        .route("/v1/namespaces/{name}/export", get(export))
        .route("/v1/namespaces/{name}", delete(remove))
        .route("/v1/namespaces/{name}/fork/{to}", post(changes::fork))
        .route("/v1/namespaces/{name}/restore", post(changes::restore))
        .route("/v1/namespaces/{name}/undo", post(changes::undo))
        .route("/v1/namespaces/{name}/reset", post(changes::reset))
        .route("/v1/namespaces/{name}/undelete", post(changes::undelete))
        .route("/v1/namespaces/{name}/history", get(history::history))
        .route("/v1/namespaces/{name}/retention", get(retention::show).post(retention::set))
        .route("/v1/namespaces/{name}/tree", get(tree::tree))
        .fallback(|| async { failure(StatusCode::NOT_FOUND, "there is no such administration request", "SHOAL_INVALID") })
        .with_state(Arc::new(node.clone()))
        .merge(import::router(node))
}

fn parse(name: &str) -> Result<Name, Box<Response>> {
    Name::parse(name).map_err(|error| Box::new(failure(StatusCode::BAD_REQUEST, &error.to_string(), "SHOAL_INVALID")))
}

/// Settings that libSQL's server takes. Those that would change what is promised are refused, not ignored.
#[derive(Default, Deserialize)]
struct CreateBody {
    dump_url: Option<String>,
    jwt_key: Option<String>,
    max_db_size: Option<String>,
    shared_schema_name: Option<String>,
}

impl CreateBody {
    fn unsupported(&self) -> Option<&'static str> {
        let fields = [
            ("dump_url", self.dump_url.is_some()),
            ("jwt_key", self.jwt_key.is_some()),
            ("max_db_size", self.max_db_size.is_some()),
            ("shared_schema_name", self.shared_schema_name.is_some()),
        ];
        fields.into_iter().find(|(_, given)| *given).map(|(field, _)| field)
    }
}

async fn create(State(node): State<Arc<NodeHandle>>, Path(name): Path<String>, body: Body) -> Response {
    let name = match parse(&name) {
        Ok(name) => name,
        Err(response) => return *response,
    };
    let body = match read_body(body, BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    if !body.trim_ascii().is_empty() {
        match serde_json::from_slice::<CreateBody>(&body) {
            Err(error) => return failure(StatusCode::BAD_REQUEST, &format!("the body is not JSON settings: {error}"), "SHOAL_INVALID"),
            Ok(settings) => if let Some(field) = settings.unsupported() {
                return failure(StatusCode::BAD_REQUEST, &format!("`{field}` is not supported yet; leave it out"), "SHOAL_INVALID");
            },
        }
    }
    let (reply, answer) = oneshot::channel();
    if let Err(stopped) = node.send(&name, Message::Create { name: name.clone(), reply }) {
        return server_failure(&stopped);
    }
    match answer.await {
        Ok(Ok(_)) => Response::new(Body::empty()),
        // The tools around libSQL's server look for this status and these words.
        Ok(Err(error)) if error.fault == Fault::Conflict => {
            failure(StatusCode::BAD_REQUEST, &format!("Namespace `{name}` already exists"), error.fault.code())
        }
        Ok(Err(error)) => server_failure(&error),
        Err(_) => server_failure(&going_down()),
    }
}

/// The bookmark names the state that was deleted, for a restore when its name has been used again and there is nothing
/// to undelete. It is null for a database without a history, which is gone.
async fn remove(State(node): State<Arc<NodeHandle>>, Path(name): Path<String>) -> Response {
    let name = match parse(&name) {
        Ok(name) => name,
        Err(response) => return *response,
    };
    let (reply, answer) = oneshot::channel();
    if let Err(stopped) = node.send(&name, Message::Delete { name: name.clone(), reply }) {
        return server_failure(&stopped);
    }
    match answer.await {
        Ok(Ok(Deleted { database, last })) => {
            let bookmark = last.map(|lsn| Moment::Bookmark { database, lsn }.to_string());
            let body = json!({"name": name.as_str(), "database": database.to_string(), "bookmark": bookmark});
            json_answer(StatusCode::OK, body.to_string())
        }
        Ok(Err(error)) => *refusal(error),
        Err(_) => server_failure(&going_down()),
    }
}

async fn release(State(node): State<Arc<NodeHandle>>, Path(name): Path<String>) -> Response {
    let name = match parse(&name) {
        Ok(name) => name,
        Err(response) => return *response,
    };
    let (reply, answer) = oneshot::channel();
    if let Err(stopped) = node.send(&name, Message::Release { name: name.clone(), reply }) {
        return server_failure(&stopped);
    }
    done(answer).await
}

/// `<name>`, or `<name>@<moment>` for the state as of then.
async fn export(
    State(node): State<Arc<NodeHandle>>,
    Path(text): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let (name, moment) = text.split_once('@').map_or((text.as_str(), None), |(name, moment)| (name, Some(moment)));
    let name = match parse(name) {
        Ok(name) => name,
        Err(response) => return *response,
    };
    let at = match moment.map(Moment::parse).transpose() {
        Ok(at) => at,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &error.to_string(), "SHOAL_INVALID"),
    };
    let wanted = match download::of_file(query.as_deref()) {
        Ok(wanted) => wanted,
        Err(response) => return *response,
    };
    let answered = download::respond(&node, &Target { name, at }, false, 0, wanted).await;
    answered.unwrap_or_else(|error| job_failure(&error))
}

async fn done(answer: oneshot::Receiver<Result<(), OpenError>>) -> Response {
    match answer.await {
        Ok(Ok(())) => Response::new(Body::empty()),
        Ok(Err(error)) => *refusal(error),
        Err(_) => server_failure(&going_down()),
    }
}

/// The answer to a request that was not carried out.
fn refusal(error: OpenError) -> Box<Response> {
    Box::new(match error {
        OpenError::NoSuchDatabase(name) => {
            failure(StatusCode::NOT_FOUND, &format!("there is no database `{name}`"), "SHOAL_NO_SUCH_DATABASE")
        }
        OpenError::Server(error) => server_failure(&error),
    })
}

/// How many entries a list is to have. None would be no list, and lead to no next page.
fn limit(asked: Option<usize>, default: usize) -> Result<usize, Box<Response>> {
    match asked.unwrap_or(default) {
        0 => Err(bodies::invalid("`limit` is how many entries to list, at least 1")),
        limit => Ok(limit),
    }
}

#[derive(Deserialize)]
struct ListQuery {
    #[serde(default)]
    prefix: String,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Listed {
    name: String,
}

#[derive(Serialize)]
struct ListAnswer {
    namespaces: Vec<Listed>,
    next: Option<String>,
}

async fn list(State(node): State<Arc<NodeHandle>>, Parameters(query): Parameters<ListQuery>) -> Response {
    let limit = match limit(query.limit, LIST_LIMIT_DEFAULT) {
        Ok(limit) => limit,
        Err(response) => return *response,
    };
    let after = match query.after.as_deref().filter(|after| !after.is_empty()).map(parse).transpose() {
        Ok(after) => after,
        Err(response) => return *response,
    };
    let node = &node.context;
    let patience = Patience::for_duration(&node.seam, PATIENCE);
    let page = registry::list(&*node.stores.main, &node.seam, &query.prefix, after.as_ref(), limit, patience).await;
    match page {
        Ok(page) => {
            let namespaces = page.names.iter().map(|name| Listed { name: name.to_string() }).collect();
            let answer = ListAnswer { namespaces, next: page.next.map(|name| name.to_string()) };
            json_answer(StatusCode::OK, serde_json::to_vec(&answer).expect("BUG: plain strings are JSON"))
        }
        Err(error) => server_failure(&error.into()),
    }
}
