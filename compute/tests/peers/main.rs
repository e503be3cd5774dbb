//! The gRPC service between nodes, over a real socket: who follows a database is sent what is durable, and told why it
//! ends; pages are those of the commit that was asked for, folded or durable only ([`unfolded`]); packs of folds are made
//! for the node that asks.

mod held;
#[path = "../pages/history.rs"]
#[expect(dead_code, reason = "the test of pages begins with a script of its own")]
mod history;
#[path = "../pages/plain.rs"]
#[expect(dead_code, reason = "the test of pages also loses commits")]
mod plain;
mod rig;
#[path = "../simulation/rng.rs"]
#[expect(dead_code, reason = "shared with the simulation")]
mod rng;
mod unfolded;

use std::sync::Arc;
use std::time::Duration;

use compute::node::Settings;
use pageserver::fold::PackMaker;
use pageserver::service::client::GrpcPeers;
use pageserver::service::follow::{Ending, Notice, Peers, Start, Subscription};
use tokio::sync::watch;
use walstore::id::{DatabaseId, IncarnationId, Lsn};
use walstore::seam::Seam;
use walstore::store::{CountedStore, MemoryStore, Op};

use crate::rig::{Rig, page_server};

/// The next notices: LSNs of commits, until there are so many.
async fn commits(subscription: &mut Subscription, count: usize) -> Vec<u64> {
    let mut lsns = Vec::new();
    while lsns.len() < count {
        match subscription.next().await {
            Ok(Notice::Commit(commit)) => lsns.push(commit.lsn.get()),
            Ok(_) => {}
            Err(ending) => panic!("{ending} after {lsns:?}"),
        }
    }
    lsns
}

async fn ending(subscription: &mut Subscription) -> Ending {
    loop {
        if let Err(ending) = subscription.next().await {
            return ending;
        }
    }
}

#[test]
fn commits_come_when_they_are_durable_and_pages_as_they_are_folded() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let rig = Rig::start().await;
        rig.write("CREATE TABLE t(a)").await;
        rig.write("INSERT INTO t VALUES (1)").await;

        // From the log, and then as they come.
        let mut early = rig.follow(0).await;
        assert_eq!(commits(&mut early, 2).await, [1, 2]);
        let mut late = rig.follow(1).await;
        assert_eq!(commits(&mut late, 1).await, [2]);
        rig.write("INSERT INTO t VALUES (2)").await;
        assert_eq!((commits(&mut early, 1).await, commits(&mut late, 1).await), (vec![3], vec![3]));
        early.tick(77);
        assert_eq!(early.next().await, Ok(Notice::Heartbeat { tick: 77, durable: 3 }));

        // Another owner's database is not here.
        let elsewhere = Start { incarnation: IncarnationId::from_bytes([9; 16]), ..rig.start_after(0) };
        let mut refused = rig.peers.follow(&rig.address, elsewhere).await.expect("an answer");
        assert!(matches!(ending(&mut refused).await, Ending::NotHere(_)));
        // Nothing is folded, so nobody has pages.
        let nothing = rig.peers.pages(&rig.address, rig.database, 0, vec![1]).await.expect("an answer");
        assert_eq!((nothing.lsn, nothing.pages.len()), (0, 0));

        // It is folded, and then nobody's.
        rig.release().await;
        assert_eq!(early.next().await, Ok(Notice::Folded(Lsn::new(3).expect("not 0"))));
        assert!(matches!(ending(&mut early).await, Ending::Over(_)));
        let pages = rig.peers.pages(&rig.address, rig.database, 3, vec![1, 2, 99]).await.expect("pages");
        assert_eq!((pages.lsn, pages.page_count, pages.pages.len()), (3, 2, 2));
        assert!(pages.pages[0].content.starts_with(b"SQLite format 3\0"));
        let other = rig.peers.pages(&rig.address, rig.database, 2, vec![1]).await.expect_err("commit 2 is not folded");
        assert!(other.message().contains("commits 3 to 3 are folded and kept, not 2"), "{other}");
        let missing = DatabaseId::from_bytes([8; 16]);
        assert!(rig.peers.pages(&rig.address, missing, 0, vec![1]).await.is_err());

        // Taken again: what is folded is not in the log any more, and the follower is told to read the head.
        rig.write("INSERT INTO t VALUES (3)").await;
        let mut stale = rig.follow(1).await;
        assert!(matches!(ending(&mut stale).await, Ending::Folded(_)));
        let mut current = rig.follow(3).await;
        assert_eq!(commits(&mut current, 1).await, [4]);

        // A node that stops sends its followers away, and does not wait for them.
        rig.node.end_idle_streams();
        assert!(matches!(ending(&mut current).await, Ending::Over(_)));
        let _ = rig.stop.send(true);
        rig.node.shut_down(Duration::from_secs(10)).await.expect("sealed");
    });
}

fn puts(store: &CountedStore<MemoryStore>, class: &str) -> u64 {
    store.snapshot().get(&(Op::Put, class.to_owned())).map_or(0, |counter| counter.requests)
}

#[test]
fn a_page_server_makes_the_packs_of_folds_and_nothing_is_lost_when_it_goes() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for retention in [Duration::ZERO, Duration::from_secs(3600)] {
            let memory = MemoryStore::new();
            let owners = Arc::new(CountedStore::new(memory.clone()));
            let others = Arc::new(CountedStore::new(memory));
            let rig = Rig::start_on(owners.clone(), Settings { retention, ..Settings::default() }).await;
            let (seam, (stop, stopped)) = (Seam::production(), watch::channel(false));
            let address = page_server(others.clone(), &seam, stopped).await;
            rig.node.context.has_packs_made_by(PackMaker::new(address, Arc::new(GrpcPeers::new(seam.clone())), seam));

            // Larger than one piece of an order, and than what stands in a head.
            rig.write("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)").await;
            rig.write("WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 600)
                       INSERT INTO t SELECT n, randomblob(5000) FROM n").await;
            for n in 0..5 {
                rig.write(&format!("UPDATE t SET body = randomblob(5000) WHERE id % 5 = {n}")).await;
            }
            rig.release().await;
            assert_eq!(puts(&owners, "pack"), 0, "{:?}", owners.snapshot());
            assert!(puts(&others, "pack") > 1, "{:?}", others.snapshot());
            assert_eq!(puts(&others, "head"), 0, "linking is the owner's");
            // A wrong sum violates the constraint.
            rig.write("CREATE TABLE sums(n CHECK (n = 3000000))").await;
            rig.write("INSERT INTO sums SELECT sum(length(body)) FROM t").await;

            // It stops: the next folds are the owner's own, and all is there.
            let _ = stop.send(true);
            let before = puts(&others, "pack");
            rig.write("UPDATE t SET body = randomblob(5000)").await;
            rig.release().await;
            assert!(puts(&owners, "pack") > 0, "{:?}", owners.snapshot());
            assert_eq!(puts(&others, "pack"), before);
            rig.write("INSERT INTO sums SELECT sum(length(body)) FROM t").await;
            let _ = rig.stop.send(true);
            rig.node.shut_down(Duration::from_secs(10)).await.expect("sealed");
        }
    });
}
