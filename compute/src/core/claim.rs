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

use std::cell::RefCell;
use std::rc::Rc;

use tenant::head::Head;
use tenant::lifecycle;
use tenant::registry::{self, SwapHeadError};
use tokio::sync::{Notify, oneshot};
use tracing::info;
use walstore::id::PutId;
use walstore::register::{Swap, Versioned};

use super::Core;
use super::open_database::OpenDatabase;
use crate::database::turn::TurnGuard;
use crate::error::{Fault, ServerError};

/// Whether the CAS that makes this node the owner has been answered.
#[derive(Clone)]
pub struct Claim(Rc<State>);

struct State {
    verdict: RefCell<Verdict>,
    /// Wakes those who wait in the order in which they came, so that a simulated node does the same every time: a watch
    /// channel wakes them in any order.
    settled: Notify,
}

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

/// The claim as it is answered. Dropped without an answer, it is lost.
pub struct Answer(Rc<State>);

impl Answer {
    fn send(&self, verdict: Verdict) {
        *self.0.verdict.borrow_mut() = verdict;
        self.0.settled.notify_waiters();
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let is_pending = matches!(*self.0.verdict.borrow(), Verdict::Pending);
        if is_pending {
            self.send(Verdict::Lost(going_down().into()));
        }
    }
}

impl Claim {
    fn new(verdict: Verdict) -> Self {
        Self(Rc::new(State { verdict: RefCell::new(verdict), settled: Notify::new() }))
    }

    /// Of a database that is owned already.
    pub fn won() -> Self {
        Self::new(Verdict::Won)
    }

    pub fn pending() -> (Self, Answer) {
        let claim = Self::new(Verdict::Pending);
        let answer = Answer(claim.0.clone());
        (claim, answer)
    }

    pub fn is_won(&self) -> bool {
        matches!(*self.0.verdict.borrow(), Verdict::Won)
    }

    /// Whether another node was faster.
    pub fn is_overtaken(&self) -> bool {
        matches!(&*self.0.verdict.borrow(), Verdict::Lost(why) if why.overtaken)
    }

    /// Returns when it is won, or known to be lost.
    pub async fn settled(&self) -> Result<(), Unclaimed> {
        loop {
            let settled = self.0.settled.notified();
            match &*self.0.verdict.borrow() {
                Verdict::Won => return Ok(()),
                Verdict::Lost(why) => return Err(why.clone()),
                Verdict::Pending => {}
            }
            settled.await;
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
                answer.send(Verdict::Won);
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
        answer.send(Verdict::Lost(why));
        self.end_streams_of(&open).await;
        drop(turn);
    }
}

fn going_down() -> ServerError {
    ServerError::new(Fault::Closed, "the node is shutting down")
}
