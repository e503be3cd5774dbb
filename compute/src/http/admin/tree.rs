//! `GET /v1/namespaces/<name>/tree`: the family of a database, from the first one that it descends from.
//!
//! `{"tree":[{"name","database","state","lsn","parent","depth","this"}],"complete":true}`. It is a list, for no parser
//! of JSON takes a family of any depth in a nested form: each database stands behind its parent (an id), with all that
//! descends from it before the parent's next fork, and `depth` says how far it is from the first, which has 0. `lsn`
//! is the commit of the parent that it begins with.
//!
//! Parents are found by the heads of their children, children by the pins of their parents. Both are in the bucket, so
//! any node can answer. A parent whose head is gone ends the way up. A family that is larger than an answer may be is
//! not `complete`; the ancestors of the database that was asked for come before other forks then.

mod family;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::StatusCode;
use tenant::head::{Head, HeadState};
use tenant::registry;
use walstore::id::DatabaseId;
use walstore::register::{Patience, RecordError};

use self::family::{Family, Relative, Tree};
use super::found::living;
use super::{PATIENCE, parse, refusal};
use crate::context::NodeContext;
use crate::error::ServerError;
use crate::http::json as json_answer;
use crate::node::NodeHandle;

/// Databases beyond which no more forks are looked for, some hundred bytes each; as many ancestors are told of.
const DATABASES_MAX: usize = 10_000;
/// Heads that are read at the same time.
const READS_AT_ONCE: usize = 32;

pub(super) async fn tree(State(node): State<Arc<NodeHandle>>, Path(name): Path<String>) -> Response {
    match read(&node.context, &name).await {
        Ok(tree) => json_answer(StatusCode::OK, serde_json::to_vec(&tree).expect("BUG: plain strings are JSON")),
        Err(response) => *response,
    }
}

async fn read(node: &NodeContext, name: &str) -> Result<Tree, Box<Response>> {
    let name = parse(name)?;
    let head = living(node, &name).await?;
    around(node, &head).await.map_err(|error| refusal(ServerError::from(error).into()))
}

async fn around(node: &NodeContext, head: &Head) -> Result<Tree, RecordError> {
    let mut family = Family::new(DATABASES_MAX);
    let root = climb(node, head, &mut family).await?;
    loop {
        let wanted = family.wanted(READS_AT_ONCE);
        if wanted.is_empty() {
            return Ok(family.tell(root, head.database));
        }
        let reads = stream::iter(wanted).map(|fork| read_relative(node, fork));
        let found: Vec<Option<Found>> = reads.buffered(READS_AT_ONCE).try_collect().await?;
        found.into_iter().flatten().for_each(|(id, relative, forks)| family.meet(id, relative, forks));
    }
}

/// Reads all that `head` descends from, and says what the first of them is.
async fn climb(node: &NodeContext, head: &Head, family: &mut Family) -> Result<DatabaseId, RecordError> {
    let (mut root, mut begins) = (head.database, head.parent);
    family.meet(root, Relative::of(head), forks_of(node, head).await?);
    while let Some(point) = begins.filter(|point| !family.knows(point.parent)) {
        if !family.has_room() {
            break;
        }
        let Some((id, relative, forks)) = read_relative(node, point.parent).await? else { break };
        (root, begins) = (id, relative.begins);
        family.meet(id, relative, forks);
    }
    Ok(root)
}

/// A head as it was read, and its forks in the order in which they were made.
type Found = (DatabaseId, Relative, Vec<DatabaseId>);

/// Nothing, if its head is gone, or it never lived.
async fn read_relative(node: &NodeContext, id: DatabaseId) -> Result<Option<Found>, RecordError> {
    let (store, seam) = (&*node.stores.main, &node.seam);
    let head = registry::read_head(store, seam, id, Patience::for_duration(seam, PATIENCE)).await?;
    let Some(head) = head.map(|head| head.value).filter(|head| head.state != HeadState::Aborted) else {
        return Ok(None);
    };
    Ok(Some((id, Relative::of(&head), forks_of(node, &head).await?)))
}

async fn forks_of(node: &NodeContext, head: &Head) -> Result<Vec<DatabaseId>, RecordError> {
    let (store, seam) = (&*node.stores.main, &node.seam);
    let pins = registry::read_pins(store, seam, head, Patience::for_duration(seam, PATIENCE)).await?;
    // One more than there can be room for says that there are more.
    Ok(pins.all().map(|pin| pin.child).take(DATABASES_MAX + 1).collect())
}
