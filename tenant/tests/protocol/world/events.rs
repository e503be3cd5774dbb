//! Everything that can happen to the nodes of a world.

use std::sync::Arc;
use std::time::Duration;

use super::{Place, World};
use crate::node::Node;

const HOUR: i64 = 3_600_000_000;
const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;

impl World {
    /// One event.
    pub(super) fn happen(&mut self) {
        let at = self.rng.below(self.places.len() as u64) as usize;
        let name = self.rng.below(self.names.len() as u64) as usize;
        match self.rng.below(100) {
            0..62 => return self.write(at, name),
            62..84 => return self.manage(at, name),
            84..86 => return self.sweep(at),
            _ => {}
        }
        let Some(node) = self.places[at].node.clone().filter(|node| !node.life.is_dead()) else { return };
        let is_honest = self.tap.watch.known().is_honest;
        match self.rng.below(20) {
            0..4 => {
                // Soon, in the middle of whatever it does then.
                let polls = self.rng.below(40);
                node.life.die_after(polls);
                self.note("crash", format_args!("{} after {polls} polls", node.id));
            }
            4 => {
                node.life.die();
                self.note("crash", node.id);
            }
            5..10 => {
                node.life.pause();
                self.places[at].idle = 1 + self.rng.below(60);
                let is_time_hidden = self.rng.one_in(3) && !is_honest;
                if is_time_hidden {
                    self.places[at].clock.set_rate(0);
                }
                self.note("pause", format_args!("{}, hidden: {is_time_hidden}", node.id));
            }
            10..13 if !is_honest => self.bend_clock(at),
            16..19 if !is_honest => self.seal_rashly(&node),
            13 => {
                node.seam.spawn(node.clone().shut_down());
                self.note("shutdown", node.id);
            }
            19 => {
                node.seam.spawn(node.clone().list(self.names.clone()));
                self.note("listing", node.id);
            }
            _ => {
                let (is_out, is_denied) = (self.rng.one_in(2), self.rng.one_in(3));
                let lasts = Duration::from_millis(self.rng.below(6_000));
                if let Some(store) = self.places[at].store.clone() {
                    match is_denied {
                        false => store.set_outage(is_out),
                        true => {
                            store.set_denied(true);
                            let network = self.network.clone();
                            self.network.spawn(async move {
                                network.sleep(lasts).await;
                                store.set_denied(false);
                            });
                        }
                    }
                }
                self.note(if is_denied { "denial" } else { "outage" }, format_args!("{}: {is_out}", node.id));
            }
        }
    }

    /// A client writes, mostly where it did before.
    pub(super) fn write(&mut self, at: usize, name: usize) {
        let is_up = |place: &Place| place.node.as_ref().is_some_and(|node| !node.life.is_dead() && node.has_started());
        let home = self.homes[name];
        if self.rng.one_in(12) || !is_up(&self.places[home]) {
            self.homes[name] = at;
        }
        let count = 1 + self.rng.below(4);
        let Some(node) = self.places[self.homes[name]].node.clone() else { return };
        let name = self.names[name].clone();
        self.note("write", format_args!("{count} to {name} at {}", node.id));
        node.seam.spawn(node.clone().write(name, count));
    }

    /// Folds, releases, deletes and strays, at the owner.
    fn manage(&mut self, at: usize, name: usize) {
        let at = if self.rng.one_in(3) { at } else { self.homes[name] };
        let Some(node) = self.places[at].node.clone() else { return };
        let databases = node.all();
        let what = self.rng.below(26);
        if what == 21 {
            self.note("straggler", node.id);
            return node.seam.clone().spawn(async move { node.straggle() });
        }
        if what > 21 {
            let name = self.names[name].clone();
            self.note("eviction", format_args!("{name} at {}", node.id));
            return node.seam.clone().spawn(async move { node.evict(&name) });
        }
        let Some(database) = databases.into_iter().find(|it| it.name == self.names[name]) else { return };
        match what {
            0..15 => {
                self.note("fold", format_args!("{} at {}", database.name, node.id));
                node.seam.clone().spawn(async move { database.fold(&node).await });
            }
            15..20 => {
                self.note("release", format_args!("{} at {}", database.name, node.id));
                let changes_its_mind = self.rng.one_in(3);
                node.seam.clone().spawn(async move {
                    drop(database.release(&node).await);
                    if changes_its_mind {
                        node.write(database.name.clone(), 2).await;
                    }
                });
            }
            _ => {
                self.note("drop", format_args!("{} at {}", database.name, node.id));
                node.seam.clone().spawn(async move { database.delete(&node).await });
            }
        }
    }

    /// A node looks for logs to drain; often two at once.
    fn sweep(&mut self, at: usize) {
        let other = self.rng.below(2 * self.places.len() as u64) as usize;
        let both = [Some(at), Some(other).filter(|other| *other != at)];
        let nodes = both.into_iter().flatten().filter_map(|at| self.places.get(at)?.node.clone());
        for node in nodes.collect::<Vec<_>>() {
            self.note("sweep", node.id);
            node.seam.clone().spawn(async move { let _ = node.sweep().await; });
        }
    }

    /// Somebody takes a node for dead, rightly or not. It may cost that node its life, never a commit.
    fn seal_rashly(&mut self, node: &Arc<Node>) {
        let victim = self.rng.below(self.places.len() as u64) as usize;
        let Some(victim) = self.places[victim].last else { return };
        self.note("rash seal", format_args!("of {victim} by {}", node.id));
        let node = node.clone();
        node.seam.clone().spawn(async move {
            node.others.seal_dead(victim).await.unwrap_or_else(|error| node.examine_seal(&error));
        });
    }

    fn bend_clock(&mut self, at: usize) {
        let clock = self.places[at].clock.clone();
        let sign = if self.rng.one_in(2) { 1 } else { -1 };
        let what = self.rng.below(5);
        match what {
            0 => clock.jump_wall(sign * HOUR),
            1 => clock.jump_wall(sign * TEN_YEARS),
            2 => clock.jump_boot(sign * HOUR),
            3 => clock.set_rate(*self.rng.pick(&[0, 100, 500, 2000, 10_000])),
            _ => clock.set_rate(1000),
        }
        self.note("clock", format_args!("{what} at {at}, {sign}"));
    }
}
