//! Pages as of commits that are durable and not folded yet: only the owner of a database has these, in its memory.
//!
//! ```text
//!   PageReader ── behind what the head has folded ──▶ Owners ──▶ this process (compute), if it is the owner
//!                                                         └────▶ [OwnersElsewhere]: the owner's record ─▶ its address ─▶ gRPC
//! ```
//!
//! An owner answers with what is durable, never with a commit whose PUT is not confirmed (invariant I5), and not once it
//! knows that it has lost the database. The pages of a commit that is durable stay what they are for ever, so it does
//! no harm if the one that is asked is the owner no more and has not heard of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use segments::page::{PAGE_BYTES, PageNo};
use tenant::head::Head;
use tenant::name::Name;
use tonic::{Code, Status};
use walstore::id::{DatabaseId, IncarnationId, Lsn};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::keys;
use walstore::register::{self, Patience};
use walstore::seam::Seam;
use walstore::store::Store;

use super::client::GrpcPeers;
use super::messages::PagesReply;
use crate::limits;

/// A database and who has it, as its head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    pub database: DatabaseId,
    pub name: Name,
    pub incarnation: IncarnationId,
}

impl Owned {
    /// `None`: nobody owns it, so all of it is folded.
    pub fn of(head: &Head) -> Option<Self> {
        Some(Self { database: head.database, name: head.name.clone(), incarnation: head.owner? })
    }
}

/// Why an owner answers without pages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    /// Read the head again: everything up to this commit is folded, and the one that was asked for is older.
    #[error("everything up to commit {0} is folded by now")]
    Folded(Lsn),
    /// There is no such commit, or it is not durable. The text says what the newest one is that is.
    #[error("{0}")]
    NotDurable(String),
    /// It has, or is, the owner no more, or it cannot be asked.
    #[error("{0}")]
    Elsewhere(String),
    /// What the page is read from is damaged, and named.
    #[error("{0}")]
    Damaged(String),
}

/// Reaches owners of databases.
#[async_trait]
pub trait Owners: Send + Sync + 'static {
    /// These pages, those within the database's size, as of a commit that is not folded yet.
    async fn pages(&self, of: &Owned, lsn: Lsn, numbers: &[PageNo]) -> Result<PagesReply, Unserved>;
}

/// Asks the owner's process, wherever its record says it is.
pub struct OwnersElsewhere {
    peers: GrpcPeers,
    store: Arc<dyn Store>,
    seam: Seam,
    /// The address of an incarnation never changes.
    addresses: Mutex<BTreeMap<IncarnationId, String>>,
}

impl OwnersElsewhere {
    pub fn new(peers: GrpcPeers, store: Arc<dyn Store>, seam: Seam) -> Self {
        Self { peers, store, seam, addresses: Mutex::default() }
    }

    async fn address(&self, of: IncarnationId) -> Result<String, Unserved> {
        let known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner).get(&of).cloned();
        if let Some(address) = known {
            return Ok(address);
        }
        let (key, patience) = (keys::incarnation(of), Patience::for_duration(&self.seam, limits::OWNER_PATIENCE));
        let record = register::read::<IncarnationRecord>(&*self.store, &self.seam, &key, patience).await;
        let record = record.map_err(|error| Unserved::Elsewhere(error.to_string()))?;
        match record.map(|record| record.value) {
            Some(record) if record.state == State::Open && !record.address.is_empty() => {
                let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
                if addresses.len() >= limits::OWNERS_MAX {
                    addresses.clear();
                }
                addresses.insert(of, record.address.clone());
                Ok(record.address)
            }
            Some(record) if record.state == State::Open => {
                Err(Unserved::Elsewhere(format!("{of} owns it and has no address (--advertise-url)")))
            }
            _ => Err(Unserved::Elsewhere(format!("{of} owns it and is over; whoever opens it next has them"))),
        }
    }

    async fn ask(&self, address: &str, of: DatabaseId, lsn: Lsn, numbers: &[PageNo]) -> Result<PagesReply, Status> {
        let raw = numbers.iter().map(|number| number.get()).collect();
        tokio::select! {
            biased;
            reply = self.peers.pages(address, of, lsn.get(), raw) => check(reply?, lsn, numbers),
            () = self.seam.sleep(limits::OWNER_PATIENCE) => Err(Status::unavailable("no answer")),
        }
    }
}

#[async_trait]
impl Owners for OwnersElsewhere {
    async fn pages(&self, of: &Owned, lsn: Lsn, numbers: &[PageNo]) -> Result<PagesReply, Unserved> {
        let address = self.address(of.incarnation).await?;
        self.ask(&address, of.database, lsn, numbers).await.map_err(|status| match status.code() {
            Code::FailedPrecondition => Unserved::NotDurable(status.message().to_owned()),
            Code::DataLoss => Unserved::Damaged(status.message().to_owned()),
            _ => Unserved::Elsewhere(format!("{} at {address} does not answer: {}", of.incarnation, status.message())),
        })
    }
}

/// What comes from another process is what was asked for.
fn check(reply: PagesReply, lsn: Lsn, numbers: &[PageNo]) -> Result<PagesReply, Status> {
    let wanted = numbers.iter().map(|number| number.get()).filter(|number| *number <= reply.page_count);
    let is_whole = reply.lsn == lsn.get()
        && reply.pages.iter().map(|page| page.page_no).eq(wanted)
        && reply.pages.iter().all(|page| page.content.len() == PAGE_BYTES);
    if is_whole { Ok(reply) } else { Err(Status::unavailable("its answer is to another question")) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::service::messages::Page;

    #[test]
    fn an_answer_to_another_question_is_none() {
        let lsn = |lsn| Lsn::new(lsn).expect("not 0");
        let numbers = [1, 2, 9].map(|number| PageNo::new(number).expect("not 0"));
        let page = |page_no, bytes| Page { page_no, content: Bytes::from(vec![0; bytes]) };
        let reply = |lsn, pages| PagesReply { lsn, page_count: 2, pages };
        let whole = || vec![page(1, PAGE_BYTES), page(2, PAGE_BYTES)];
        assert!(check(reply(7, whole()), lsn(7), &numbers).is_ok());
        assert!(check(reply(6, whole()), lsn(7), &numbers).is_err(), "another commit");
        for pages in [vec![], vec![page(1, PAGE_BYTES)], vec![page(1, PAGE_BYTES), page(2, 5)]] {
            assert!(check(reply(7, pages), lsn(7), &numbers).is_err());
        }
    }
}
