//! Claiming a database: the CAS that makes this node its owner, and what goes on while it is on its way.
//!
//! ```text
//!  head: nobody's ──▶ CAS sent ─────────────────────────▶ won ──▶ writers get the turn, folds begin, replies leave
//!                       │  beside it: the tail is read,    │
//!                       │  queries read pages              └─▶ lost: all of it is dropped, clients are told to
//!                       ▼                                      come back, or it runs once more
//!                replies wait, nobody has the turn
//! ```
//!
//! Until the claim is won this node is nobody: no reply leaves ([`Claim::settled`] stands before the gate), and
//! nothing is written, because the turn is held. So a pipeline that has run in vain runs once more. What was read
//! meanwhile is right if the claim is won, for then nobody else can have written since the head was read.

use std::rc::Rc;

use tenant::head::Head;
use tenant::lifecycle;
use tenant::registry::{self, SwapHeadError};
use tokio::sync::{oneshot, watch};
use tracing::info;
use walstore::id::PutId;
use walstore::register::{Swap, Versioned};

use super::Core;
use super::open_database::OpenDatabase;
use crate::database::turn::TurnGuard;
use crate::error::{Fault, ServerError};

/// Whether the CAS that makes this node the owner has been answered.
#[derive(Clone)]
pub struct Claim(watch::Receiver<Verdict>);

#[derive(Clone)]
enum Verdict {
    Pending,
    Won,
    Lost(Unclaimed),
}

/// Why a claim was lost. Nothing was shown and nothing was written.
#[derive(Clone, Debug)]
pub struct Unclaimed {
    pub error: ServerError,
    /// Another node was faster: what it left is in the head now.
    pub overtaken: bool,
}

impl From<ServerError> for Unclaimed {
    fn from(error: ServerError) -> Self {
        Self { error, overtaken: false }
    }
}

/// The claim as it is answered.
pub struct Answer(watch::Sender<Verdict>);

impl Claim {
    /// Of a database that is owned already.
    pub fn won() -> Self {
        Self(watch::channel(Verdict::Won).1)
    }

    pub fn pending() -> (Self, Answer) {
        let (sender, receiver) = watch::channel(Verdict::Pending);
        (Self(receiver), Answer(sender))
    }

    pub fn is_won(&self) -> bool {
        matches!(*self.0.borrow(), Verdict::Won)
    }

    /// Whether another node was faster.
    pub fn is_overtaken(&self) -> bool {
        matches!(&*self.0.borrow(), Verdict::Lost(why) if why.overtaken)
    }

    /// Returns when it is won, or known to be lost.
    pub async fn settled(&self) -> Result<(), Unclaimed> {
        let mut verdict = self.0.clone();
        let settled = verdict.wait_for(|verdict| !matches!(verdict, Verdict::Pending)).await;
        match settled.as_deref() {
            Ok(Verdict::Won) => Ok(()),
            Ok(Verdict::Lost(why)) => Err(why.clone()),
            Ok(Verdict::Pending) | Err(_) => Err(going_down().into()),
        }
    }
}

/// A claim that was sent.
pub(super) struct Sent {
    /// The head as it is if the claim is won. Its ETag is not known yet.
    pub head: Versioned<Head>,
    answer: oneshot::Receiver<Result<Swap<Head>, SwapHeadError>>,
}

impl Sent {
    /// Waits for the answer of a claim with which nothing was opened.
    pub async fn wins(self) -> Result<bool, ServerError> {
        match self.answer.await {
            Ok(Ok(swap)) => Ok(matches!(swap, Swap::Won(_))),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(going_down()),
        }
    }
}

impl Core {
    /// Sends the CAS that makes this node the owner of what `before` describes.
    pub(super) fn send_claim(&self, before: Versioned<Head>) -> Sent {
        let (node, patience) = (self.node.clone(), self.patience());
        let next = lifecycle::acquire(&before.value, node.id, PutId::random(&node.seam));
        let head = Versioned { value: next.clone(), etag: before.etag.clone() };
        let (sender, answer) = oneshot::channel();
        self.node.seam.spawn(async move {
            let swap = registry::swap_head(&*node.stores.main, &node.seam, &before, next, patience).await;
            drop(sender.send(swap));
        });
        Sent { head, answer }
    }

    /// Waits for the answer. `turn` is what keeps writers away until then.
    pub(super) async fn settle(self: Rc<Self>, open: Rc<OpenDatabase>, sent: Sent, turn: TurnGuard, answer: Answer) {
        let name = &open.database.name;
        let why = match sent.answer.await {
            Ok(Ok(Swap::Won(head))) => {
                *open.head.borrow_mut() = head;
                answer.0.send_replace(Verdict::Won);
                self.begin_to_serve(&open);
                return;
            }
            Ok(Ok(Swap::Lost(_))) => {
                let text = format!("another node was about to serve `{name}` at the same time; nothing was done; ask again");
                Unclaimed { error: ServerError::new(Fault::Retry, text), overtaken: true }
            }
            Ok(Err(error)) => ServerError::from(error).into(),
            Err(_) => going_down().into(),
        };
        info!(database = %name, error = %why.error, "not acquired; what was read meanwhile is dropped");
        // Before anybody gets the turn.
        open.database.lose(&why.error.message);
        open.pool.clear();
        // Nothing was logged, so the next one who asks may try again.
        self.databases.close(&open);
        answer.0.send_replace(Verdict::Lost(why));
        self.end_streams_of(&open).await;
        drop(turn);
    }
}

fn going_down() -> ServerError {
    ServerError::new(Fault::Closed, "the node is shutting down")
}
