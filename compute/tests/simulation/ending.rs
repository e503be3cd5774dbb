//! The end of a seed: nodes without faults answer what the oracles ask, and the bucket is looked at in between.
//!
//! Where there is a past, some of its databases are deleted at the end, parents of living forks among them, and once
//! everything that nobody needs is swept the others are what they were. Then those go too, and nothing of them stays.

use std::rc::Rc;
use std::sync::Arc;

use compute::node::Node;
use segments::disk::file::simulated::DiskFaults;
use tokio::sync::watch;
use tokio::task::LocalSet;
use walstore::id::IncarnationId;
use walstore::life::Stores;
use walstore::store::Faults;

use crate::audit;
use crate::client::Outcome;
use crate::counts::Run;
use crate::machine::Machine;
use crate::oracle;
use crate::past::Examiner;
use crate::rng::Rng;
use crate::world::{LocalCores, World, server};

/// What the last node is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Everything, and then to delete some of the databases that have a past.
    Everything,
    /// What is left of those, and then to delete them.
    Past,
}

impl World {
    pub async fn end(self: Rc<Self>, rng: &mut Rng) -> Run {
        let mut broken = self.last_life(rng, Asked::Everything).await;
        self.network.kill();
        broken.extend(self.audit(&Machine::new(rng, self.started, 0)).await);
        if self.has_past {
            self.story.past.borrow_mut().is_long_ago = true;
            broken.extend(self.last_life(rng, Asked::Past).await);
            let machine = Machine::new(rng, self.started, 0);
            broken.extend(self.audit(&machine).await);
            broken.extend(audit::ended(&self.bucket, &machine).await);
        }
        self.finish(broken)
    }

    async fn audit(&self, machine: &Machine) -> Vec<String> {
        let (broken, sweeps) = audit::audit(&self.bucket, machine).await;
        self.count(|counts| counts.sweeps += sweeps);
        broken
    }

    /// A node without faults answers.
    async fn last_life(&self, rng: &mut Rng, asked: Asked) -> Vec<String> {
        let machine = Machine::new(rng, self.started, 0);
        let id = IncarnationId::random(&machine.seam);
        let store = self.store(id, rng, Faults::default(), None);
        let (_death, is_dead) = watch::channel(false);
        let local = LocalSet::new();
        let rng = rng.fork();
        let broken = local
            .run_until(async {
                let stores = Stores::one(store.clone());
                let disk = self.disks[0].open(&machine.seam, DiskFaults::default(), Arc::new(|_, _| {}));
                let node = Node::start(id, stores, machine.seam.clone(), self.settings(disk), &LocalCores).await;
                let Ok(node) = node else { return vec!["I16: a node without faults cannot start".into()] };
                let set = |creates| self.cluster.set(0, Some(server(&node, &machine, creates, is_dead.clone())));
                let mut broken = Vec::new();
                if asked == Asked::Everything {
                    set(true);
                    broken.extend(oracle::examine(&self.cluster, &self.story).await);
                }
                set(false);
                let examiner = || Examiner::new(&self.cluster, &self.story.past, self.started, rng.clone());
                broken.extend(examiner().examine().await);
                // One in two, or every one.
                broken.extend(examiner().delete(if asked == Asked::Everything { 2 } else { 1 }).await);
                broken
            })
            .await;
        self.cluster.set(0, None);
        store.crash();
        machine.kill();
        drop(local);
        broken
    }

    fn finish(&self, broken: Vec<String>) -> Run {
        let story = &self.story;
        self.count(|counts| {
            counts.acknowledged += story.bank.borrow().count(Outcome::Acknowledged);
            counts.unknown += story.bank.borrow().count(Outcome::Unknown);
            counts.appends += story.list.borrow().appends.len() as u64;
            counts.reads += story.list.borrow().reads.len() as u64;
            counts.deletions += story.scratch.borrow().deletions;
            counts.packs_made += self.peers.packs_made();
            counts.out_of_memory += self.cluster.out_of_memory.get();
            counts.replica_reads += story.list.borrow().reads.iter().filter(|read| read.staleness.is_some()).count() as u64;
        });
        let bucket = self.bucket.snapshot();
        Run {
            broken,
            trace: std::mem::take(&mut self.trace.lock().unwrap()),
            bucket: bucket.into_iter().map(|(key, bytes)| (key.to_string(), bytes)).collect(),
            hits: std::mem::take(&mut self.hits.lock().unwrap()),
            counts: *self.counts.lock().unwrap(),
            past: story.past.borrow().tally.clone(),
        }
    }
}
