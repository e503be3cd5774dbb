//! The page path below the overlay: a base's page map, the cache, the bucket.

use std::sync::Arc;

use segments::cache::PageCache;
use segments::page::{Page, PageNo};
use segments::tip::Tip;

use super::Snapshot;
use super::file::Connection;
use crate::error::{Fault, ServerError};

/// What is folded: the state after one commit, and where each of its pages is.
pub struct Base {
    pub tip: Tip,
}

/// Bytes of the bucket that a read waits for.
pub enum Fetch {}

impl Base {
    pub async fn load(_node: &crate::node::NodeContext, head: &tenant::head::Head) -> Result<Self, ServerError> {
        let folded = &head.folded;
        let tip = match folded.lsn {
            None => Tip::before_first(head.database),
            Some(_) => Tip {
                lsn: folded.lsn,
                time_micros: folded.time_micros,
                page_count: folded.page_count,
                pages_total: folded.pages_total,
                chain: segments::tip::ChainHash::from_bytes(folded.chain),
            },
        };
        Ok(Self { tip })
    }

    pub fn resident_page(&self, _cache: &Arc<PageCache>, _page_no: PageNo) -> Option<Page> {
        None
    }
}

/// Reads a page that the running transaction has not written. Suspends until it is there.
pub fn read(connection: &Connection, snapshot: &Snapshot, page_no: PageNo) -> Result<Page, ServerError> {
    if let Some(page) = connection.database.overlay_page(page_no, snapshot) {
        return Ok(page);
    }
    Err(ServerError::new(Fault::Corrupt, format!("page {page_no} has no source")))
}

impl super::Database {
    /// The newest version of a page, outside of any coroutine.
    pub async fn page_for_recovery(&self, page_no: PageNo) -> Result<Page, ServerError> {
        let snapshot = self.newest_snapshot();
        self.overlay_page(page_no, &snapshot)
            .ok_or_else(|| ServerError::new(Fault::Corrupt, format!("page {page_no} has no source")))
    }
}
