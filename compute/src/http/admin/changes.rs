//! Forks and restores.
//!
//! | request | body |
//! |---|---|
//! | `POST …/<name>/fork/<to>` | `{"timestamp"\|"lsn"\|"bookmark"?, "expires"?}`: as of now without a moment |
//! | `POST …/<name>/restore` | `{"timestamp"\|"lsn"\|"bookmark", "to"?}`: in place without `to` |
//! | `POST …/<name>/undo` | `{"bookmark"?}`: that of the last restore in place without one |
//! | `POST …/<name>/reset` | nothing |
//! | `POST …/<name>/undelete` | nothing |
//!
//! All answer `{"name","database","lsn","undo"}`: what the name in question leads to now, the last commit that it begins
//! with, and the bookmark of what the name led to before (or null).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tenant::head::{Head, HeadState};
use tenant::name::Name;
use tenant::registry;
use tokio::sync::oneshot;
use walstore::id::DatabaseId;
use walstore::register::Patience;

use super::bodies::{invalid, read_json};
use super::found::{explained, living};
use super::moments::At;
use super::{PATIENCE, parse, refusal};
use crate::context::NodeContext;
use crate::core::{Change, Changed, Lent, Lineage, Message, OpenError};
use crate::error::{Fault, ServerError};
use crate::http::{failure, freed, going_down, json as json_answer};
use crate::moment::{Moment, parse_end};
use crate::node::NodeHandle;

type Outcome = Result<Changed, Box<Response>>;

/// Restores in place that are followed from one parent to what has its place now.
const MOVES_MAX: usize = 1_000;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ForkBody {
    timestamp: Option<String>,
    lsn: Option<u64>,
    bookmark: Option<String>,
    expires: Option<String>,
}

pub(super) async fn fork(
    State(node): State<Arc<NodeHandle>>,
    Path((name, to)): Path<(String, String)>,
    body: Body,
) -> Response {
    let forked = async {
        let (name, to) = (parse(&name)?, parse(&to)?);
        let ForkBody { timestamp, lsn, bookmark, expires } = read_json(body).await?;
        let at = At::new(timestamp, lsn, bookmark).moment()?;
        let now = node.context.now_micros();
        let expires_micros = expires.map_or(Ok(0), |text| parse_end(&text, now)).map_err(|error| invalid(&error))?;
        new_name(&node, name, Change::Fork { to: to.clone(), at, expires_micros }, &to).await
    };
    answer(forked.await)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RestoreBody {
    timestamp: Option<String>,
    lsn: Option<u64>,
    bookmark: Option<String>,
    to: Option<String>,
}

pub(super) async fn restore(State(node): State<Arc<NodeHandle>>, Path(name): Path<String>, body: Body) -> Response {
    let restored = async {
        let name = parse(&name)?;
        let RestoreBody { timestamp, lsn, bookmark, to } = read_json(body).await?;
        let at = At::new(timestamp, lsn, bookmark).moment()?;
        let at = at.ok_or_else(|| invalid("restore to when? Give `timestamp`, `lsn` or `bookmark`"))?;
        match to.as_deref().map(parse).transpose()? {
            None => change(&node, name, Change::Restore { at }).await,
            Some(to) => new_name(&node, name, Change::Fork { to: to.clone(), at: Some(at), expires_micros: 0 }, &to).await,
        }
    };
    answer(restored.await)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct UndoBody {
    bookmark: Option<String>,
}

pub(super) async fn undo(State(node): State<Arc<NodeHandle>>, Path(name): Path<String>, body: Body) -> Response {
    let undone = async {
        let name = parse(&name)?;
        let UndoBody { bookmark } = read_json(body).await?;
        let bookmark: Option<Moment> = At::new(None, None, bookmark).moment()?;
        change(&node, name, Change::Undo { bookmark }).await
    };
    answer(undone.await)
}

pub(super) async fn undelete(State(node): State<Arc<NodeHandle>>, Path(name): Path<String>) -> Response {
    let undeleted = async {
        let name = parse(&name)?;
        ask(&node, name, Change::Undelete).await?.map_err(refusal)
    };
    answer(undeleted.await)
}

pub(super) async fn reset(State(node): State<Arc<NodeHandle>>, Path(name): Path<String>) -> Response {
    let reset = async {
        let name = parse(&name)?;
        let parent = parent_of(&node.context, &name).await?;
        let (reply, lent) = oneshot::channel();
        send(&node, &name, Message::Lend { name: name.clone(), reply })?;
        let Lent { head, last, done, closed } = received(&node, lent).await?;
        let (reply, taken) = oneshot::channel();
        let replace = Message::Replace { name: parent.clone(), replaced: Box::new(head), last, reply };
        // Without an answer `done` is dropped, and the database opens again as it was.
        send(&node, &parent, replace)?;
        let (changed, new) = received(&node, taken).await?;
        drop(done.send(new));
        // It ends without a word. Whoever asks from now on is shown the new state.
        let _ = closed.await;
        Ok(changed)
    };
    answer(reset.await)
}

/// The name of what a database was forked from, past restores in place and undeletion.
async fn parent_of(node: &NodeContext, name: &Name) -> Result<Name, Box<Response>> {
    let patience = Patience::for_duration(&node.seam, PATIENCE);
    let head = living(node, name).await?;
    let mut at: Option<DatabaseId> = head.parent.map(|point| point.parent);
    for _ in 0..MOVES_MAX {
        let Some(id) = at else { break };
        let parent = registry::read_head(&*node.stores.main, &node.seam, id, patience).await;
        match parent.map_err(|error| refusal(ServerError::from(error).into()))?.map(|parent| parent.value) {
            // Its own former state, by a restore in place: what that was forked from counts.
            Some(Head { name: of, parent, .. }) if of == *name => at = parent.map(|point| point.parent),
            Some(Head { state: HeadState::Live, name, .. }) => return Ok(name),
            Some(Head { state: HeadState::Moved { new }, .. }) => at = Some(new),
            Some(head) if goes_on(node, &head, patience).await? => return Ok(head.name),
            _ => return Err(invalid(&format!("what `{name}` was forked from is gone, so there is nothing to reset it to"))),
        }
    }
    Err(invalid(&format!("`{name}` is no fork, so there is nothing to reset it to")))
}

/// Whether a database that was deleted was brought back.
async fn goes_on(node: &NodeContext, ended: &Head, patience: Patience) -> Result<bool, Box<Response>> {
    Lineage::new(node, patience).goes_on(ended).await.map_err(|error| refusal(error.into()))
}

/// A change that takes a name that is free.
async fn new_name(node: &NodeHandle, name: Name, change: Change, to: &Name) -> Outcome {
    let is_taken = |error: &OpenError| matches!(error, OpenError::Server(error) if error.fault == Fault::Conflict);
    let mut done = ask(node, name.clone(), change.clone()).await?;
    if done.as_ref().is_err_and(is_taken) && freed(node, to).await.map_err(|error| refusal(error.into()))? {
        done = ask(node, name, change).await?;
    }
    match done {
        Ok(changed) => Ok(changed),
        // The tools around libSQL's server look for this status and these words.
        Err(error) if is_taken(&error) => {
            let text = format!("Namespace `{to}` already exists");
            Err(Box::new(failure(StatusCode::BAD_REQUEST, &text, Fault::Conflict.code())))
        }
        Err(error) => Err(explained(&node.context, error).await),
    }
}

async fn change(node: &NodeHandle, name: Name, change: Change) -> Outcome {
    match ask(node, name, change).await? {
        Ok(changed) => Ok(changed),
        Err(error) => Err(explained(&node.context, error).await),
    }
}

async fn ask(node: &NodeHandle, name: Name, change: Change) -> Result<Result<Changed, OpenError>, Box<Response>> {
    let (reply, answer) = oneshot::channel();
    send(node, &name, Message::Change { name: name.clone(), change, reply })?;
    answer.await.map_err(|_| refusal(going_down().into()))
}

fn send(node: &NodeHandle, to: &Name, message: Message) -> Result<(), Box<Response>> {
    node.send(to, message).map_err(|stopped| refusal(stopped.into()))
}

async fn received<T>(node: &NodeHandle, answer: oneshot::Receiver<Result<T, OpenError>>) -> Result<T, Box<Response>> {
    match answer.await.map_err(|_| refusal(going_down().into()))? {
        Ok(answer) => Ok(answer),
        Err(error) => Err(explained(&node.context, error).await),
    }
}

fn answer(outcome: Outcome) -> Response {
    match outcome {
        Err(response) => *response,
        Ok(Changed { name, database, lsn, undo }) => {
            let undo = undo.map(|(database, lsn)| Moment::Bookmark { database, lsn }.to_string());
            let body = json!({"name": name.as_str(), "database": database.to_string(), "lsn": lsn, "undo": undo});
            json_answer(StatusCode::OK, body.to_string())
        }
    }
}
