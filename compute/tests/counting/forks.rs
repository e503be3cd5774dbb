//! What a fork, and a look at the past, cost in requests.

use crate::requests::expected;
use crate::rig::Rig;

#[test]
fn forks_of_small_and_large_databases_cost_the_same() {
    let rig = Rig::start(&[]);
    // The page map of the small one stands in its head whole. The tail touches one part of the large one's.
    for (database, rows, map_chunks) in [("small", 200, 0), ("large", 8_000, 1)] {
        let client = rig.create(database);
        client.run("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)");
        client.run(&format!(
            "WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {rows})
             INSERT INTO t SELECT id, randomblob(1000) FROM ids"
        ));
        // Whatever is folded by itself is folded now, and this is not.
        rig.wait_until_quiet();
        client.run("UPDATE t SET body = 'new' WHERE id = 7");

        let [tailed, folded] = ["with-a-tail", "without"].map(|fork| format!("{database}-{fork}"));
        // The name, what of the tail was not folded, the base that both have from now on, the pin, and the child.
        let spent = rig.requests(|| rig.shoal().fork(database, &tailed));
        let puts = [("put", "head", 2), ("put", "map", 1 + map_chunks), ("put", "n", 1), ("put", "pack", 1)];
        assert_eq!(spent, expected(&puts), "{database}");
        // There is a base by now, so this is one less than the four of a first one.
        let spent = rig.requests(|| rig.shoal().fork(database, &folded));
        assert_eq!(spent, expected(&[("put", "head", 2), ("put", "n", 1)]), "{database}");

        let last = "SELECT count(*) || ':' || (SELECT body FROM t WHERE id = 7) FROM t";
        client.run("DELETE FROM t WHERE id > 3");
        for fork in [tailed, folded] {
            assert_eq!(rig.client(&fork).run(last), [format!("{rows}:new")]);
        }
    }
}

#[test]
fn looking_at_what_is_not_folded_yet_stores_nothing() {
    let rig = Rig::start(&[]);
    let client = rig.create("app");
    client.run("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)");
    for id in 1..20 {
        client.run(&format!("INSERT INTO t VALUES ({id}, randomblob(1000))"));
    }
    let spent = rig.requests(|| {
        for lsn in 1..=20 {
            assert_eq!(rig.client(&format!("app@{lsn}")).run("SELECT count(*) FROM t"), [(lsn - 1).to_string()]);
        }
    });
    assert_eq!(spent, expected(&[]));
}
