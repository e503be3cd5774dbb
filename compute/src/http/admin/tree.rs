//! `GET /v1/namespaces/<name>/tree`: the family of a database, from the first one that it descends from.
//!
//! Parents are found by the heads of their children, children by the pins of their parents. Both are in the bucket, so
//! any node can answer. A parent whose head is gone ends the way up.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::StatusCode;
use serde_json::{Value, json};
use tenant::head::{Head, HeadState};
use tenant::registry;
use walstore::id::{DatabaseId, Lsn};
use walstore::register::{Patience, RecordError};

use super::{PATIENCE, parse, refusal};
use crate::context::NodeContext;
use crate::core::OpenError;
use crate::error::ServerError;
use crate::http::json as json_answer;
use crate::node::NodeHandle;

/// Databases that one answer tells of.
const DATABASES_MAX: usize = 1_000;
/// Heads that are read at the same time.
const READS_AT_ONCE: usize = 32;

pub(super) async fn tree(State(node): State<Arc<NodeHandle>>, Path(name): Path<String>) -> Response {
    match read(&node.context, &name).await {
        Ok(body) => json_answer(StatusCode::OK, body.to_string()),
        Err(response) => *response,
    }
}

async fn read(node: &NodeContext, name: &str) -> Result<Value, Box<Response>> {
    let name = parse(name)?;
    let patience = Patience::for_duration(&node.seam, PATIENCE);
    let head = registry::resolve_head(&*node.stores.main, &node.seam, &name, node.id, patience).await;
    let head = head.map_err(|error| refusal(ServerError::from(error).into()))?;
    let head = head.ok_or_else(|| refusal(OpenError::NoSuchDatabase(name)))?.value;
    let this = head.database;
    let family = Family { node, patience, heads: BTreeMap::new(), children: BTreeMap::new(), complete: true };
    family.around(head, this).await.map_err(|error| refusal(ServerError::from(error).into()))
}

/// What was read of a family.
struct Family<'n> {
    node: &'n NodeContext,
    patience: Patience,
    heads: BTreeMap<DatabaseId, Head>,
    /// By parent, in the order in which they were made.
    children: BTreeMap<DatabaseId, Vec<DatabaseId>>,
    complete: bool,
}

impl Family<'_> {
    async fn around(mut self, head: Head, this: DatabaseId) -> Result<Value, RecordError> {
        let mut root = head;
        for _ in 0..DATABASES_MAX {
            let parent = match root.parent {
                Some(point) => self.head(point.parent).await?,
                None => None,
            };
            match parent {
                Some(parent) => root = parent,
                None => break,
            }
        }
        let id = root.database;
        self.descend(root).await?;
        Ok(json!({"tree": self.branch(id, this), "complete": self.complete}))
    }

    async fn head(&self, id: DatabaseId) -> Result<Option<Head>, RecordError> {
        let head = registry::read_head(&*self.node.stores.main, &self.node.seam, id, self.patience).await?;
        Ok(head.map(|head| head.value))
    }

    /// Reads all heads below `root`, one level after the other.
    async fn descend(&mut self, root: Head) -> Result<(), RecordError> {
        let mut level = vec![root];
        while !level.is_empty() {
            let mut wanted = Vec::new();
            for head in std::mem::take(&mut level) {
                let (store, seam) = (&*self.node.stores.main, &self.node.seam);
                let pins = registry::read_pins(store, seam, &head, self.patience).await?;
                wanted.extend(pins.all().map(|pin| pin.child));
                self.heads.insert(head.database, head);
            }
            let room = DATABASES_MAX.saturating_sub(self.heads.len());
            self.complete &= wanted.len() <= room;
            wanted.truncate(room);
            let family = &*self;
            let reads = stream::iter(wanted).map(|child| family.head(child));
            let heads: Vec<Option<Head>> = reads.buffered(READS_AT_ONCE).try_collect().await?;
            for head in heads.into_iter().flatten().filter(|head| head.state != HeadState::Aborted) {
                // A pin may outlive what its child was forked from.
                let Some(point) = head.parent.filter(|_| !self.heads.contains_key(&head.database)) else { continue };
                self.children.entry(point.parent).or_default().push(head.database);
                level.push(head);
            }
        }
        Ok(())
    }

    /// The branch that begins with `id`, as JSON. Deep families are built from their leaves, without recursion.
    fn branch(&self, id: DatabaseId, this: DatabaseId) -> Value {
        let mut order = vec![id];
        let mut at = 0;
        while let Some(id) = order.get(at) {
            order.extend(self.children.get(id).into_iter().flatten());
            at += 1;
        }
        let mut done: BTreeMap<DatabaseId, Value> = BTreeMap::new();
        for id in order.iter().rev() {
            let children = self.children.get(id).into_iter().flatten();
            let children: Vec<Value> = children.filter_map(|child| done.remove(child)).collect();
            let head = &self.heads[id];
            let branch = json!({
                "name": head.name.as_str(),
                "database": id.to_string(),
                "state": state_word(&head.state),
                "lsn": head.parent.map(|point| Lsn::raw(point.lsn)),
                "this": *id == this,
                "children": children,
            });
            done.insert(*id, branch);
        }
        done.remove(&id).expect("BUG: the root is among them")
    }
}

fn state_word(state: &HeadState) -> &'static str {
    match state {
        HeadState::Live => "live",
        HeadState::Moved { .. } => "replaced",
        HeadState::Renamed { .. } => "renamed",
        HeadState::Deleted { .. } => "deleted",
        HeadState::Aborted => "aborted",
    }
}
