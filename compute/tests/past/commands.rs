//! The same by `shoal db`.

use std::process::Command;

use serde_json::Value;

use crate::rig::*;
use crate::support::*;

/// What `shoal db …` prints, and whether it succeeds.
fn shoal(server: &Server, line: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
    command.args(["db", "--admin-url", &format!("http://{}", server.admin)]).args(line.split_whitespace());
    command.env("SHOAL_URL", server.url("")).env("NO_COLOR", "1");
    let output = command.output().expect("the built binary starts");
    let text = String::from_utf8(if output.status.success() { output.stdout } else { output.stderr }).expect("UTF-8");
    (output.status.success(), text)
}

#[track_caller]
fn prints(server: &Server, line: &str) -> String {
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
    prints(&server, "delete test --yes");
    prints(&server, "undelete test");
    assert_eq!(shown(&server.unmade_database("test")), after.shows);

    let (success, error) = shoal(&server, "restore app --time 2999-01-01T00:00:00Z --yes");
    assert!(!success && error.contains("in the future of `app`") && error.contains("LSN"), "{error}");
}
