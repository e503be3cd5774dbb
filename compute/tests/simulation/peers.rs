//! How simulated nodes reach each other: plain channels, which take their time, break, and fall silent.
//!
//! What is at their ends is the production code: the owner's publishing task, and the replica's follower.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use compute::node::NodeHandle;
use pageserver::service::follow::{self, Ending, Peers, Publish, Publisher, Start, Subscription};
use walstore::seam::Seam;

use crate::rng::Rng;

pub struct Network {
    nodes: Mutex<BTreeMap<String, NodeHandle>>,
    /// Where what is on its way is.
    seam: Seam,
    rng: Mutex<Rng>,
    /// Nothing breaks or takes long.
    is_well: bool,
}

impl Network {
    pub fn new(seam: Seam, rng: Rng) -> Arc<Self> {
        Arc::new(Self { nodes: Mutex::default(), seam, rng: Mutex::new(rng), is_well: false })
    }

    /// One whose connections hold, with a few milliseconds each way.
    pub fn without_faults(seam: Seam, rng: Rng) -> Arc<Self> {
        Arc::new(Self { nodes: Mutex::default(), seam, rng: Mutex::new(rng), is_well: true })
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
