//! Pages as of commits that are durable and not folded: they come from the owner's memory, whoever is asked.

use std::sync::Arc;
use std::time::Duration;

use compute::node::Settings;
use pageserver::service::client::{Code, Status};
use pageserver::service::messages::PagesReply;
use tokio::sync::watch;
use walstore::id::DatabaseId;
use walstore::life::Stores;
use walstore::register::Patience;
use walstore::seal;
use walstore::seam::Seam;
use walstore::store::{MemoryStore, Store};

use crate::held::HeldStore;
use crate::plain::{Free, Plain};
use crate::rig::{Rig, page_server};
use crate::rng::Rng;
use crate::history;

const STEPS: usize = 40;
/// Pages that are asked for at once: all of a small database.
const PAGES_AT_ONCE: usize = 60;

fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(test);
}

/// So that pages beyond the overlay have to be fetched, and nothing is folded away.
fn settings() -> Settings {
    Settings { cache_bytes: 1 << 20, retention: Duration::from_secs(3600), ..Settings::default() }
}

async fn ask(rig: &Rig, address: &str, lsn: u64, pages: Vec<u32>) -> Result<PagesReply, Status> {
    rig.peers.pages(address, rig.database, lsn, pages).await
}

/// The history so far, here and in SQLite's own file, and the two that are asked for it in turn.
struct Compared {
    rig: Rig,
    rng: Rng,
    plain: Plain,
    addresses: [String; 2],
    /// The last commit that is known to be folded.
    folded: u64,
    /// Answers as of commits after that.
    unfolded: usize,
}

impl Compared {
    async fn statement(&mut self, sql: &str) {
        let (ours, theirs) = (self.rig.run(sql).await, self.plain.run(sql));
        match (ours, theirs) {
            (Ok(lsn), Ok(())) if lsn > self.plain.lsn() => self.plain.keep(lsn),
            (Ok(_), Ok(())) => {}
            (Err(_), Err(_)) => drop(self.plain.run("ROLLBACK")),
            different => panic!("{sql}: {different:?}"),
        }
    }

    fn numbers(&mut self, last: usize) -> Vec<u32> {
        let last = last as u32;
        match last as usize {
            ..=PAGES_AT_ONCE => (1..=last).chain([last + 1]).collect(),
            _ => (0..PAGES_AT_ONCE).map(|_| 1 + self.rng.below(last.into()) as u32).chain([last + 1]).collect(),
        }
    }

    async fn compare(&mut self, lsn: u64) {
        let image = self.plain.image(lsn).clone();
        let mut numbers = self.numbers(image.len());
        let address = self.rng.pick(&self.addresses).clone();
        let reply = ask(&self.rig, &address, lsn, numbers.clone()).await;
        self.unfolded += usize::from(lsn > self.folded);
        let reply = reply.unwrap_or_else(|error| panic!("commit {lsn} of {}: {error}", self.plain.lsn()));
        numbers.pop();
        let answered: Vec<u32> = reply.pages.iter().map(|page| page.page_no).collect();
        assert_eq!((reply.lsn, reply.page_count as usize, answered), (lsn, image.len(), numbers));
        let free = Free::of(&image);
        for page in reply.pages {
            let is_same = free.is_as_in_image(page.page_no as usize - 1, &page.content);
            assert!(is_same, "page {} as of commit {lsn} is not that of SQLite's file", page.page_no);
        }
    }

    /// A few commits, the newest among them.
    async fn compare_some(&mut self) {
        let newest = self.plain.lsn();
        for lsn in [newest, newest - self.rng.below(4).min(newest), 1 + self.rng.below(newest)] {
            self.compare(lsn.max(1)).await;
        }
    }
}

#[test]
fn pages_as_of_every_durable_commit_are_those_of_sqlites_own_file_folded_or_not() {
    block_on(async {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let rig = Rig::start_on(store.clone(), settings()).await;
        let (stop, stopped) = watch::channel(false);
        let apart = page_server(store, &Seam::production(), stopped).await;
        let addresses = [rig.address.clone(), apart];
        let (rng, plain) = (Rng::of_seed(4), Plain::new(4));
        let mut it = Compared { rig, rng, plain, addresses, folded: 0, unfolded: 0 };
        it.statement("CREATE TABLE first(a)").await;
        for _ in 0..STEPS {
            let sql = history::next(&mut it.rng);
            match sql.starts_with("BEGIN") {
                true => it.statement(&sql).await,
                false => for sql in sql.split("; ") {
                    it.statement(sql).await;
                },
            }
            it.compare_some().await;
            if it.rng.is_one_in(8) {
                let (folded, ()) = tokio::join!(it.rig.fold(), it.compare_some());
                it.folded = folded;
                it.compare_some().await;
            }
        }
        // All of them, from memory as far as they are there; then as they are folded.
        for lsn in 1..=it.plain.lsn() {
            it.compare(lsn).await;
        }
        assert!(it.unfolded > STEPS, "only {} were not folded", it.unfolded);
        it.rig.release().await;
        for lsn in 1..=it.plain.lsn() {
            it.compare(lsn).await;
        }
        let beyond = it.plain.lsn() + 1;
        for address in &it.addresses {
            let refused = ask(&it.rig, address, beyond, vec![1]).await.expect_err("nobody has it");
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
            let kept = format!("to {} are folded and kept, not {beyond}", beyond - 1);
            assert!(refused.message().contains(&kept), "{refused}");
        }
        let _ = (stop.send(true), it.rig.stop.send(true));
        it.rig.node.shut_down(Duration::from_secs(10)).await.expect("sealed");
    });
}

#[test]
fn a_commit_is_served_when_it_is_durable_and_not_before() {
    block_on(async {
        let store = Arc::new(HeldStore::new(MemoryStore::new()));
        let rig = Rig::start_on(store.clone(), settings()).await;
        let (stop, stopped) = watch::channel(false);
        let apart = page_server(store.clone(), &Seam::production(), stopped).await;
        let last = rig.run("CREATE TABLE t(a); INSERT INTO t VALUES ('old')").await.expect("it runs");
        let before = ask(&rig, &rig.address, last, vec![2]).await.expect("it is durable");
        let (next, addresses) = (last + 1, [&rig.address, &apart]);

        store.hold();
        let meanwhile = async {
            store.has_one().await;
            for address in addresses {
                let refused = ask(&rig, address, next, vec![2]).await.expect_err("it is not durable");
                assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
                let newest = format!("the newest that is, is {last}");
                assert!(refused.message().contains(&newest), "{refused}");
                // The page has a newer version in memory by now.
                assert_eq!(ask(&rig, address, last, vec![2]).await.expect("it is durable"), before);
            }
            store.release();
        };
        tokio::join!(rig.write("UPDATE t SET a = 'new'"), meanwhile);

        for address in addresses {
            let after = ask(&rig, address, next, vec![2]).await.expect("it is durable");
            assert_eq!((after.lsn, after.pages.len()), (next, 1));
            assert_ne!(after.pages, before.pages);
            // 0 is the last one that is folded, and nothing is.
            let folded = ask(&rig, address, 0, vec![1]).await.expect("an answer");
            assert_eq!((folded.lsn, folded.pages.len()), (0, 0));
            let missing = rig.peers.pages(address, DatabaseId::from_bytes([8; 16]), next, vec![1]).await;
            assert_eq!(missing.expect_err("no such database").code(), Code::NotFound);
        }
        let _ = (stop.send(true), rig.stop.send(true));
        rig.node.shut_down(Duration::from_secs(10)).await.expect("sealed");
    });
}

#[test]
fn who_has_lost_the_database_serves_nothing_that_is_not_folded_and_the_next_owner_does() {
    block_on(async {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (seam, stores) = (Seam::production(), Stores::one(store.clone()));
        let mut rig = Rig::start_on(store.clone(), settings()).await;
        let (stop, stopped) = watch::channel(false);
        let apart = page_server(store.clone(), &seam, stopped).await;
        let last = rig.run("CREATE TABLE t(a); INSERT INTO t VALUES (1)").await.expect("it runs");
        let before = ask(&rig, &rig.address, last, vec![1, 2]).await.expect("it is durable");
        assert_eq!(ask(&rig, &apart, last, vec![1, 2]).await.expect("by its owner"), before);

        let patience = Patience::for_duration(&seam, Duration::from_secs(10));
        seal::seal(&stores, &seam, rig.node.context.id, patience).await.expect("sealed");
        assert!(rig.run("INSERT INTO t VALUES (2)").await.is_err(), "its log has ended");
        rig.node.over().await;
        let refused = ask(&rig, &rig.address, last, vec![1, 2]).await.expect_err("it has lost it");
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert!(refused.message().contains("this node serves `app` no more"), "{refused}");
        let refused = ask(&rig, &apart, last, vec![1, 2]).await.expect_err("nobody has it");
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");

        let next = Rig::start_beside(store, settings(), rig.database).await;
        let newest = next.run("INSERT INTO t VALUES (3)").await.expect("it takes over");
        assert_eq!(newest, last + 1);
        for address in [&next.address, &apart] {
            assert_eq!(ask(&rig, address, last, vec![1, 2]).await.expect("by the next owner"), before);
            let after = ask(&rig, address, newest, vec![2]).await.expect("by the next owner");
            assert_ne!(after.pages[0], before.pages[1]);
        }
        let refused = ask(&rig, &rig.address, newest, vec![1]).await.expect_err("another node's");
        assert!(refused.message().contains(&format!("the node at {} owns it", next.address)), "{refused}");
        let _ = (stop.send(true), rig.stop.send(true), next.stop.send(true));
        next.node.shut_down(Duration::from_secs(10)).await.expect("sealed");
    });
}
