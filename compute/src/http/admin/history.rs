//! `GET /v1/namespaces/<name>/history?before=&limit=`: the commits that can be shown, restored and forked, the newest
//! first.
//!
//! `{"history":[{"bookmark","lsn","time","bytes"}],"next":<lsn>|null}`. `bytes` is what the commit took in the log; null
//! where the window begins, whose own commit need not be kept. The next page is asked for with `before=<next>`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use pageserver::history::{index_of, read_chunk, read_run, window};
use segments::commit::UncheckedCommit;
use segments::history::{Entry, Run};
use serde::Deserialize;
use serde_json::{Value, json};
use tenant::head::Head;
use tokio::sync::oneshot;
use walstore::id::Lsn;
use walstore::register::RecordError;

use super::found::explained;
use super::{limit, parse, refusal};
use crate::context::NodeContext;
use crate::core::Message;
use crate::error::ServerError;
use crate::http::{Parameters, going_down, json as json_answer};
use crate::moment::{Moment, time_text};
use crate::node::NodeHandle;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;

#[derive(Deserialize)]
pub(super) struct HistoryQuery {
    /// Only commits before this one (raw).
    before: Option<u64>,
    limit: Option<usize>,
}

pub(super) async fn history(
    State(node): State<Arc<NodeHandle>>,
    Path(name): Path<String>,
    Parameters(query): Parameters<HistoryQuery>,
) -> Response {
    match read(&node, &name, &query).await {
        Ok(body) => json_answer(StatusCode::OK, body.to_string()),
        Err(response) => *response,
    }
}

async fn read(node: &NodeHandle, name: &str, query: &HistoryQuery) -> Result<Value, Box<Response>> {
    let name = parse(name)?;
    let limit = limit(query.limit, LIMIT_DEFAULT)?.min(LIMIT_MAX);
    let (reply, answer) = oneshot::channel();
    node.send(&name, Message::FoldedHead { name: name.clone(), reply }).map_err(|stopped| refusal(stopped.into()))?;
    let head = match answer.await.map_err(|_| refusal(going_down().into()))? {
        Ok(head) => head.value,
        Err(error) => return Err(explained(&node.context, error).await),
    };
    let page = Page { node: &node.context, head: &head, before: query.before.unwrap_or(u64::MAX), limit, listed: Vec::new() };
    page.read().await.map_err(|error| refusal(ServerError::from(error).into()))
}

/// One page of a listing.
struct Page<'n> {
    node: &'n NodeContext,
    head: &'n Head,
    /// Only commits (raw) before this one are listed, at most `limit`.
    before: u64,
    limit: usize,
    /// By falling LSN.
    listed: Vec<Value>,
}

impl Page<'_> {
    async fn read(mut self) -> Result<Value, RecordError> {
        let window = window(&self.node.fetcher, self.head).await?;
        let index = index_of(self.head)?;
        self.entries(index.entries(), window.oldest.lsn).await?;
        for reference in index.chunks().iter().rev() {
            if self.is_full() || reference.end.get() <= window.oldest.lsn {
                break;
            }
            // Of one that lies after the page not even the index is needed.
            if Lsn::raw(reference.start) + 1 < self.before {
                let chunk = read_chunk(&self.node.fetcher, self.head.database, reference).await?;
                self.entries(&chunk.entries, window.oldest.lsn).await?;
            }
        }
        if !self.is_full() {
            let mark = window.oldest;
            let time_micros = if mark.lsn == 0 { self.head.settings.created_micros } else { mark.time_micros };
            self.list(mark.lsn, time_micros, None);
        }
        let next = self.listed.last().and_then(|last| last["lsn"].as_u64()).filter(|lsn| *lsn > window.oldest.lsn);
        Ok(json!({"history": self.listed, "next": next}))
    }

    fn is_full(&self) -> bool {
        self.listed.len() >= self.limit
    }

    async fn entries(&mut self, entries: &[Entry], oldest: u64) -> Result<(), RecordError> {
        for entry in entries.iter().rev() {
            let Entry::Run(run) = entry else { continue };
            if self.is_full() || run.last.get() <= oldest {
                break;
            }
            if run.first.get() < self.before {
                self.run(run, oldest).await?;
            }
        }
        Ok(())
    }

    async fn run(&mut self, run: &Run, oldest: u64) -> Result<(), RecordError> {
        let history = read_run(&self.node.fetcher, run).await?;
        for (lsn, commit) in (run.first.get()..).zip(&history.commits).collect::<Vec<_>>().into_iter().rev() {
            if lsn > oldest && !self.is_full() {
                let at = |corrupt: walstore::envelope::Corrupt| corrupt.at(segments::keys::pack(&run.pack));
                let time_micros = UncheckedCommit::decode(commit).map_err(at)?.time_micros();
                self.list(lsn, time_micros, Some(commit.len()));
            }
        }
        Ok(())
    }

    fn list(&mut self, lsn: u64, time_micros: u64, bytes: Option<usize>) {
        if lsn < self.before {
            let bookmark = Moment::Bookmark { database: self.head.database, lsn }.to_string();
            self.listed.push(json!({"bookmark": bookmark, "lsn": lsn, "time": time_text(time_micros), "bytes": bytes}));
        }
    }
}
