//! Restore in place: a fork takes the place of a database, under the same name.

use futures_util::future::BoxFuture;
use tenant::head::{Head, HeadState};
use tenant::lifecycle;
use tenant::record::NameRecord;
use tenant::registry;
use tenant::settings::Settings;
use walstore::id::{DatabaseId, Lsn, PutId};
use walstore::register::Versioned;

use super::{ForkFailure, Forked, Forker};

/// A restore in place that is to be made.
#[derive(Clone, Debug)]
pub struct Restore {
    /// What is gone back to: this database as it was after `at`.
    pub source: Versioned<Head>,
    pub at: Option<Lsn>,
    /// What it takes the place of; `None`: of `source` itself. This node owns it, has stopped writing to it and folded all
    /// of it.
    pub replaced: Option<Versioned<Head>>,
    /// The last commit of that.
    pub last: Option<Lsn>,
    /// What the new database is promised.
    pub settings: Settings,
    /// The name's record, as it was seen last: then it need not be read.
    pub record: Option<Versioned<NameRecord>>,
}

/// A database that was restored in place.
#[derive(Debug)]
pub struct Restored {
    /// What the name leads to now. Nobody owns it yet.
    pub new: Versioned<Head>,
    /// What it led to before. It is final; restoring `old` at its folded commit undoes this.
    pub old: Versioned<Head>,
    /// The name's record, unless somebody else has written it.
    pub record: Option<Versioned<NameRecord>>,
}

impl Forker<'_> {
    /// Puts a state into the place of a database. An error before the old head is written leaves it as it was; a fork that
    /// no name leads to is swept.
    pub fn restore(&self, restore: Restore) -> BoxFuture<'_, Result<Restored, ForkFailure>> {
        Box::pin(self.put_in_place(restore))
    }

    async fn put_in_place(&self, restore: Restore) -> Result<Restored, ForkFailure> {
        let Restore { source, at, replaced, last, settings, record } = restore;
        // Before anything is written, not after.
        self.check_owner(&source)?;
        let ends = replaced.as_ref().unwrap_or(&source);
        let child = DatabaseId::random(self.seam);
        lifecycle::moved(&ends.value, child, last, PutId::random(self.seam))?;
        let name = ends.value.name.clone();
        let Forked { child: new, parent } = self.make(source, at, (&name, child), settings, None).await?;
        let ends = replaced.unwrap_or(parent);
        let next = lifecycle::moved(&ends.value, child, last, PutId::random(self.seam))?;
        let old = match self.swap(&ends, next).await? {
            Ok(old) => old,
            // It had landed, without an answer, and somebody has tidied what has ended: nobody else knows of this child.
            Err(found) if found.value.state == (HeadState::Moved { new: child }) => *found,
            Err(found) => return Err(ForkFailure::Lost(found)),
        };
        let led_on = (&old.value, new.value.shared());
        let record = registry::swing_name(self.store, self.seam, led_on, record, self.me, self.patience).await?;
        Ok(Restored { new, old, record })
    }
}
