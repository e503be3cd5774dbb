//! Changing what a database was promised: its retention, and its end.

use std::rc::Rc;

use pageserver::service::follow::Ending;
use pageserver::tail::keeps_commits;
use tenant::head::Head;
use tenant::lifecycle;
use tenant::name::Name;
use tenant::registry::{self, SwapHeadError};
use tenant::settings::Settings;
use walstore::id::PutId;
use walstore::register::Swap;

use super::Core;
use super::databases::OpenError;
use super::open_database::OpenDatabase;
use crate::error::{Fault, ServerError};
use crate::failure::is_unknown;

/// What is to be changed; the rest stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Configure {
    pub retention_secs: Option<u32>,
    /// 0 is never.
    pub expires_micros: Option<u64>,
}

impl Configure {
    fn applied(self, settings: Settings) -> Settings {
        Settings {
            retention_secs: self.retention_secs.unwrap_or(settings.retention_secs),
            expires_micros: self.expires_micros.unwrap_or(settings.expires_micros),
            ..settings
        }
    }
}

impl Core {
    /// Changes a database's settings, in a CAS of its own. Folds from then on go by them.
    pub(super) async fn configure(self: &Rc<Self>, name: Name, configure: Configure) -> Result<Settings, OpenError> {
        let open = self.open_living(&name).await?;
        // Nothing else of this node changes the head meanwhile.
        let _folding = open.folding.lock().await;
        loop {
            if let Some(reason) = open.database.lost() {
                return Err(ServerError::new(Fault::Fenced, reason).into());
            }
            let before = open.head.borrow().clone();
            let settings = configure.applied(before.value.settings);
            if settings == before.value.settings {
                self.after_configuring(&open, &before.value).await;
                return Ok(settings);
            }
            let next = lifecycle::with_settings(&before.value, settings, PutId::random(&self.node.seam));
            let patience = self.patience();
            let swap = self.node.io_that_writes(move |node| async move {
                registry::swap_head(&*node.stores.main, &node.seam, &before, next, patience).await
            });
            match swap.await?.map_err(unknown_or_refused)? {
                Swap::Won(head) => *open.head.borrow_mut() = head,
                Swap::Lost(Some(found)) if self.adopt(&open, &found) => {}
                Swap::Lost(_) => {
                    let text = format!("`{name}` has another owner by now; ask there");
                    return Err(ServerError::new(Fault::Fenced, text).into());
                }
            }
        }
    }
}

impl Core {
    /// What belongs to a change of settings, also to one whose answer was lost, and which was asked for again.
    async fn after_configuring(&self, open: &OpenDatabase, head: &Head) {
        // Of what is not folded yet, only commits from here on can be kept.
        open.database.keep_commits(keeps_commits(head));
        // Who shows the database as well looks at its head anew.
        open.database.feed.send_away(&Ending::Over("its settings may have changed".into()));
        if head.settings.expires_micros > 0 {
            self.announce_end(head).await;
        }
    }
}

/// A change that was sent and not answered may take place yet.
fn unknown_or_refused(error: SwapHeadError) -> ServerError {
    match error {
        SwapHeadError::Record(source) if is_unknown(&source) => {
            let text = format!("it is not known whether this was changed; look before you try again: {source}");
            ServerError::new(Fault::Indefinite, text)
        }
        error => error.into(),
    }
}
