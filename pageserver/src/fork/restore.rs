//! Restore in place: a fork takes the place of a database, under the same name.

use tenant::head::Head;
use tenant::lifecycle;
use tenant::registry;
use tenant::settings::Settings;
use walstore::id::{DatabaseId, Lsn, PutId};
use walstore::register::Versioned;

use super::{ForkFailure, Forked, Forker};

/// A database that was restored in place.
#[derive(Debug)]
pub struct Restored {
    /// What the name leads to now. Nobody owns it yet.
    pub new: Versioned<Head>,
    /// What it led to before. It is final; restoring `old` at its folded commit undoes this.
    pub old: Versioned<Head>,
}

impl Forker<'_> {
    /// Puts the state of `source` after `at` in the place of `replaced`; `None`: it is `source` itself.
    ///
    /// This node owns `replaced`, has stopped writing to it and folded all of it: `last` is its last commit. An error
    /// before the old head is written leaves it as it was; a fork that no name leads to is swept.
    pub async fn restore(
        &self,
        source: Versioned<Head>,
        at: Option<Lsn>,
        replaced: Option<Versioned<Head>>,
        last: Option<Lsn>,
        settings: Settings,
    ) -> Result<Restored, ForkFailure> {
        // Before anything is written, not after.
        self.check_owner(&source)?;
        let ends = replaced.as_ref().unwrap_or(&source);
        let child = DatabaseId::random(self.seam);
        lifecycle::moved(&ends.value, child, last, PutId::random(self.seam))?;
        let name = ends.value.name.clone();
        let Forked { child: new, parent } = self.make(source, at, &name, child, settings).await?;
        let ends = replaced.unwrap_or(parent);
        let next = lifecycle::moved(&ends.value, child, last, PutId::random(self.seam))?;
        let old = self.swap(&ends, next).await?.map_err(ForkFailure::Lost)?;
        registry::swing_name(self.store, self.seam, &old.value, self.me, self.patience).await?;
        Ok(Restored { new, old })
    }
}
