//! Dead space that an owner leaves behind.

use super::*;

/// An owner that gives a database up right after it was written has compacted nothing. Whoever has it next, if only to read
/// it, does so when it lies idle, and once.
#[test]
fn the_next_owner_gives_back_what_the_former_one_has_left() {
    tell(async |mut world| {
        let settings = || Settings { retention: Duration::ZERO, ..Settings::default() };
        let former = world.start(settings(), Duration::ZERO).await;
        let next = world.start(settings(), Duration::ZERO).await;
        let id = world.create(former, "app").await;
        world.fill(former, "app").await;
        world.folded(former, "app").await;
        world.run(former, "app", "UPDATE t SET body = randomblob(3000) WHERE rowid % 3 = 0").await;
        world.folded(former, "app").await;
        world.ask(former, "app", |name, reply| Message::Release { name, reply }).await.expect("released");
        world.run(next, "app", "SELECT count(*) FROM t").await;
        let before = world.head(id).await;
        let mut minutes = 0;
        while world.head(id).await.map == before.map {
            sleep(60 * SECOND).await;
            minutes += 1;
            assert!(minutes < 180, "it is never compacted");
        }
        sleep(600 * SECOND).await;
        let after = world.head(id).await;
        assert_eq!((after.owner, after.folded), (before.owner, before.folded));
        sleep(7200 * SECOND).await;
        assert_eq!(world.head(id).await.version, after.version, "and then there is nothing to do");
        let sum = world.run(next, "app", "SELECT sum(length(body)) FROM t").await;
        assert!(sum.to_string().contains("\"900000\""), "{sum}");
    });
}
