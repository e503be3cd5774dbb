//! **Scrub**: reads what is at rest again and again, so that damage is found while there is still something to bring it
//! back from, and not years later by a query.
//!
//! Databases lie in the bucket by a hash of their ids, so where one lies is also *when* it is read: a walk takes one
//! interval from the first place to the last, however many databases there are, and keeps nothing between two of them.
//! A process that starts begins at a place drawn by lot, so one that is restarted often reads all of it as well.
//!
//! Each database is checked up to its folded point as `shoal verify` does ([`crate::verify`]), except that no SQL looks at it
//! as a whole. Logs are not read, nor names: a log is folded within a day, and names are read when they are used.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tenant::keys;
use tracing::{debug, error, info, warn};
use walstore::life::Stores;
use walstore::seam::Seam;
use walstore::store::{Key, StoreError};

use crate::fetcher::Fetcher;
use crate::limits;
use crate::listing::{Group, Listing};
use crate::verify::{self, Damage, Orphan, PageSink, Summary, Witness};

/// Where databases may lie: the values of the hash in their keys.
const PLACES: u32 = 1 << 16;

/// Reads a bucket again and again.
pub struct Scrubber {
    stores: Stores,
    seam: Seam,
    fetcher: Fetcher,
    interval: Duration,
}

impl Scrubber {
    /// All of it once in `interval`. The little that is worth keeping in a cache goes through `fetcher`.
    pub fn new(stores: Stores, seam: Seam, fetcher: &Fetcher, interval: Duration) -> Self {
        Self { stores, seam, fetcher: fetcher.clone(), interval }
    }

    /// For ever. Damage is logged as an error, with the object's key.
    pub async fn run(self) {
        let mut place = u32::from(self.seam.random_u64() as u16);
        loop {
            match self.walk(&mut place, &mut Log).await {
                Ok(Summary { databases, packs, damages, .. }) => {
                    info!(databases, objects = packs.objects, bytes = packs.bytes, damages, "read what is at rest");
                    place = 0;
                }
                Err(error) => {
                    warn!(%error, "cannot list what is to be read; trying again");
                    self.seam.sleep(limits::SCRUB_PAUSE).await;
                }
            }
        }
    }

    /// From `place` to the last one, and notes there how far it has come.
    pub async fn walk(&self, place: &mut u32, witness: &mut dyn Witness) -> Result<Summary, StoreError> {
        let (begins, first) = (self.seam.boot_micros(), *place);
        let due = |place: u32| {
            let since = self.interval.mul_f64(f64::from(place - first) / f64::from(PLACES));
            begins.saturating_add(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
        };
        let main = self.stores.main.clone();
        let from = Key::new(format!("{}{first:04x}", keys::DATABASES_PREFIX));
        let mut groups = Listing::new(&*main, &self.seam, keys::DATABASES_PREFIX).after(from);
        let mut all = Summary::default();
        while let Some(group) = groups.next_group().await? {
            let Group::Database(database, mut keys) = group else { continue };
            // A key that is there, so it has such a place.
            *place = keys.pop().and_then(|key| place_of(&key)).map_or(*place, |place| place.max(first));
            self.sleep_until(due(*place)).await;
            for tries_left in (0..limits::SCRUB_TRIES).rev() {
                let checked = verify::verify_at_rest(&self.stores, &self.seam, &self.fetcher, database, witness);
                match AssertUnwindSafe(checked).catch_unwind().await {
                    Ok(Ok(summary)) => all += summary,
                    Ok(Err(error)) => {
                        warn!(%database, %error, tries_left, "cannot read what is at rest of it");
                        self.seam.sleep(limits::SCRUB_PAUSE).await;
                        continue;
                    }
                    Err(_) => error!(%database, "reading what is at rest of it panicked; going on with the next"),
                }
                break;
            }
        }
        self.sleep_until(due(PLACES)).await;
        Ok(all)
    }

    async fn sleep_until(&self, boot_micros: u64) {
        self.seam.sleep(Duration::from_micros(boot_micros.saturating_sub(self.seam.boot_micros()))).await;
    }
}

fn place_of(key: &Key) -> Option<u32> {
    let hash = key.as_str().strip_prefix(keys::DATABASES_PREFIX)?.split('/').next()?;
    u32::from_str_radix(hash, 16).ok().filter(|place| *place < PLACES)
}

/// Nobody looks on.
struct Log;

impl Witness for Log {
    fn damage(&mut self, Damage { key, what, name }: &Damage) {
        let database = name.as_ref().map(tracing::field::display);
        error!(%key, database, what, "damaged at rest; `shoal verify` tells more");
    }

    /// A sweep's business.
    fn orphan(&mut self, _: &Orphan) {}

    fn note(&mut self, key: &str, what: &str) {
        debug!(key, what, "seen at rest");
    }

    fn progress(&mut self, _: &Summary) {}

    fn pages(&mut self) -> Option<&mut dyn PageSink> {
        None
    }
}
