//! The bucket at the end of a seed, looked at without any node.

use std::sync::Arc;
use std::time::Duration;

use pageserver::drain::Drainer;
use pageserver::fetcher::Fetcher;
use pageserver::listing::{Group, Listing};
use pageserver::sweep::{Collected, Sweeper};
use pageserver::verify::{self, Damage, Options, Orphan, PageSink, Summary, Witness};
use segments::cache::PageCache;
use tenant::head::MapField;
use tenant::registry;
use walstore::id::IncarnationId;
use walstore::life::Stores;
use walstore::register::Patience;
use walstore::store::MemoryStore;

use crate::cluster::sleep;
use crate::machine::Machine;

/// Longer than what a sweep waits for before it takes a delete for given up.
const A_DAY_AND_MORE: Duration = Duration::from_secs(100_000);
/// Rounds of draining: one to see a record, one to seal it, one to drain the databases of another's tail.
const DRAINS: usize = 4;

/// Sweeps until one finds nothing to do: what one of them lifts a pin of is collected by the next.
const SWEEPS_MAX: usize = 12;

#[derive(Default)]
struct Found {
    damages: Vec<String>,
    orphans: Vec<String>,
}

impl Witness for Found {
    fn damage(&mut self, damage: &Damage) {
        // Simulated nodes start without what a process does about the bucket's format.
        if damage.key != "meta/cluster" {
            self.damages.push(format!("{}: {}", damage.key, damage.what));
        }
    }
    fn orphan(&mut self, orphan: &Orphan) {
        self.orphans.push(format!("{}: {}", orphan.key, orphan.standing.why()));
    }
    fn note(&mut self, _: &str, _: &str) {}
    fn progress(&mut self, _: &Summary) {}
    fn pages(&mut self) -> Option<&mut dyn PageSink> {
        None
    }
}

async fn look(stores: &Stores, machine: &Machine) -> Found {
    let mut found = Found::default();
    if let Err(error) = verify::verify(stores, &machine.seam, &Options::default(), &mut found).await {
        found.damages.push(format!("the check failed: {error}"));
    }
    found
}

/// What is wrong, each with the invariant's name in front, and how many sweeps it took. Nobody else is at work on the
/// bucket any more.
pub async fn audit(bucket: &MemoryStore, machine: &Machine) -> (Vec<String>, u64) {
    let stores = Stores::one(Arc::new(bucket.clone()));
    let before = look(&stores, machine).await;
    let mut broken: Vec<String> = before.damages.into_iter().map(|damage| format!("I6: {damage}")).collect();
    let me = IncarnationId::random(&machine.seam);
    let fetcher = Fetcher::new(stores.main.clone(), machine.seam.clone(), PageCache::new(1 << 20), 8 << 20);
    let mut drainer = Drainer::new(me, stores.clone(), machine.seam.clone(), &fetcher);
    for _ in 0..DRAINS {
        let _ = drainer.sweep().await;
        sleep(Duration::from_secs(10)).await;
    }
    let sweeper = Sweeper::new(me, stores.clone(), machine.seam.clone(), &fetcher);
    let mut sweeps = 0;
    for _ in 0..SWEEPS_MAX {
        sleep(A_DAY_AND_MORE).await;
        let swept = sweeper.sweep().await;
        sweeps += u64::from(swept.is_ok());
        match swept {
            Ok(collected) if collected == Collected::default() => break,
            Ok(_) => {}
            Err(error) => broken.push(format!("I8: the last sweep failed: {error}")),
        }
    }
    broken.extend(outlived(bucket, machine).await);
    let after = look(&stores, machine).await;
    broken.extend(after.damages.into_iter().map(|damage| format!("I8: swept away: {damage}")));
    broken.extend(after.orphans.into_iter().map(|orphan| format!("I8: left behind: {orphan}")));
    (broken, sweeps)
}

/// Databases that nobody owns, and that are there though their time is up. One without a marker and without objects is
/// found only by who asks for it, or by its parent, if it stands on what that has.
async fn outlived(bucket: &MemoryStore, machine: &Machine) -> Vec<String> {
    let (mut broken, now) = (Vec::new(), machine.seam.wall_micros());
    let markers = bucket.snapshot().into_keys().map(|key| key.to_string()).filter(|key| key.starts_with("due/")).collect::<Vec<_>>();
    let mut listing = Listing::new(bucket, &machine.seam, tenant::keys::DATABASES_PREFIX);
    while let Some(group) = listing.next_group().await.expect("a store in memory answers") {
        let Group::Database(database, keys) = group else { continue };
        let patience = Patience::for_duration(&machine.seam, A_DAY_AND_MORE);
        let Ok(Some(head)) = registry::read_head(bucket, &machine.seam, database, patience).await else { continue };
        let head = head.value;
        let is_fork = matches!(head.map, MapField::Shared(_));
        let is_found = keys.len() > 1 || is_fork || markers.iter().any(|marker| marker.contains(&database.to_string()));
        if head.settings.is_expired(now) && !head.state.is_final() && head.owner.is_none() && is_found {
            broken.push(format!("I8: left behind: {database} ({}), whose time is up, and nobody ends it", head.name));
        }
    }
    broken
}

/// Of databases that have ended, and that no living one was forked from, small heads are left, and nothing else.
pub async fn ended(bucket: &MemoryStore, machine: &Machine) -> Vec<String> {
    let mut broken = Vec::new();
    let mut listing = Listing::new(bucket, &machine.seam, tenant::keys::DATABASES_PREFIX);
    while let Some(group) = listing.next_group().await.expect("a store in memory answers") {
        let Group::Database(database, keys) = group else { continue };
        let patience = Patience::for_duration(&machine.seam, A_DAY_AND_MORE);
        let head = registry::read_head(bucket, &machine.seam, database, patience).await;
        let Ok(Some(head)) = head else {
            broken.push(format!("I7: {database} has no head: {keys:?}"));
            continue;
        };
        let head = head.value;
        // Of one without objects nobody looks at the pins any more: they are a part of its small head.
        if head.is_pinned() && keys.len() > 1 {
            broken.push(format!("I8: left behind: {database} ({}) is pinned by forks that are gone", head.name));
        }
        if head.state.is_final() && keys.len() > 1 {
            broken.push(format!("I8: left behind: {database} ({}) has ended, and has {keys:?}", head.name));
        }
    }
    broken
}
