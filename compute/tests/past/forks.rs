//! Forks, families, retention.

use serde_json::{Value, json};

use crate::rig::*;
use crate::support::*;

#[test]
fn a_fork_begins_with_the_state_of_now_or_of_then_and_goes_its_own_way() {
    let server = Server::dev();
    let app = server.database("app");
    let seen = history(&app, 14);
    changed(&server, "app/fork/now", &json!({}));
    changed(&server, "app/fork/then", &json!({ "lsn": seen[6].lsn }));
    changed(&server, "app/fork/at-a-time", &json!({ "timestamp": seen[9].time }));
    for (name, state) in [("now", &seen[13]), ("then", &seen[6]), ("at-a-time", &seen[9])] {
        let fork = server.unmade_database(name);
        assert_eq!(shown(&fork), state.shows, "{name}");
        let own = commit(&fork, "CREATE TABLE own (x)");
        assert_eq!(own.lsn, state.lsn + 1, "its history goes on from there");
        assert_eq!(shown(&at(&server, name, state.lsn)), state.shows);
    }
    assert_eq!(shown(&app), seen[13].shows);
    let taken = change(&server, "app/fork/now", &json!({}));
    taken.assert_refused(400, "SHOAL_CONFLICT", &["Namespace `now` already exists"]);
    change(&server, "nobody/fork/x", &json!({})).assert_refused(404, "SHOAL_NO_SUCH_DATABASE", &["nobody"]);
}

/// Bug: what its parent showed then was shown for it, and could be restored.
#[test]
fn a_time_before_a_fork_was_made_means_nothing_of_it() {
    let server = Server::dev();
    let app = server.database("app");
    let seen = history(&app, 4);
    // A database that had the name before, and was deleted, is not what the fork was then either.
    history(&server.database("fork"), 2);
    changed(&server, "fork/retention", &json!({ "retention": "0" }));
    assert_eq!(server.admin("DELETE", "v1/namespaces/fork").status, 200);
    let before = compute::moment::time_text(wait_for_a_moment());
    changed(&server, "app/fork/fork", &json!({}));
    let made = compute::moment::time_text(wait_for_a_moment());
    let fork = server.unmade_database("fork");
    let body = json!({ "requests": [execute("SELECT 1")] }).to_string();
    for is_changed in [false, true] {
        if is_changed {
            commit(&fork, "CREATE TABLE own (x)");
        }
        for time in [&seen[1].time, &seen[3].time, &before] {
            let then = at(&server, "fork", time).post("v2/pipeline", &body);
            then.assert_refused(400, "SHOAL_INVALID", &["before the retention window of `fork`"]);
            let restored = change(&server, "fork/restore", &json!({ "timestamp": time, "to": "copy" }));
            restored.assert_refused(400, "SHOAL_INVALID", &["before the retention window of `fork`"]);
        }
        assert_eq!(shown(&at(&server, "fork", &made)), seen[3].shows);
        assert_eq!(shown(&at(&server, "fork", seen[3].lsn)), seen[3].shows);
    }
}

#[test]
fn history_lists_every_commit_the_newest_first_in_pages() {
    let server = Server::dev();
    let app = server.database("app");
    let seen = history(&app, 23);
    let (mut found, mut before) = (Vec::new(), String::new());
    loop {
        let page = server.admin("GET", &format!("v1/namespaces/app/history?limit=5{before}")).json();
        let commits = page["history"].as_array().expect("commits").clone();
        assert!(commits.len() <= 5 && !commits.is_empty(), "{page}");
        found.extend(commits);
        match page["next"].as_u64() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    let lsns: Vec<u64> = found.iter().map(|commit| commit["lsn"].as_u64().expect("an LSN")).collect();
    let newest = seen[22].lsn;
    assert_eq!(lsns, (0..=newest).rev().collect::<Vec<_>>());
    for (state, commit) in seen.iter().rev().zip(&found) {
        assert_eq!(commit["lsn"], state.lsn);
        assert!(commit["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{commit}");
        // It was made before it was acknowledged, and that is not long ago.
        assert!(commit["time"].as_str().expect("a time") <= state.time.as_str(), "{commit} {state:?}");
        changed(&server, "app/restore", &json!({ "bookmark": commit["bookmark"], "to": format!("copy-{}", state.lsn) }));
        assert_eq!(shown(&server.unmade_database(&format!("copy-{}", state.lsn))), state.shows);
    }
}

#[test]
fn a_family_is_shown_from_its_first_database() {
    let server = Server::dev();
    history(&server.database("a"), 3);
    changed(&server, "a/fork/b", &json!({}));
    changed(&server, "b/fork/c", &json!({}));
    changed(&server, "a/fork/d", &json!({}));
    let answer = server.admin("GET", "v1/namespaces/c/tree").json();
    let tree = answer["tree"].as_array().expect("a list");
    let told: Vec<Value> = tree.iter().map(|it| json!([it["name"], it["depth"], it["this"]])).collect();
    assert_eq!(told, [json!(["a", 0, false]), json!(["b", 1, false]), json!(["c", 2, true]), json!(["d", 1, false])]);
    let parents: Vec<&Value> = tree.iter().map(|it| &it["parent"]).collect();
    let [a, b] = [0, 1].map(|at: usize| &tree[at]["database"]);
    assert_eq!(parents, [&Value::Null, a, b, a]);
    assert_eq!(answer["complete"], true);
    assert_eq!(server.admin("GET", "v1/namespaces/nobody/tree").status, 404);
}

#[test]
fn a_family_of_any_depth_is_shown() {
    const DEPTH: usize = 80;
    let server = Server::dev();
    let app = server.database("app");
    app.run("CREATE TABLE t (x)");
    // Each takes the place of the one before, which it begins with.
    for _ in 0..DEPTH {
        changed(&server, "app/restore", &json!({ "lsn": 1 }));
    }
    changed(&server, "app/fork/aside", &json!({}));
    let answer = server.admin("GET", "v1/namespaces/aside/tree").json();
    let tree = answer["tree"].as_array().expect("a list");
    assert_eq!((tree.len(), &answer["complete"]), (DEPTH + 2, &json!(true)));
    for (depth, (it, parent)) in tree.iter().skip(1).zip(tree).enumerate() {
        assert_eq!((&it["depth"], &it["parent"]), (&json!(depth + 1), &parent["database"]));
    }
    assert_eq!((&tree[DEPTH]["state"], &tree[DEPTH + 1]["this"]), (&json!("live"), &json!(true)));
}

#[test]
fn a_fork_of_the_empty_state_is_shown_where_it_is_asked_for() {
    let server = Server::serve(&[]);
    server.database("app");
    changed(&server, "app/fork/empty", &json!({}));
    let answer = server.admin("GET", "v1/namespaces/empty/tree").json();
    let told: Vec<&Value> = answer["tree"].as_array().expect("a list").iter().map(|it| &it["name"]).collect();
    assert_eq!(told, ["app", "empty"]);
}

#[test]
fn retention_is_of_the_server_until_it_is_set_for_a_database() {
    let server = Server::serve(&["--retention", "12h"]);
    server.database("app");
    let get = || server.admin("GET", "v1/namespaces/app/retention").json();
    assert_eq!(get(), json!({ "retention": "12h", "expires": null }));
    assert_eq!(changed(&server, "app/retention", &json!({ "retention": "7d" }))["retention"], "7d");
    assert_eq!(changed(&server, "app/retention", &json!({ "expires": "2999-01-01T00:00:00Z" }))["expires"], "2999-01-01T00:00:00Z");
    assert_eq!(get(), json!({ "retention": "7d", "expires": "2999-01-01T00:00:00Z" }));
    changed(&server, "app/retention", &json!({ "retention": 0, "expires": "never" }));
    assert_eq!(get(), json!({ "retention": "0", "expires": null }));
    assert_eq!(changed(&server, "app/retention", &json!({ "retention": "36500d" }))["retention"], "36500d");
    let long = json!({ "retention": "36501d" });
    change(&server, "app/retention", &long).assert_refused(400, "SHOAL_INVALID", &["at most 36500d"]);
    for bad in [json!({ "retention": "soon" }), json!({ "retention": 7 }), json!({ "retention": "1ms" }), json!({ "expires": "x" })] {
        change(&server, "app/retention", &bad).assert_refused(400, "SHOAL_INVALID", &["7d"]);
    }
    assert_eq!(server.admin("GET", "v1/namespaces/nobody/retention").status, 404);
}

#[test]
fn an_expiry_is_kept_with_the_fork() {
    let server = Server::dev();
    history(&server.database("app"), 3);
    changed(&server, "app/fork/short", &json!({ "expires": "2999-01-01T00:00:00Z" }));
    let answer = server.admin("GET", "v1/namespaces/short/retention").json();
    assert_eq!(answer, json!({ "retention": "1d", "expires": "2999-01-01T00:00:00Z" }));
    change(&server, "app/fork/x", &json!({ "expires": "2001-01-01T00:00:00Z" })).assert_refused(400, "SHOAL_INVALID", &["over"]);
}

#[test]
fn a_fork_whose_time_is_up_is_gone_by_itself() {
    // Nothing is created on first use here, which would be a new database of the same name.
    let server = Server::serve(&[]);
    let app = server.database("app");
    let seen = history(&app, 3);
    wait_until_after(fork_for_two_seconds(&server, "app", "brief"));
    let brief = server.unmade_database("brief");
    let answer = brief.post("v3/pipeline", json!({ "requests": [execute("SELECT 1")] }).to_string());
    answer.assert_refused(404, "SHOAL_NO_SUCH_DATABASE", &["brief"]);
    // Its name becomes free, which is not waited for by whoever is refused, and its parent is what it was.
    let is_free = (0..1000).any(|_| change(&server, "app/fork/brief", &json!({})).status == 200);
    assert!(is_free, "its name is still taken");
    assert_eq!((shown(&brief), shown(&app)), (seen[2].shows.clone(), seen[2].shows.clone()));
}

#[test]
fn the_name_of_a_fork_whose_time_is_up_is_free_for_whoever_wants_it() {
    let server = Server::serve(&[]);
    let app = server.database("app");
    let seen = history(&app, 3);
    // Nobody uses any of them until their time is up, so nothing has ended them.
    let names = ["told", "back", "made", "forked", "restored", "sent"];
    let ends = names.map(|name| fork_for_two_seconds(&server, "app", name));
    wait_until_after(ends[5]);
    for what in ["retention", "tree", "history"] {
        let answer = server.admin("GET", &format!("v1/namespaces/told/{what}"));
        answer.assert_refused(404, "SHOAL_NO_SUCH_DATABASE", &["`told`", "shoal db undelete told"]);
    }
    changed(&server, "back/undelete", &json!({}));
    assert_eq!(shown(&server.unmade_database("back")), seen[2].shows);
    let made = server.database("made");
    assert_eq!(made.rows("SELECT count(*) FROM sqlite_schema"), [json!([0])]);
    changed(&server, "app/fork/forked", &json!({ "lsn": seen[1].lsn }));
    assert_eq!(shown(&server.unmade_database("forked")), seen[1].shows);
    changed(&server, "app/restore", &json!({ "lsn": seen[0].lsn, "to": "restored" }));
    assert_eq!(shown(&server.unmade_database("restored")), seen[0].shows);
    let import = |method: &str, name: &str| {
        let query = if method == "POST" { format!("?bytes=4096&blake3={}", "0".repeat(64)) } else { String::new() };
        server.admin(method, &format!("v1/namespaces/{name}/import{query}"))
    };
    for method in ["GET", "POST"] {
        import(method, "app").assert_refused(409, "SHOAL_CONFLICT", &["there is a database `app` already"]);
    }
    assert_eq!(import("POST", "sent").status, 200);
    assert_eq!(import("GET", "sent").status, 200);
}

#[test]
fn streams_at_a_moment_end_with_their_database() {
    let server = Server::serve(&[]);
    let app = server.database("app");
    history(&app, 3);
    let store = json!([{ "type": "store_sql", "sql_id": 1, "sql": "SELECT count(*) FROM t" }]);
    let again = json!({ "requests": [{ "type": "execute", "stmt": { "sql_id": 1 } }] });
    // A stream with a stored text waits for its client for a minute.
    let stream_at = |name: &str| {
        let past = at(&server, name, 3);
        let opened = past.post("v3/pipeline", json!({ "requests": store }).to_string()).json();
        let again = again.clone();
        let go_on = move |baton: &Value| {
            let mut body = again.clone();
            body["baton"] = baton.clone();
            past.post("v3/pipeline", body.to_string())
        };
        let answer = go_on(&opened["baton"]);
        assert_eq!(rows_of(&answer.json()["results"][0]["response"]["result"]), [json!([2])], "{answer:?}");
        (answer.json()["baton"].clone(), go_on)
    };
    fork_for_two_seconds(&server, "app", "brief");
    let ended = fork_for_two_seconds(&server, "app", "saved");
    let (at_brief, at_saved) = (stream_at("brief"), stream_at("saved"));
    changed(&server, "saved/retention", &json!({ "expires": "never" }));
    wait_until_after(ended);
    let (baton, go_on) = at_brief;
    go_on(&baton).assert_refused(404, "SHOAL_NO_SUCH_DATABASE", &["brief"]);
    // Also when there is another database of that name, which is free once somebody has asked for the present.
    let present = server.unmade_database("brief").post("v3/pipeline", json!({ "requests": [execute("SELECT 1")] }).to_string());
    present.assert_refused(404, "SHOAL_NO_SUCH_DATABASE", &["brief"]);
    let is_free = (0..1000).any(|_| change(&server, "app/fork/brief", &json!({})).status == 200);
    assert!(is_free, "its name is still taken");
    assert_ne!(go_on(&baton).status, 200);
    let (baton, go_on) = at_saved;
    let answer = go_on(&baton);
    assert_eq!(answer.json()["results"][0]["type"], "ok", "it was given more time: {answer:?}");

    let (baton, go_on) = stream_at("app");
    assert_eq!(server.admin("DELETE", "v1/namespaces/app").status, 200);
    go_on(&baton).assert_refused(404, "SHOAL_NO_SUCH_DATABASE", &["app"]);
}
