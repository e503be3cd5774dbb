//! What a fork, and a look at the past, cost in requests.

use serde_json::json;

use crate::requests::{self, Requests, expected};
use crate::rig::Rig;

/// Without what the tail before a moment lies in.
fn without_packs(mut spent: Requests) -> Requests {
    spent.retain(|(_, class, _)| class != "pack");
    spent
}

fn total(spent: &Requests) -> u64 {
    spent.iter().map(|(_, _, count)| count).sum()
}

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

#[test]
fn a_restore_in_place_takes_at_most_six_requests_and_so_does_the_way_back() {
    let mut rig = Rig::start(&[]);
    for (database, rows) in [("small", 200), ("large", 8_000)] {
        let client = rig.create(database);
        client.run("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)");
        client.run(&format!(
            "WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {rows})
             INSERT INTO t SELECT id, randomblob(1000) FROM ids"
        ));
        client.run("UPDATE t SET body = 'new' WHERE id = 7");
        let show = |is: u64| assert_eq!(rig.client(database).run("SELECT count(*) FROM t"), [is.to_string()], "{database}");
        // Nothing is left to be folded, and it is this node's.
        rig.shoal().ask(database, "release", &json!({}));
        show(rows);
        rig.wait_until_quiet();

        let mut undo = String::new();
        let spent = rig.requests(|| {
            let restored = rig.shoal().ask(database, "restore", &json!({ "lsn": 1 }));
            restored["undo"].as_str().expect("a bookmark").clone_into(&mut undo);
        });
        // The pin, the child and what was there; the name, which was known.
        let spent = without_packs(spent);
        assert_eq!(requests::count(&spent, "put", "head"), 3, "{spent:?}");
        assert_eq!((requests::count(&spent, "get", "n"), requests::count(&spent, "put", "n")), (0, 1), "{spent:?}");
        assert!(total(&spent) <= 6, "{database}: {spent:?}");
        show(0);
        rig.wait_until_quiet();

        // What was there, read and pinned, with a base for what was never forked before; the child; and the rest as above.
        let way_back = [("put", "head", 3), ("put", "map", 1), ("put", "n", 1), ("get", "head", 1)];
        let spent = rig.requests(|| drop(rig.shoal().ask(database, "restore", &json!({ "bookmark": undo }))));
        assert_eq!(spent, expected(&way_back), "{database}");
        show(rows);
        rig.wait_until_quiet();

        // And back from there.
        let spent = rig.requests(|| drop(rig.shoal().ask(database, "undo", &json!({}))));
        assert_eq!(spent, expected(&way_back), "{database}");
        show(0);
    }
    // Another node has seen the names when it opened the databases.
    rig.restart_with_empty_cache();
    for (database, rows) in [("small", 200), ("large", 8_000)] {
        let show = |is: u64| assert_eq!(rig.client(database).run("SELECT count(*) FROM t"), [is.to_string()], "{database}");
        show(0);
        rig.wait_until_quiet();
        let spent = rig.requests(|| drop(rig.shoal().ask(database, "undo", &json!({}))));
        assert!(total(&without_packs(spent.clone())) <= 6, "{database}: {spent:?}");
        assert_eq!(requests::count(&spent, "get", "n"), 0, "{spent:?}");
        show(rows);
    }
}

#[test]
fn a_name_that_a_fold_has_written_meanwhile_is_not_asked_for_either() {
    let rig = Rig::start(&[]);
    let client = rig.create("app");
    client.run("CREATE TABLE t (id INTEGER PRIMARY KEY)");
    client.run("INSERT INTO t VALUES (1), (2)");
    rig.shoal().ask("app", "restore", &json!({ "lsn": 1 }));
    client.run("INSERT INTO t VALUES (3)");
    let undo = || rig.requests(|| drop(rig.shoal().ask("app", "undo", &json!({}))));
    // The first fold of what was restored looks whether the name says that it was made, and keeps the commit, with a base.
    // Then it is as above.
    let first = [("put", "head", 4), ("put", "map", 2), ("put", "n", 1), ("put", "pack", 1), ("get", "head", 1), ("get", "n", 1)];
    assert_eq!(undo(), expected(&first));
    assert_eq!(client.run("SELECT count(*) FROM t"), ["2"]);
    // Here it writes the name, for it no longer leads to the base that this began with.
    client.run("INSERT INTO t VALUES (4)");
    let spent = undo();
    assert_eq!((requests::count(&spent, "get", "n"), requests::count(&spent, "put", "n")), (1, 2), "{spent:?}");
    assert_eq!(client.run("SELECT count(*) FROM t"), ["1"]);
}
