//! One seed: a database, the same one as a plain file, and the nodes that have it one after the other.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use compute::database::Snapshot;
use pageserver::drain::Drainer;
use pageserver::history::Located;
use pageserver::sweep::Sweeper;
use pageserver::tail::Tail;
use segments::base::BaseRef;
use segments::page::PageNo;
use walstore::id::{DatabaseId, IncarnationId, Lsn};
use walstore::life::Stores;
use walstore::store::MemoryStore;

use crate::history;
use crate::machine::Machine;
use crate::node::{Node, Open};
use crate::plain::{Free, Plain};
use crate::rng::Rng;

const STEPS: u64 = 90;
/// Snapshots that are held at the same time.
const HELD_MAX: usize = 4;
/// Pages of one commit that are asked for at once, as another node does.
const SERVED_AT_ONCE: usize = 8;
/// Beyond this writers would wait for a fold.
const OVERLAY_BYTES_MAX: usize = 12 << 20;

pub struct Run {
    pub verdict: Result<(), String>,
    pub trace: Vec<String>,
    pub counts: Counts,
}

/// What happened, to see that it was worth something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    commits: u64,
    pages_compared: u64,
    vacuums: u64,
    /// Transactions that wrote pages before their end.
    spills: u64,
    large_blobs: u64,
    folds: u64,
    merges: u64,
    /// Steps of giving dead space back.
    compactions: u64,
    /// The same, of what nobody owned.
    compacted_unowned: u64,
    collected: u64,
    /// Comparisons of a snapshot whose base has been folded over since.
    old_snapshots: u64,
    shrinks: u64,
    evictions: u64,
    takeovers: u64,
    /// Commits that a crash took away before they were durable.
    lost: u64,
    drains: u64,
    /// States of the past that were made and compared, but for the folded one.
    past: u64,
    /// Pages of these that were asked for by another node, and compared.
    served: u64,
    /// Pages as of durable commits that are not folded, as an owner serves them.
    unfolded: u64,
    /// Commits that the horizon has left behind.
    trimmed: u64,
    /// Comparisons of what a fork begins with, once the database had gone on.
    forks: u64,
}

impl Counts {
    pub fn add(&mut self, more: &Self) {
        self.commits += more.commits;
        self.pages_compared += more.pages_compared;
        self.vacuums += more.vacuums;
        self.spills += more.spills;
        self.large_blobs += more.large_blobs;
        self.folds += more.folds;
        self.merges += more.merges;
        self.compactions += more.compactions;
        self.compacted_unowned += more.compacted_unowned;
        self.collected += more.collected;
        self.old_snapshots += more.old_snapshots;
        self.shrinks += more.shrinks;
        self.evictions += more.evictions;
        self.takeovers += more.takeovers;
        self.lost += more.lost;
        self.drains += more.drains;
        self.past += more.past;
        self.served += more.served;
        self.unfolded += more.unfolded;
        self.trimmed += more.trimmed;
        self.forks += more.forks;
    }

    pub fn assert_all_happened(&self) {
        let Self { commits, pages_compared, folds, merges, collected, old_snapshots, shrinks, .. } = *self;
        let Self { evictions, takeovers, lost, drains, compactions, past, served, unfolded, .. } = *self;
        let Self { trimmed, forks, vacuums, spills, large_blobs, compacted_unowned, .. } = *self;
        let all = [commits, pages_compared, folds, merges, collected, old_snapshots, shrinks];
        let others = [evictions, takeovers, lost, drains, compactions, past, served, unfolded, trimmed, forks];
        let all = all.into_iter().chain(others).chain([vacuums, spills, large_blobs, compacted_unowned]);
        assert!(all.into_iter().all(|count| count > 0), "something never happened: {self:?}");
    }
}

struct World {
    rng: Rng,
    started: tokio::time::Instant,
    bucket: MemoryStore,
    plain: Plain,
    node: Node,
    /// With the LSN that each is of.
    held: Vec<(u64, Rc<Snapshot>)>,
    /// Whether the past is kept for a while, and forks begin now and then.
    has_past: bool,
    /// Where they begin.
    forks: Vec<(Lsn, BaseRef)>,
    trace: Vec<String>,
    counts: Counts,
}

pub fn run(seed: u64) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    compute::sqlite::install();
    compute::sqlite::vfs::reset_randomness();
    runtime.block_on(async {
        let mut rng = Rng::of_seed(seed);
        let (started, bucket) = (tokio::time::Instant::now(), MemoryStore::new());
        let node = Node::start(Machine::new(&mut rng, started, 0), &bucket).await;
        let clock = node.context.seam.clone();
        bucket.set_clock(move || clock.wall_micros());
        let has_past = rng.is_one_in(2);
        let (plain, counts) = (Plain::new(seed), Counts::default());
        let mut world = World { rng, started, bucket, plain, node, held: Vec::new(), has_past, forks: Vec::new(), trace: Vec::new(), counts };
        let verdict = world.play().await;
        world.held.clear();
        world.node.die();
        Run { verdict, trace: world.trace, counts: world.counts }
    })
}

impl World {
    fn note(&mut self, what: impl std::fmt::Display) {
        let what: String = what.to_string().chars().take(160).collect();
        self.trace.push(format!("at LSN {}: {what}", self.plain.lsn()));
    }

    async fn play(&mut self) -> Result<(), String> {
        let mut open = self.node.create(u32::from(self.has_past)).await;
        let first = history::first(&mut self.rng);
        self.transaction(&open, &first).await?;
        for _ in 0..STEPS {
            open = self.step(open).await?;
            self.node.context.seam.sleep(Duration::from_millis(5)).await;
            self.node.hear(&mut open);
            self.compare_newest(&open).await?;
            if open.database.overlay_bytes() > OVERLAY_BYTES_MAX {
                self.held.clear();
                self.fold(&mut open).await?;
            }
        }
        self.node.settle(&mut open).await;
        self.compare_held(&open).await?;
        self.held.clear();
        open = self.take_over(open).await?;
        self.compare_newest(&open).await?;
        self.compare_past(&open, usize::MAX).await?;
        self.plain.check_integrity()
    }

    async fn step(&mut self, mut open: Open) -> Result<Open, String> {
        match self.rng.below(32) {
            0..18 => {
                let sql = history::next(&mut self.rng);
                self.transaction(&open, &sql).await?;
            }
            18..22 => {
                if self.rng.is_one_in(3) {
                    // Just committed, and nobody has heard yet that it is durable.
                    let sql = history::next(&mut self.rng);
                    self.transaction(&open, &sql).await?;
                }
                self.fold(&mut open).await?;
            }
            22..25 => {
                if self.held.len() < HELD_MAX {
                    self.note("holds a snapshot");
                    self.held.push((self.plain.lsn(), Rc::new(open.database.newest_snapshot())));
                }
            }
            25..27 => {
                if !self.held.is_empty() {
                    let at = self.rng.below(self.held.len() as u64) as usize;
                    let (lsn, snapshot) = self.held.remove(at);
                    self.note(format_args!("lets go of the snapshot at {lsn}"));
                    drop(snapshot);
                    self.counts.collected += self.node.collect(&mut open).await as u64;
                }
            }
            27..29 => {
                self.compare_held(&open).await?;
                self.compare_past(&open, 4).await?;
            }
            29 => {
                self.note("evicted and opened again");
                self.node.settle(&mut open).await;
                self.held.clear();
                let (id, slots) = (open.database.id, open.slots());
                drop(open);
                self.counts.evictions += 1;
                open = self.node.open_again(id, &slots).await?;
            }
            30 => open = self.take_over(open).await?,
            _ => open = self.drain(open).await?,
        }
        Ok(open)
    }

    /// The same statements on both, each a transaction of its own unless they say otherwise.
    async fn transaction(&mut self, open: &Open, sql: &str) -> Result<(), String> {
        if sql.starts_with("BEGIN") {
            return self.statement(open, sql).await;
        }
        for sql in sql.split("; ") {
            self.statement(open, sql).await?;
        }
        Ok(())
    }

    async fn statement(&mut self, open: &Open, sql: &str) -> Result<(), String> {
        self.note(sql);
        let (before, spilled) = (Lsn::raw(open.database.newest().lsn), self.plain.spilled());
        let (ours, theirs) = (open.run(sql).await, self.plain.run(sql));
        if ours.is_ok() != theirs.is_ok() {
            return Err(format!("I9: {ours:?}, but plain SQLite says {theirs:?}"));
        }
        if ours.is_err() {
            // A transaction that failed half-way is still open, or is not.
            let _ = (open.run("ROLLBACK").await, self.plain.run("ROLLBACK"));
        }
        let after = open.database.newest();
        match (Lsn::raw(after.lsn) - before, self.plain.has_changed()) {
            (0, false) => return Ok(()),
            (0, true) => return Err("I11: the plain file has changed, and there is no commit".into()),
            (1, _) => {}
            (more, _) => return Err(format!("I11: {more} commits of one transaction")),
        }
        self.counts.commits += 1;
        self.counts.vacuums += u64::from(sql == "VACUUM");
        self.counts.spills += u64::from(self.plain.spilled() > spilled);
        let has_blob = sql.contains("('blob', ") || sql.contains("zeroblob");
        self.counts.large_blobs += u64::from(has_blob);
        self.counts.shrinks += u64::from((after.page_count as usize) < self.plain.image(self.plain.lsn()).len());
        self.plain.keep(Lsn::raw(after.lsn));
        Ok(())
    }

    async fn fold(&mut self, open: &mut Open) -> Result<(), String> {
        self.note("folds");
        self.counts.folds += 1;
        let child = (self.has_past && self.rng.is_one_in(6)).then(|| DatabaseId::random(&self.node.context.seam));
        let (oldest, _) = open.window();
        self.counts.merges += u64::from(self.node.fold(open, child).await?);
        self.forks.append(&mut open.forks);
        if self.has_past {
            self.counts.trimmed += open.window().0 - oldest;
            // So that some of it gets too old.
            let millis = self.rng.below(200);
            self.node.context.seam.sleep(Duration::from_millis(millis)).await;
        }
        if self.rng.is_one_in(4) {
            self.counts.compactions += self.node.compact(open).await?;
        }
        Ok(())
    }

    async fn compare_newest(&mut self, open: &Open) -> Result<(), String> {
        let snapshot = Rc::new(open.database.newest_snapshot());
        // All of a small database, a sample of a large one.
        let (lsn, count) = (self.plain.lsn(), u64::from(snapshot.page_count));
        let numbers = match count {
            0..24 => (1..=snapshot.page_count).collect(),
            _ => (0..24).map(|_| 1 + self.rng.below(count) as u32).chain([1, snapshot.page_count]).collect(),
        };
        self.compare(open, &snapshot, lsn, numbers).await?;
        if lsn % 4 == 0 {
            self.compare_durable(open)?;
        }
        self.ask_beyond(open, &snapshot).await
    }

    /// What an owner serves of commits that are durable and not folded, as far as it is in the overlay; the rest comes from
    /// a base as it does for the newest snapshot. Nothing else is to be had.
    fn compare_durable(&mut self, open: &Open) -> Result<(), String> {
        let (database, newest) = (&open.database, self.plain.lsn());
        let (folded, durable) = (Lsn::raw(database.base().tip.lsn), database.gate.durable());
        let shown = |lsn| Lsn::new(lsn).and_then(|lsn| database.durable_snapshot_at(lsn));
        for lsn in (1..folded).chain(durable + 1..=newest) {
            if shown(lsn).is_some() {
                return Err(format!("I5: commit {lsn} is shown; {folded} is folded, {durable} is durable"));
            }
        }
        for lsn in folded.max(1)..=durable {
            let snapshot = shown(lsn).ok_or_else(|| format!("I9: commit {lsn} is durable and cannot be shown"))?;
            let image = self.plain.image(lsn);
            if snapshot.page_count as usize != image.len() {
                return Err(format!("I9: {} pages at LSN {lsn}, and {} in SQLite's file", snapshot.page_count, image.len()));
            }
            let free = Free::of(image);
            for number in (1..=snapshot.page_count).filter_map(PageNo::new) {
                let Some(page) = database.overlay_page(number, &snapshot) else { continue };
                self.counts.unfolded += u64::from(lsn > folded);
                if !free.is_as_in_image(number.get() as usize - 1, page.as_bytes()) {
                    return Err(format!("I9: page {number} of LSN {lsn}, not folded, is not that of SQLite's file"));
                }
            }
        }
        Ok(())
    }

    async fn compare_held(&mut self, open: &Open) -> Result<(), String> {
        self.note("compares all snapshots");
        for (lsn, snapshot) in self.held.clone() {
            self.counts.old_snapshots += u64::from(!Rc::ptr_eq(&snapshot.base, &open.database.base()));
            self.compare(open, &snapshot, lsn, (1..=snapshot.page_count).collect()).await?;
        }
        let newest = Rc::new(open.database.newest_snapshot());
        self.compare(open, &newest, self.plain.lsn(), (1..=newest.page_count).collect()).await
    }

    /// States of the window, some or all, and what each fork begins with.
    async fn compare_past(&mut self, open: &Open, count_max: usize) -> Result<(), String> {
        let (oldest, newest) = open.window();
        self.note(format_args!("goes back to {oldest} to {newest}, and to {} forks", self.forks.len()));
        let all: Vec<u64> = (oldest..=newest).collect();
        let mut chosen = if all.len() <= count_max { all } else { vec![oldest] };
        while chosen.len() < count_max.min((newest - oldest) as usize + 1) {
            chosen.push(oldest + self.rng.below(newest - oldest + 1));
        }
        for lsn in chosen {
            self.counts.past += u64::from(lsn < newest);
            let past = self.node.past(open, lsn).await?;
            let (found, micros) = (Lsn::raw(past.tip.lsn), past.tip.time_micros);
            if found != lsn {
                return Err(format!("I9: asked for commit {lsn}, and got {found}"));
            }
            self.compare_tail(past, lsn, "I9").await?;
            self.compare_served(open, lsn).await?;
            let expected = if lsn == newest { Located::AfterFolded } else { Located::At(lsn) };
            let located = self.node.locate(open, micros).await?;
            if located != expected {
                return Err(format!("I9: commit {lsn} is of {micros}, where {located:?} is found"));
            }
        }
        for (lsn, base) in self.forks.clone() {
            self.counts.forks += u64::from(lsn.get() < newest);
            let fork = self.node.fork(open, &base).await?;
            self.compare_tail(fork, lsn.get(), "I8").await?;
        }
        Ok(())
    }

    async fn compare_tail(&mut self, mut tail: Tail, lsn: u64, invariant: &str) -> Result<(), String> {
        let image = self.plain.image(lsn).clone();
        if tail.tip.page_count as usize != image.len() {
            let (ours, theirs) = (tail.tip.page_count, image.len());
            return Err(format!("{invariant}: {ours} pages at LSN {lsn} of the past, and {theirs} in SQLite's file"));
        }
        let free = Free::of(&image);
        for number in (1..=tail.tip.page_count).filter_map(PageNo::new) {
            let page = tail.page(self.node.fetcher(), number).await;
            let page = page.map_err(|error| format!("{invariant}: page {number} at LSN {lsn} of the past: {error}"))?;
            let at = number.get() as usize - 1;
            if !free.is_as_in_image(at, page.as_bytes()) {
                return Err(format!("{invariant}: page {number} at LSN {lsn} of the past is not that of SQLite's file"));
            }
        }
        Ok(())
    }

    /// Some pages of a former commit, and one beyond its end, as another node asks for them.
    async fn compare_served(&mut self, open: &Open, lsn: u64) -> Result<(), String> {
        let image = self.plain.image(lsn).clone();
        // LSN 0 has no pages, and stands for the last commit in a request.
        let Some(last) = u32::try_from(image.len()).ok().filter(|_| lsn > 0) else { return Ok(()) };
        let mut numbers: Vec<u32> = (0..SERVED_AT_ONCE).map(|_| 1 + self.rng.below(last.into()) as u32).collect();
        numbers.push(last + 1);
        let reply = self.node.serve(open, lsn, &numbers).await?;
        numbers.pop();
        let answered: Vec<u32> = reply.pages.iter().map(|page| page.page_no).collect();
        if (reply.lsn, reply.page_count, &answered) != (lsn, last, &numbers) {
            return Err(format!("I9: asked for {numbers:?} of {last} pages at LSN {lsn}, and got {answered:?} of {reply:?}"));
        }
        self.counts.served += numbers.len() as u64;
        let free = Free::of(&image);
        for page in reply.pages {
            let at = page.page_no as usize - 1;
            if !free.is_as_in_image(at, &page.content) {
                return Err(format!("I9: page {} served of LSN {lsn} is not that of SQLite's file", page.page_no));
            }
        }
        Ok(())
    }

    async fn compare(&mut self, open: &Open, snapshot: &Rc<Snapshot>, lsn: u64, numbers: Vec<u32>) -> Result<(), String> {
        let image = self.plain.image(lsn).clone();
        if snapshot.page_count as usize != image.len() {
            let theirs = image.len();
            return Err(format!("I9: {} pages at LSN {lsn}, and {theirs} in SQLite's file", snapshot.page_count));
        }
        let pages = open.pages(snapshot, numbers.clone()).await.map_err(|error| format!("I10: at LSN {lsn}: {error}"))?;
        self.counts.pages_compared += pages.len() as u64;
        let free = Free::of(&image);
        for (number, page) in numbers.into_iter().zip(pages) {
            let at = number as usize - 1;
            if !free.is_as_in_image(at, page.as_bytes()) {
                let byte = page.as_bytes().iter().zip(image[at].iter()).position(|(ours, theirs)| ours != theirs);
                return Err(format!("I9: page {number} at LSN {lsn} is not that of SQLite's file, from byte {byte:?} on"));
            }
        }
        Ok(())
    }

    /// A page that no source has is an error, never zeros.
    async fn ask_beyond(&mut self, open: &Open, snapshot: &Rc<Snapshot>) -> Result<(), String> {
        let beyond = snapshot.page_count.max(snapshot.base.tip.page_count) + 1;
        // Cut off by a shrink that is not folded, it is in nobody's way in the overlay.
        if open.database.overlay_page(segments::page::PageNo::new(beyond).expect("from 1"), snapshot).is_some() {
            return Ok(());
        }
        match open.pages(snapshot, vec![beyond]).await {
            Ok(_) => Err(format!("I10: page {beyond} is served, which nobody has ever written")),
            Err(_) => Ok(()),
        }
    }

    async fn next_node(&mut self) {
        let machine = Machine::new(&mut self.rng, self.started, 0);
        self.node = Node::start(machine, &self.bucket).await;
    }

    /// The node dies, now or once everything is durable, and another one goes on.
    async fn take_over(&mut self, mut open: Open) -> Result<Open, String> {
        let id = self.crash(&mut open).await;
        let durable = open.database.gate.durable();
        drop(open);
        self.next_node().await;
        self.counts.takeovers += 1;
        let open = self.node.take_over(id).await?;
        self.go_on(&open, durable)?;
        Ok(open)
    }

    /// The node dies, another one drains what it left, and a third goes on.
    async fn drain(&mut self, mut open: Open) -> Result<Open, String> {
        let id = self.crash(&mut open).await;
        let durable = open.database.gate.durable();
        drop(open);
        self.next_node().await;
        let stores = Stores::one(Arc::new(self.bucket.clone()));
        let context = self.node.context.clone();
        let (seam, id_of_nobody) = (context.seam.clone(), IncarnationId::random(&context.seam));
        let sweeper = Sweeper::new(id_of_nobody, stores.clone(), seam.clone(), &context.fetcher);
        let mut drainer = Drainer::new(id_of_nobody, stores, seam, &context.fetcher);
        let mut folded = 0;
        for _ in 0..3 {
            folded += drainer.sweep().await.map_err(|error| format!("I16: {error}"))?.databases;
        }
        self.note(format_args!("drained: {folded}"));
        self.counts.drains += folded as u64;
        if folded > 0 && !self.has_past {
            // The forks here are pins without children, which it would undo.
            let swept = sweeper.sweep().await.map_err(|error| format!("I16: {error}"))?;
            self.counts.compacted_unowned += swept.compactions;
        }
        let open = self.node.take_over(id).await?;
        self.go_on(&open, durable)?;
        Ok(open)
    }

    async fn crash(&mut self, open: &mut Open) -> walstore::id::DatabaseId {
        let is_orderly = self.rng.is_one_in(2);
        if is_orderly {
            self.node.settle(open).await;
        } else {
            // What was committed in this moment is on its way, or is not.
            for _ in 0..self.rng.below(3) {
                let sql = history::next(&mut self.rng);
                let _ = self.transaction(open, &sql).await;
            }
            for _ in 0..self.rng.below(6) {
                tokio::task::yield_now().await;
            }
            self.node.hear(open);
        }
        let node = self.node.id();
        self.note(format_args!("node {node} dies, orderly: {is_orderly}"));
        self.held.clear();
        self.node.die();
        open.database.id
    }

    /// The new owner has some prefix of the history, with everything durable in it: that is the history now.
    fn go_on(&mut self, open: &Open, durable: u64) -> Result<(), String> {
        let (found, last) = (Lsn::raw(open.database.newest().lsn), self.plain.lsn());
        if found < durable || found > last {
            return Err(format!("I1: the new owner has {found} commits; {durable} were durable, of {last}"));
        }
        if found < last {
            self.counts.lost += last - found;
            self.plain.go_back(found);
        }
        self.note("another node goes on");
        Ok(())
    }
}
