//! What a commit, a read and the first use of a database cost in requests.

use std::thread;

use crate::requests::{self, expected, is_of_folds};
use crate::rig::Rig;

const ONE_MORE: &str = "UPDATE t SET n = n + 1 WHERE id = 1";

fn counter_table(rig: &Rig, database: &str) -> crate::client::Client {
    let client = rig.create(database);
    client.run("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, body TEXT)");
    client.run("INSERT INTO t VALUES (1, 0, ''), (2, 0, '')");
    client
}

/// What folds cost when nothing is to be kept of the past.
const WITHOUT_HISTORY: [&str; 2] = ["--retention", "0"];

#[test]
fn a_commit_is_one_put_to_the_log_and_no_other_request() {
    let rig = Rig::start(&[]);
    let client = counter_table(&rig, "app");
    // So few that no fold is due.
    let spent = rig.requests(|| {
        for _ in 0..50 {
            client.run(ONE_MORE);
        }
    });
    assert_eq!(spent, expected(&[("put", "w", 50)]));
    assert_eq!(client.run("SELECT n FROM t WHERE id = 1"), ["50"]);
}

#[test]
fn a_transaction_is_one_put_however_many_statements_and_requests_it_has() {
    let rig = Rig::start(&[]);
    let client = counter_table(&rig, "app");
    let spent = rig.requests(|| {
        let first = client.pipeline(None, &["BEGIN IMMEDIATE", ONE_MORE, ONE_MORE]);
        let second = client.pipeline(first.baton.as_deref(), &[ONE_MORE]);
        client.pipeline(second.baton.as_deref(), &[ONE_MORE, "COMMIT"]);
    });
    assert_eq!(spent, expected(&[("put", "w", 1)]));
    let spent = rig.requests(|| {
        client.run_all(&["BEGIN IMMEDIATE", ONE_MORE, "ROLLBACK"]);
        client.run("UPDATE t SET n = 9 WHERE id = 77");
    });
    assert_eq!(spent, expected(&[]), "nothing was changed, so there is nothing to log");
    assert_eq!(client.run("SELECT n FROM t WHERE id = 1"), ["4"]);
}

#[test]
fn writers_at_the_same_time_never_cost_more_than_one_put_each() {
    let rig = Rig::start(&[]);
    counter_table(&rig, "app");
    let spent = rig.requests(|| {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let client = rig.client("app");
                    for _ in 0..20 {
                        client.run(ONE_MORE);
                    }
                });
            }
        });
    });
    let puts = requests::count(&spent, "put", "w");
    assert!((1..=160).contains(&puts), "{spent:?}");
    assert_eq!(spent, expected(&[("put", "w", puts)]));
    assert_eq!(rig.client("app").run("SELECT n FROM t WHERE id = 1"), ["160"]);
}

#[test]
fn cached_reads_cost_nothing() {
    let rig = Rig::start(&[]);
    let client = counter_table(&rig, "app");
    let spent = rig.requests(|| {
        for _ in 0..200 {
            assert_eq!(client.run("SELECT n FROM t WHERE id = 2"), ["0"]);
        }
        client.run_all(&["BEGIN", "SELECT count(*) FROM t", "COMMIT"]);
        assert_eq!(client.cursor(&["SELECT n FROM t"]).filter(|entry| entry["type"] == "row").count(), 2);
    });
    assert_eq!(spent, expected(&[]));
}

#[test]
fn folds_come_on_top_and_are_all_that_does() {
    const COMMITS: u64 = 300;
    let rig = Rig::start(&WITHOUT_HISTORY);
    let client = counter_table(&rig, "app");
    let spent = rig.requests(|| {
        for _ in 0..COMMITS {
            client.run("UPDATE t SET n = n + 1, body = hex(randomblob(500)) WHERE id = 1");
        }
        rig.wait_until_quiet();
    });
    let commits = requests::count(&spent, "put", "w");
    let folds = requests::count(&spent, "put", "head");
    assert_eq!(commits, COMMITS, "{spent:?}");
    assert!(folds >= 2, "so much was written that folds were due: {spent:?}");
    assert_eq!(requests::count(&spent, "put", "pack"), 0, "a small database has no object but its head: {spent:?}");
    let mut others = spent;
    others.retain(|it| (it.0, it.1.as_str()) != ("put", "w") && !is_of_folds(it));
    assert_eq!(others, expected(&[("put", "n", 1), ("get", "n", 1)]), "the first fold notes that the database was made");
    assert_eq!(client.run("SELECT n FROM t WHERE id = 1"), [COMMITS.to_string()]);
}

#[test]
fn a_database_that_outgrows_its_head_gets_a_pack_with_each_fold_and_loses_them_when_it_shrinks() {
    let rig = Rig::start(&WITHOUT_HISTORY);
    let client = counter_table(&rig, "app");
    let change = |sql: &str| {
        rig.requests(|| {
            client.run(sql);
            rig.wait_until_quiet();
        })
    };
    // With its first fold it is noted in the name that the database was made.
    client.run("INSERT INTO t(n, body) VALUES (1, randomblob(100000))");
    rig.wait_until_quiet();
    for _ in 0..2 {
        let mut spent = change("INSERT INTO t(n, body) VALUES (1, randomblob(100000))");
        // Slots of the log that it makes superfluous go some time.
        spent.retain(|(operation, ..)| *operation != "delete");
        assert_eq!(spent, expected(&[("put", "head", 1), ("put", "pack", 1), ("put", "w", 1)]));
    }
    client.run("DELETE FROM t WHERE id > 2");
    client.run("VACUUM");
    let rewrite = || {
        rig.requests(|| {
            for _ in 0..15 {
                client.run("UPDATE t SET body = randomblob(6000) WHERE id = 1");
            }
            rig.wait_until_quiet();
        })
    };
    // What was folded before is still in the way of the first one.
    rewrite();
    let spent = rewrite();
    assert_eq!((requests::count(&spent, "put", "head"), requests::count(&spent, "put", "pack")), (1, 0), "{spent:?}");
    let keys: Vec<String> = rig.emulator.objects("t/").into_iter().map(|(key, _)| key).collect();
    assert!(keys.len() == 1 && keys[0].ends_with("/head"), "it is back in its head: {keys:?}");
    assert_eq!(client.run("SELECT sum(length(body)) FROM t"), ["6000"]);
}

#[test]
fn a_database_is_created_and_first_used_with_a_fixed_few_requests() {
    let rig = Rig::start(&[]);
    let names = ["a", "b", "c"];
    let spent = rig.requests(|| names.iter().for_each(|name| rig.shoal().create(name)));
    assert_eq!(requests::count(&spent, "put", "n") + requests::count(&spent, "put", "head"), 6, "{spent:?}");
    assert!(spent.iter().map(|it| it.2).sum::<u64>() <= 9, "no more than a look at the name on top: {spent:?}");

    let spent = rig.requests(|| {
        for name in names {
            rig.client(name).run("CREATE TABLE t (id INTEGER PRIMARY KEY)");
        }
    });
    assert_eq!(spent, expected(&[("put", "w", 3), ("get", "head", 3), ("get", "n", 3)]));
}

#[test]
fn after_a_restart_a_database_costs_its_name_its_head_and_one_cas() {
    let mut rig = Rig::start(&[]);
    let names = ["a", "b", "c"];
    for name in names {
        rig.create(name).run("CREATE TABLE t (id INTEGER PRIMARY KEY)");
    }
    rig.restart_with_empty_cache();
    let mut spent = rig.requests(|| {
        for name in names {
            assert_eq!(rig.client(name).run("SELECT count(*) FROM t"), ["0"]);
        }
    });
    // The former node's record and its log of three commits are read on top, for all databases together.
    let of_the_former_node = ["inc", "w"];
    let logged = requests::count(&spent, "get", "w");
    assert!((1..=3).contains(&logged), "{spent:?}");
    spent.retain(|(_, class, _)| !of_the_former_node.contains(&class.as_str()));
    assert_eq!(spent, expected(&[("put", "head", 3), ("get", "head", 3), ("get", "n", 3)]));
}

#[test]
fn what_was_just_folded_is_read_from_memory() {
    let rig = Rig::start(&[]);
    let client = counter_table(&rig, "app");
    let folded = rig.requests(|| {
        client.run(
            "WITH RECURSIVE ids(id) AS (SELECT 3 UNION ALL SELECT id + 1 FROM ids WHERE id < 8000)
             INSERT INTO t SELECT id, 1, hex(randomblob(250)) FROM ids",
        );
        rig.wait_until_quiet();
    });
    assert_eq!(requests::count(&folded, "put", "head"), 1, "the commit is larger than a tail may be: {folded:?}");
    let spent = rig.requests(|| assert_eq!(client.run("SELECT sum(n) FROM t"), ["7998"]));
    assert_eq!(spent, expected(&[]));
}

#[test]
fn a_fold_that_keeps_its_commits_puts_one_pack_more() {
    let rig = Rig::start(&[]);
    let client = counter_table(&rig, "app");
    let spent = rig.requests(|| {
        for _ in 0..150 {
            client.run("UPDATE t SET n = n + 1, body = hex(randomblob(500)) WHERE id = 1");
        }
        rig.wait_until_quiet();
    });
    let (folds, packs) = (requests::count(&spent, "put", "head"), requests::count(&spent, "put", "pack"));
    assert!(folds >= 1 && packs == folds, "the pack of a small database has its commits and nothing else: {spent:?}");
}
