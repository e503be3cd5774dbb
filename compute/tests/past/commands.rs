//! The same by `shoal db`.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::rig::*;
use crate::support::*;

/// Where `shoal db …` ends. Its stdin is no terminal.
fn output(server: &Server, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
    command.args(["db", "--admin-url", &format!("http://{}", server.admin)]).args(line.split_whitespace());
    command.env("SHOAL_URL", server.url("")).env("NO_COLOR", "1");
    command.output().expect("the built binary starts")
}

/// What `shoal db …` prints, and whether it succeeds.
pub fn shoal(server: &Server, line: &str) -> (bool, String) {
    let output = output(server, line);
    let text = String::from_utf8(if output.status.success() { output.stdout } else { output.stderr }).expect("UTF-8");
    (output.status.success(), text)
}

#[track_caller]
pub fn prints(server: &Server, line: &str) -> String {
    let (success, text) = shoal(server, line);
    assert!(success, "{line}: {text}");
    text
}

#[test]
fn the_command_line_forks_restores_undoes_and_compares() {
    let server = Server::dev();
    let app = server.database("app");
    let seen = history(&app, 6);
    let after = commit(&app, "DROP TABLE t");
    let (old, new) = (&seen[5], after.lsn);

    let diff = prints(&server, &format!("diff app@{} app@{new}", old.lsn));
    assert!(diff.contains("- table t\n"), "{diff}");
    let same = prints(&server, &format!("diff app@{} app", new));
    assert_eq!(same, "no difference in schema or row counts\n");

    let restored = prints(&server, &format!("restore app --lsn {} --yes", old.lsn));
    assert!(restored.contains("shoal db undo app --bookmark"), "{restored}");
    assert_eq!(shown(&app), old.shows);
    let undone: Value = serde_json::from_str(&prints(&server, "undo app --output json")).expect("JSON");
    assert_eq!(undone["name"], "app");
    assert_eq!(shown(&app), after.shows);

    prints(&server, "fork app test --expires 7d");
    assert!(prints(&server, "tree app").contains("  test at LSN"));
    assert!(prints(&server, "retention test").starts_with("retention 1d\nexpires   2"));
    let deleted = prints(&server, "delete test --yes");
    for part in ["deleted test\n", "shoal db undelete test\n", "shoal db restore test --bookmark "] {
        assert!(deleted.contains(part), "{deleted}");
    }
    prints(&server, "undelete test");
    assert_eq!(shown(&server.unmade_database("test")), after.shows);

    let (success, error) = shoal(&server, "restore app --time 2999-01-01T00:00:00Z --yes");
    assert!(!success && error.contains("in the future of `app`") && error.contains("LSN"), "{error}");
}

#[test]
fn what_is_hard_to_take_back_is_refused_where_nobody_can_be_asked() {
    let server = Server::dev();
    let app = server.database("app");
    let seen = history(&app, 3);
    changed(&server, "app/fork/test", &json!({}));
    for line in ["delete app", "restore app --lsn 1", "reset test", "delete app --output json"] {
        let refused = output(&server, line);
        let error = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{line}: {error}");
        assert!(error.contains("--yes") && error.contains("Nothing was done") && refused.stdout.is_empty(), "{error}");
    }
    assert_eq!(shown(&app), seen[2].shows);
    assert!(prints(&server, "restore app --lsn 1 --to copy").contains("copy is at LSN 1"), "nothing is replaced");
    let deleted: Value = serde_json::from_str(&prints(&server, "delete app --yes --output json")).expect("JSON");
    assert_eq!(deleted["deleted"], "app");
    let bookmark = deleted["bookmark"].as_str().expect("a bookmark");
    server.database("app").run("CREATE TABLE other (x)");
    prints(&server, &format!("restore app --bookmark {bookmark} --yes"));
    assert_eq!(shown(&app), seen[2].shows);
}

#[test]
fn a_history_of_no_commits_is_not_asked_for() {
    let server = Server::dev();
    history(&server.database("app"), 2);
    let refused = output(&server, "history app --limit 0");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--limit"), "{refused:?}");
}
