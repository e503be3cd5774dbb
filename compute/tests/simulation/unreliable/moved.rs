//! Conclusions from two objects of which the one has moved on while the other was read.

use compute::moment::Moment;

use super::*;

async fn change(world: &World, at: usize, name: &str, change: Change) -> Result<(), OpenError> {
    world.ask(at, name, |name, reply| Message::Change { name, change, reply }).await.map(drop)
}

/// Bug: a fork whose pin lost to a compaction of the owner's own, which had landed without an answer, pinned on top of
/// that, and the owner took the head without its map. Damage: it deleted packs that its own next map referred to.
#[test]
fn a_fork_after_a_compaction_of_unknown_outcome_leaves_the_parent_whole() {
    for moment in [None, Some(Moment::Lsn(2))] {
        tell(async |mut world| {
            let at = world.start(Settings { retention: Duration::ZERO, ..Settings::default() }, Duration::ZERO).await;
            let other = world.start(Settings::default(), Duration::ZERO).await;
            let id = world.create(at, "app").await;
            world.fill(at, "app").await;
            world.folded(at, "app").await;
            world.run(at, "app", "UPDATE t SET body = randomblob(3000) WHERE rowid % 3 = 0").await;
            world.folded(at, "app").await;
            // It is compacted when it is idle. That takes place, is not answered, and then refused.
            world.ways[at].rules(|rules| rules.mute = Some("/head"));
            let before = world.head(id).await;
            while world.head(id).await.version == before.version {
                sleep(SECOND).await;
                assert!(world.now() < 20_000_000_000_000_000, "it is never compacted");
            }
            let compacted = world.head(id).await;
            assert!(compacted.folded == before.folded && !compacted.dead.is_empty(), "{:?}", compacted.folded);
            world.ways[at].rules(|rules| (rules.mute, rules.refused) = (None, Some("/head")));
            sleep(2 * SECOND).await;
            world.ways[at].rules(|rules| rules.refused = None);
            let fork = Change::Fork { to: Name::parse("child").expect("a name"), at: moment, expires_micros: 0 };
            // Without a history there is no other moment than the present one.
            let forked = change(&world, at, "app", fork).await;
            assert_eq!(forked.is_ok(), moment.is_none(), "{forked:?}");
            world.run(at, "app", "INSERT INTO t VALUES (randomblob(100))").await;
            world.folded(at, "app").await;
            world.ask(at, "app", |name, reply| Message::Release { name, reply }).await.expect("released");
            let sum = world.run(other, "app", "SELECT sum(length(body)) FROM t").await;
            assert!(sum.to_string().contains("\"900100\""), "{sum}");
        });
    }
}

/// Bug: a replica went by the LSN of what is folded, which a compaction leaves as it is. Damage: it looked for packs that
/// its owner had deleted, and told its clients of damage until the next fold.
#[test]
fn a_replica_goes_on_from_a_compaction() {
    tell(async |mut world| {
        let owner = world.start(Settings { retention: Duration::ZERO, ..Settings::default() }, Duration::ZERO).await;
        let replicas = Settings { read_replicas: true, ..Settings::default() };
        let replica = world.start(replicas, Duration::ZERO).await;
        let id = world.create(owner, "app").await;
        world.fill(owner, "app").await;
        world.folded(owner, "app").await;
        world.run(owner, "app", "CREATE TABLE small(a)").await;
        world.run(replica, "app", "SELECT count(*) FROM small").await;
        let is_compacted = async || {
            let before = world.head(id).await;
            world.run(owner, "app", "INSERT INTO small VALUES (1)").await;
            sleep(SECOND).await;
            let after = world.head(id).await;
            after.version > before.version && after.folded.lsn == before.folded.lsn
        };
        let mut rounds = 0;
        while !is_compacted().await {
            rounds += 1;
            assert!(rounds < 300, "it is never compacted");
            if rounds % 8 == 0 {
                world.run(owner, "app", "UPDATE t SET body = randomblob(3000) WHERE rowid % 32 < 8").await;
            }
            world.folded(owner, "app").await;
            sleep(SECOND).await;
        }
        let sum = world.run(replica, "app", "SELECT sum(length(body)) FROM t").await;
        assert!(sum.to_string().contains("\"900000\""), "{sum}");
    });
}

/// Bug: a log that was sealed and bundled after a replica had found its owner alive was read as one that is open, whose
/// slots below `low` are folded. Damage: the replica called itself complete without commits that were in the bundle.
#[test]
fn a_replica_takes_no_bundled_log_for_an_empty_one() {
    tell(async |mut world| {
        let owner = world.start(Settings { drain_interval: Duration::ZERO, ..Settings::default() }, Duration::ZERO).await;
        let replicas = Settings { read_replicas: true, drain_interval: Duration::ZERO, ..Settings::default() };
        let replica = world.start(replicas, Duration::ZERO).await;
        let drainer = world.start(Settings { drain_interval: 4 * SECOND, ..Settings::default() }, Duration::ZERO).await;
        // It comes as far as the bundle.
        world.ways[drainer].rules(|rules| rules.refused = Some("/head"));
        world.create(owner, "app").await;
        world.run(owner, "app", "CREATE TABLE t(a)").await;
        world.run(owner, "app", "INSERT INTO t VALUES (1), (2)").await;
        world.ways[replica].rules(|rules| rules.late = Some("inc/"));
        let (node, _machine, _death) = world.nodes.remove(owner);
        let ends = async {
            world.ways[replica].caught.notified().await;
            world.peers.disconnect(&node.context.settings.address);
            node.shut_down(10 * SECOND).await.expect("sealed");
            while !world.bucket.keys().iter().any(|key| key.as_str().starts_with("b/")) {
                sleep(SECOND).await;
            }
            sleep(SECOND).await;
            world.ways[replica].rules(|rules| rules.is_held = false);
        };
        let (answer, ()) = join(world.sql(replica, "app", "SELECT count(*) FROM t"), ends).await;
        assert!(!format!("{answer:?}").contains("no such table"), "{answer:?}");
    });
}

/// Bug: a deletion that found any final head took the database for deleted. Damage: it was told so of one that had been
/// restored in place meanwhile, and lived.
#[test]
fn what_was_restored_while_it_was_to_be_deleted_is_not_told_as_deleted() {
    tell(async |mut world| {
        let at = world.start(Settings { retention: Duration::ZERO, ..Settings::default() }, Duration::ZERO).await;
        // The deletion begins somewhere amid the restore.
        for yields in 0..150 {
            let name = &*format!("app{yields}");
            world.create(at, name).await;
            world.run(at, name, "CREATE TABLE t(a)").await;
            let lsn = Lsn::raw(world.folded(at, name).await.folded.lsn);
            change(&world, at, name, Change::Restore { at: Moment::Lsn(lsn) }).await.expect("restored");
            world.run(at, name, "INSERT INTO t VALUES (7)").await;
            world.folded(at, name).await;
            let delete = async {
                for _ in 0..yields {
                    tokio::task::yield_now().await;
                }
                world.ask(at, name, |name, reply| Message::Delete { name, reply }).await
            };
            let (undone, deleted) = join(change(&world, at, name, Change::Undo { bookmark: None }), delete).await;
            let here = format!("{:?}", world.sql(at, name, "SELECT count(*) FROM t").await);
            assert!(deleted.is_err() || here.contains("NO_SUCH"), "{yields}: {undone:?}, {deleted:?}, {here}");
        }
    });
}
