//! Opening databases: name, head, ownership, and the commits that are only in logs.
//!
//! | file | idea |
//! |---|---|
//! | [`acquire`] | from a head to one that is this node's, or that it may claim |
//! | [`load`] | from a head to an open database |
//! | [`recover`] | commits that are only in logs |

mod acquire;
mod load;
mod recover;

use std::rc::Rc;
use std::time::Duration;

use pageserver::base::Ahead;
use tenant::head::Head;
use tenant::name::Name;
use tenant::registry::CreateError;
use tracing::info;
use walstore::id::Lsn;
use walstore::register::Versioned;

pub use self::recover::{borrow_for, recover};

use self::acquire::{Acquired, ownership_keeps_changing};
use super::claim::Claim;
use super::databases::OpenError;
use super::open_database::OpenDatabase;
use super::{Core, spawn_local};
use crate::error::{Fault, ServerError};
use crate::limits;

/// Rounds of reading head and owner again before a client is told to come back.
const ROUNDS_MAX: usize = 64;

impl Core {
    pub(super) async fn open_cold(self: &Rc<Self>, name: &Name, create: bool) -> Result<Rc<OpenDatabase>, OpenError> {
        // Room for one more; what is in use stays.
        self.evict(limits::OPEN_DATABASES_MAX, Duration::ZERO);
        let (head, mut ahead) = match self.resolve_to_open(name).await? {
            Some(found) => found,
            None if create => match self.create_head(name).await? {
                Ok(head) => (head, None),
                Err(CreateError::AlreadyExists { .. }) => {
                    let found = self.resolve_to_open(name).await?;
                    found.ok_or_else(|| OpenError::NoSuchDatabase(name.clone()))?
                }
                Err(error) => return Err(ServerError::from(error).into()),
            },
            None => return Err(OpenError::NoSuchDatabase(name.clone())),
        };
        self.check_not_ended(&head.value)?;
        let mut acquired = self.acquire(name, head).await?;
        for _ in 0..ROUNDS_MAX {
            match acquired {
                Acquired::Owned(head) => {
                    self.close_replica_of(name, "this node owns the database by now").await;
                    let warm = self.warm(&head.value, ahead.take());
                    let open = self.load(head, warm, Claim::won()).await?;
                    self.register(&open);
                    self.begin_to_serve(&open);
                    return Ok(open);
                }
                Acquired::Claimable(head) => {
                    self.close_replica_of(name, "this node claims the database").await;
                    if let Some(open) = self.open_claimed(head, ahead.take()).await? {
                        return Ok(open);
                    }
                    let head = self.resolve(name).await?.ok_or_else(|| OpenError::NoSuchDatabase(name.clone()))?;
                    acquired = self.acquire(name, head).await?;
                }
            }
        }
        Err(ownership_keeps_changing(name).into())
    }

    /// Opens a database while the CAS that makes it this node's is on its way. `None`: the head is not the latest one.
    async fn open_claimed(
        self: &Rc<Self>,
        before: Versioned<Head>,
        ahead: Option<Ahead>,
    ) -> Result<Option<Rc<OpenDatabase>>, OpenError> {
        self.read_ahead(&before.value);
        let warm = self.warm(&before.value, ahead);
        let sent = self.send_claim(before);
        let (claim, answer) = Claim::pending();
        let open = match self.load(sent.head.clone(), warm, claim).await {
            Ok(open) => open,
            // An old head does not fit the logs of today: only with the claim won is what was read to be believed.
            Err(error) => return if sent.wins().await? { Err(error.into()) } else { Ok(None) },
        };
        self.register(&open);
        let turn = open.database.turn.try_take().expect("BUG: a writer before the database is open");
        spawn_local(self.clone().settle(open.clone(), sent, turn, answer));
        Ok(Some(open))
    }

    /// It is this node's.
    pub(super) fn begin_to_serve(self: &Rc<Self>, open: &Rc<OpenDatabase>) {
        let database = &open.database;
        info!(database = %database.name, epoch = database.epoch, lsn = Lsn::raw(database.newest().lsn), "open");
        self.start_folding(open);
    }

    /// A database that has ended here with commits that only this node's log has can be served again only by
    /// another node, or by the next one: from the log, once that is sealed.
    fn check_not_ended(&self, head: &Head) -> Result<(), ServerError> {
        if self.databases.ended.borrow().contains(&head.database) || self.databases.by_id(head.database).is_some() {
            let text = format!("`{}` has ended on this node; restart the node to serve it again", head.name);
            return Err(ServerError::new(Fault::Fenced, text));
        }
        Ok(())
    }
}
