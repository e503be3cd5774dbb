//! Unmodified clients of libSQL run the same scripted application against a server, and find what a plain SQLite
//! says they should.
//!
//! | file | what |
//! |---|---|
//! | `script` | what a scripted application consists of |
//! | `application` | the application: schema, values, arguments, transactions, batches, errors |
//! | `sqlite` | what it must come to, by SQLite |
//! | `app.mjs`, `app.py`, `rust/` | programs that carry the script out with `@libsql/client`, Python's and Rust's `libsql` |
//! | `language` | how they are started, and what their drivers cannot do |
//! | `outcome`, `value` | what they print |
//! | `past`, `query.mjs` | one statement at a URL that names a moment |
//! | `replica` | the same programs at a node that only reads what another one owns |
//!
//! The drivers are installed outside of the repository by `.ci/clients`, in `$SHOAL_CLIENTS_DIR` (by default
//! `~/.cache/shoal-ci/clients`). A client that is not installed is skipped, and said to be; with
//! `SHOAL_REQUIRE_CLIENTS=1` it is a failure.

mod application;
mod language;
mod outcome;
mod past;
mod replica;
mod script;
mod sqlite;
#[path = "../support/mod.rs"]
mod support;
mod value;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use language::Language;
use outcome::Outcome;
use support::Server;

#[test]
fn javascript_finds_what_sqlite_says() {
    check(Language::JavaScript);
}

#[test]
fn python_finds_what_sqlite_says() {
    check(Language::Python);
}

#[test]
fn rust_finds_what_sqlite_says() {
    check(Language::Rust);
}

fn clients_directory() -> PathBuf {
    let named = std::env::var_os("SHOAL_CLIENTS_DIR").map(PathBuf::from);
    named.unwrap_or_else(|| {
        let home = std::env::var_os("HOME").expect("HOME, or else SHOAL_CLIENTS_DIR");
        PathBuf::from(home).join(".cache/shoal-ci/clients")
    })
}

/// Says so if it is not.
fn is_installed(language: Language) -> bool {
    let clients = clients_directory();
    if !language.is_installed(&clients) {
        let missing =
            format!("{language:?}'s client is not installed in {}: run `bash .ci/clients`", clients.display());
        assert!(std::env::var_os("SHOAL_REQUIRE_CLIENTS").is_none_or(|value| value != "1"), "{missing}");
        // Written rather than printed: the test harness keeps to itself what passing tests print.
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: {missing}\n");
        return false;
    }
    true
}

fn check(language: Language) {
    let clients = clients_directory();
    if !is_installed(language) {
        return;
    }
    let mut server = Server::dev();
    let steps = language.can_send(application::steps());
    let found = carry_out(language, &clients, &server.database("app").url, server.directory(), &steps);
    let expected = sqlite::run(&steps);
    assert_eq!(found.len(), steps.len(), "the application stopped early");
    for ((step, (name, found)), expected) in steps.iter().zip(&found).zip(expected) {
        assert_eq!(name, step.name);
        assert_eq!(found.len(), expected.len(), "outcomes of {name}");
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            let expected = language.can_tell(&step.action, expected);
            let found = language.can_tell(&step.action, found.clone());
            assert!(
                found.is_as(&expected),
                "{language:?}, {name}, {index}:\n   found {found:?}\nexpected {expected:?}"
            );
        }
    }
    server.assert_well();
}

/// Runs the application and reads what it prints: the name and the outcomes of each step.
fn carry_out(
    language: Language,
    clients: &Path,
    url: &str,
    directory: &Path,
    steps: &[script::Step],
) -> Vec<(String, Vec<Outcome>)> {
    let file = directory.join("script.json");
    let script: serde_json::Value = steps.iter().map(script::Step::to_json).collect();
    std::fs::write(&file, script.to_string()).expect("a file for the script");
    let mut command = language.command(clients, url, &file);
    let output = command.stdin(Stdio::null()).output().expect("the installed application starts");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{language:?}'s application failed: {}\n{errors}", output.status);
    let read = |line: &str| {
        let json: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let outcomes = json["outcomes"].as_array().expect("outcomes").iter().map(Outcome::from_json).collect();
        (json["name"].as_str().expect("a name").to_owned(), outcomes)
    };
    printed.lines().map(read).collect()
}
