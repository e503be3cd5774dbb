//! How simulated nodes reach each other: plain channels, which take their time, break, and fall silent.
//!
//! What is at their ends is the production code: the owner's publishing task and the replica's follower; the owner's
//! folds and what makes packs at a page server. The latter has no life of its own here: it dies at any moment of an
//! order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use compute::node::NodeHandle;
use pageserver::service::follow::{self, Ending, Peers, Publish, Publisher, Start, Subscription};
use pageserver::service::packs::{MakePacks, OrderRefused, OrderStart, PackBuilder};
use walstore::seam::Seam;

use crate::rng::Rng;

pub struct Network {
    nodes: Mutex<BTreeMap<String, NodeHandle>>,
    /// Where what is on its way is.
    seam: Seam,
    rng: Mutex<Rng>,
    /// Nothing breaks or takes long.
    is_well: bool,
    /// The page server's, if there is one.
    packs: OnceLock<PackBuilder>,
    /// Packs that it has made and said so.
    packs_made: AtomicU64,
}

impl Network {
    pub fn new(seam: Seam, rng: Rng) -> Arc<Self> {
        Self::of(seam, rng, false)
    }

    /// One whose connections hold, with a few milliseconds each way.
    pub fn without_faults(seam: Seam, rng: Rng) -> Arc<Self> {
        Self::of(seam, rng, true)
    }

    fn of(seam: Seam, rng: Rng, is_well: bool) -> Arc<Self> {
        let (packs, packs_made) = (OnceLock::new(), AtomicU64::new(0));
        Arc::new(Self { nodes: Mutex::default(), seam, rng: Mutex::new(rng), is_well, packs, packs_made })
    }

    /// From here on there is a page server.
    pub fn has_page_server(&self, packs: PackBuilder) {
        let _ = self.packs.set(packs);
    }

    pub fn packs_made(&self) -> u64 {
        self.packs_made.load(Ordering::Relaxed)
    }

    pub fn connect(&self, address: String, node: NodeHandle) {
        self.nodes.lock().unwrap().insert(address, node);
    }

    pub fn disconnect(&self, address: &str) {
        self.nodes.lock().unwrap().remove(address);
    }
}

#[async_trait]
impl Peers for Network {
    async fn follow(&self, address: &str, start: Start) -> Result<Subscription, Ending> {
        let mut rng = self.rng.lock().unwrap().fork();
        self.seam.sleep(Duration::from_millis(rng.between(1, 30))).await;
        let node = self.nodes.lock().unwrap().get(address).cloned();
        let node = node.ok_or_else(|| Ending::Broken("connection refused".into()))?;
        let (subscription, publisher) = follow::channel();
        let (from, to) = follow::channel();
        node.follow(start, to);
        self.seam.spawn(carry(self.seam.clone(), rng, self.is_well, from, publisher));
        Ok(subscription)
    }
}

#[async_trait]
impl MakePacks for Network {
    async fn make_pack(&self, _address: &str, order: Bytes, pages: usize) -> Result<(), OrderRefused> {
        let mut rng = self.rng.lock().unwrap().fork();
        self.seam.sleep(Duration::from_millis(rng.between(1, 30))).await;
        let failed = |text: &str| Err(OrderRefused::Failed(text.into()));
        let Some(packs) = self.packs.get().filter(|_| !rng.is_one_in(8)) else { return failed("connection refused") };
        if rng.is_one_in(10) {
            self.seam.sleep(Duration::from_secs(20)).await;
            return failed("nobody answers");
        }
        let dies_after = Duration::from_millis(if rng.is_one_in(5) { rng.below(80) } else { 3_600_000 });
        let making = async {
            let mut incoming = packs.admit(OrderStart::of(&order, pages))?;
            incoming.add(&order)?;
            packs.make(incoming).await
        };
        tokio::select! {
            biased;
            made = making => made?,
            () = self.seam.sleep(dies_after) => return failed("connection reset"),
        }
        if rng.is_one_in(8) {
            return failed("the answer is lost");
        }
        self.packs_made.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// One connection, from the owner to the follower.
async fn carry(seam: Seam, mut rng: Rng, is_well: bool, mut from: Subscription, mut to: Publisher) {
    let breaks_after = (!is_well && rng.is_one_in(3)).then(|| rng.below(60));
    let is_silent_after = (!is_well && rng.is_one_in(6)).then(|| rng.below(60));
    for number in 0.. {
        if breaks_after == Some(number) {
            return;
        }
        if is_silent_after.is_some_and(|after| number >= after) {
            seam.sleep(Duration::from_secs(20)).await;
            return;
        }
        let is_slow = !is_well && rng.is_one_in(20);
        let delay = Duration::from_millis(if is_slow { rng.between(100, 1_500) } else { rng.between(1, 20) });
        tokio::select! {
            biased;
            tick = to.tick() => match tick {
                Some(tick) => from.tick(tick),
                None => return,
            },
            notice = from.next() => match notice {
                Ok(notice) => {
                    seam.sleep(delay).await;
                    if !to.send(notice).await {
                        return;
                    }
                }
                Err(ending) => return to.end(ending),
            },
        }
    }
}
