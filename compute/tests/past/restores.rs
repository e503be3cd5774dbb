//! Restore, undo, reset, undelete.

use serde_json::json;

use crate::rig::*;
use crate::support::*;

#[test]
fn a_dropped_table_is_back_under_the_same_url_and_undo_takes_that_back() {
    let server = Server::dev();
    let app = server.database("app");
    let seen = history(&app, 12);
    let before = seen.last().expect("states").clone();
    let after = commit(&app, "DROP TABLE t");
    assert_eq!(shown(&at(&server, "app", before.lsn)), before.shows);

    let restored = changed(&server, "app/restore", &json!({ "lsn": before.lsn }));
    assert_eq!((&restored["name"], &restored["lsn"]), (&json!("app"), &json!(before.lsn)));
    assert_eq!(shown(&app), before.shows);
    let written = commit(&app, "INSERT INTO t VALUES (77, 'after the restore', NULL)");
    assert!(written.lsn > before.lsn);

    // The history of what was replaced is there by its bookmarks, by URL too.
    let former = restored["undo"].as_str().expect("a bookmark");
    assert_eq!(shown(&at(&server, "app", former)), after.shows);

    let undone = changed(&server, "app/undo", &json!({}));
    assert_eq!(shown(&app), after.shows);
    let again = changed(&server, "app/undo", &json!({}));
    assert_eq!(shown(&app), written.shows, "undo of an undo");
    assert_ne!(undone["undo"], again["undo"]);
    // Any bookmark goes as well as the last one.
    changed(&server, "app/restore", &json!({ "bookmark": restored["undo"] }));
    assert_eq!(shown(&app), after.shows);
}

#[test]
fn a_restore_to_a_time_or_under_a_new_name_is_exact_and_leaves_the_rest_alone() {
    let server = Server::dev();
    let app = server.database("app");
    let seen = history(&app, 16);
    let present = shown(&app);
    for (number, state) in seen.iter().enumerate().step_by(4) {
        let name = format!("copy-{number}");
        let answer = changed(&server, "app/restore", &json!({ "timestamp": state.time, "to": name }));
        assert_eq!((&answer["name"], &answer["undo"]), (&json!(name), &json!(null)));
        let copy = server.unmade_database(&name);
        assert_eq!(shown(&copy), state.shows, "LSN {}", state.lsn);
        commit(&copy, "CREATE TABLE own (x)");
    }
    assert_eq!(shown(&app), present);
    let naive = seen[5].time.trim_end_matches('Z');
    changed(&server, "app/restore", &json!({ "timestamp": naive }));
    assert_eq!(shown(&app), seen[5].shows, "a naive time is in UTC");
}

/// Whatever has had the name since: a time means what its URL showed then, and an LSN what led to the present state.
#[test]
fn moments_from_before_a_restore_in_place_are_found() {
    let server = Server::dev();
    let app = server.database("app");
    let first = history(&app, 10);
    changed(&server, "app/restore", &json!({ "lsn": first[5].lsn }));
    let second = [7, 8].map(|x| commit(&app, &format!("INSERT INTO t VALUES (900{x}, 'second', NULL)")));
    changed(&server, "app/undo", &json!({}));
    let third = [1, 2].map(|x| commit(&app, &format!("INSERT INTO t VALUES (900{x}, 'third', NULL)")));
    for seen in first.iter().chain(&second).chain(&third) {
        assert_eq!(shown(&at(&server, "app", &seen.time)), seen.shows, "{}", seen.time);
    }
    // The third goes on from the end of the first.
    for seen in first.iter().chain(&third) {
        assert_eq!(shown(&at(&server, "app", seen.lsn)), seen.shows, "LSN {}", seen.lsn);
    }
    changed(&server, "app/restore", &json!({ "timestamp": second[0].time }));
    assert_eq!(shown(&app), second[0].shows);
    changed(&server, "app/restore", &json!({ "timestamp": first[2].time, "to": "copy" }));
    assert_eq!(shown(&server.unmade_database("copy")), first[2].shows);
    changed(&server, "app/undo", &json!({}));
    assert_eq!(shown(&app), third[1].shows);
    changed(&server, "app/restore", &json!({ "lsn": first[8].lsn }));
    assert_eq!(shown(&app), first[8].shows);
    changed(&server, "app/restore", &json!({ "lsn": first[1].lsn }));
    assert_eq!(shown(&app), first[1].shows);
}

#[test]
fn moments_from_before_a_deletion_are_found_once_it_is_taken_back() {
    let server = Server::dev();
    let app = server.database("app");
    let seen = history(&app, 6);
    changed(&server, "app/fork/test", &json!({ "lsn": seen[2].lsn }));
    let answer = request("DELETE", &format!("http://{}/v1/namespaces/app", server.admin), &[], b"").expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    let gone = compute::moment::time_text(wait_for_a_moment());
    changed(&server, "app/undelete", &json!({}));
    let after = commit(&app, "INSERT INTO t VALUES (77, 'after', NULL)");
    for seen in seen.iter().chain([&after]) {
        assert_eq!(shown(&at(&server, "app", &seen.time)), seen.shows);
        assert_eq!(shown(&at(&server, "app", seen.lsn)), seen.shows);
    }
    changed(&server, "test/reset", &json!({}));
    assert_eq!(shown(&server.unmade_database("test")), after.shows, "its parent is there again");
    let refused = change(&server, "app/restore", &json!({ "timestamp": gone }));
    assert!(refused.status == 400 && refused.json()["error"].to_string().contains("there was no `app`"), "{refused:?}");
}

#[test]
fn a_restored_database_and_its_history_outlast_the_process() {
    let mut server = Server::dev();
    let app = server.database("app");
    let seen = history(&app, 10);
    changed(&server, "app/restore", &json!({ "lsn": seen[4].lsn }));
    let written = commit(&app, "INSERT INTO t VALUES (99, 'new', NULL)");
    server.restart();
    assert_eq!(shown(&app_of(&server)), written.shows);
    changed(&server, "app/undo", &json!({}));
    assert_eq!(shown(&app_of(&server)), seen[9].shows);
}

fn app_of(server: &Server) -> Database {
    server.unmade_database("app")
}

#[test]
fn reset_brings_a_fork_to_what_its_parent_has_now() {
    let server = Server::dev();
    let app = server.database("app");
    history(&app, 8);
    changed(&server, "app/fork/test", &json!({}));
    let test = server.unmade_database("test");
    commit(&test, "DELETE FROM t");
    let newer = commit(&app, "INSERT INTO t VALUES (500, 'newer', NULL)");
    let reset = changed(&server, "test/reset", &json!({}));
    assert_eq!(shown(&test), newer.shows);
    assert!(reset["undo"].is_string());
    changed(&server, "test/undo", &json!({}));
    assert_eq!(test.rows("SELECT count(*) FROM t"), [json!([0])]);
    changed(&server, "test/undo", &json!({}));
    assert_eq!(shown(&test), newer.shows);
    commit(&test, "INSERT INTO t VALUES (501, 'of the fork', NULL)");
    assert_eq!(shown(&app), newer.shows);
    change(&server, "app/reset", &json!({})).assert_refused(400, "SHOAL_INVALID", &["no fork"]);
}

#[test]
fn a_deleted_database_is_brought_back() {
    let server = Server::dev();
    let app = server.database("app");
    let seen = history(&app, 9);
    change(&server, "app/undelete", &json!({})).assert_refused(409, "SHOAL_CONFLICT", &["not deleted"]);
    assert_eq!(server.admin("DELETE", "v1/namespaces/app").status, 200);
    changed(&server, "app/undelete", &json!({}));
    assert_eq!(shown(&app), seen[8].shows);
    commit(&app, "INSERT INTO t VALUES (1001, 'on', NULL)");
    change(&server, "nobody/undelete", &json!({})).assert_refused(404, "SHOAL_NO_SUCH_DATABASE", &["nobody"]);
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let server = Server::dev();
    let app = server.database("app");
    let seen = history(&app, 6);
    server.database("other").run("CREATE TABLE t (x, y)");
    let newest = seen[5].lsn;
    for (body, words) in [
        (json!({}), "restore to when"),
        (json!({ "lsn": newest + 5 }), "in the future"),
        (json!({ "lsn": 1, "timestamp": "2026-11-21T20:15:00Z" }), "not two"),
        (json!({ "timestamp": "yesterday" }), "no moment"),
        (json!({ "bookmark": "5" }), "no bookmark"),
        (json!({ "bookmark": "000102030405060708090a0b0c0d0e0f-1" }), "no former database"),
        (json!({ "tiemstamp": "2026-11-21T20:15:00Z" }), "tiemstamp"),
    ] {
        change(&server, "app/restore", &body).assert_refused(400, "SHOAL_INVALID", &[words]);
    }
    let taken = change(&server, "app/restore", &json!({ "lsn": newest, "to": "other" }));
    taken.assert_refused(400, "SHOAL_CONFLICT", &["Namespace `other` already exists"]);
    change(&server, "app/undo", &json!({})).assert_refused(400, "SHOAL_INVALID", &["nothing to undo"]);
    change(&server, "nobody/restore", &json!({ "lsn": 1 })).assert_refused(404, "SHOAL_NO_SUCH_DATABASE", &["nobody"]);
    assert_eq!(shown(&app), seen[5].shows);
    commit(&app, "INSERT INTO t VALUES (1002, 'still there', NULL)");
}
