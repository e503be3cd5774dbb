//! The order of the crates, enforced: each uses those before it, never one after, and each has things that it
//! must not know.
//!
//! What a crate depends on, Cargo says; the rest is looked for in the source ([`source`]), in what is built into
//! the product. Tests may know more than what they test.

mod rules;
mod source;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::rules::{CRATES, CrateRules};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The names of what the crate is built from, without what only its tests use.
fn dependencies(metadata: &Value, name: &str) -> Vec<String> {
    let packages = metadata["packages"].as_array().expect("packages");
    let package = packages.iter().find(|package| package["name"] == name).unwrap_or_else(|| panic!("no crate {name}"));
    let all = package["dependencies"].as_array().expect("dependencies").iter();
    all.filter(|it| it["kind"] != "dev").map(|it| it["name"].as_str().expect("a name").to_owned()).collect()
}

fn metadata() -> Value {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).current_dir(workspace());
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Whatever is wrong with a crate's source, one line each.
fn scan(rules: &CrateRules) -> Vec<String> {
    let root = workspace().join(rules.name).join("src");
    let files = source::product_files(&root);
    assert!(files.len() > 3, "{}: the scan has lost its way: {files:?}", root.display());
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file");
        wrong.extend(rules.check(&source::product_tokens(&text)).into_iter().map(|it| format!("{}: {it}", file.display())));
    }
    wrong
}

#[test]
fn each_crate_depends_only_on_those_before_it_and_not_on_what_it_must_not_know() {
    let metadata = metadata();
    for (index, rules) in CRATES.iter().enumerate() {
        let found = dependencies(&metadata, rules.name);
        assert!(!found.is_empty(), "{}: Cargo names no dependency", rules.name);
        for name in &found {
            let is_later = CRATES[index..].iter().any(|later| later.name == *name);
            let is_beside = ["emulator", "minio-tests", "bench"].contains(&name.as_str());
            let is_forbidden = rules.forbidden_dependencies.iter().any(|prefix| name.starts_with(prefix));
            assert!(!is_later && !is_beside && !is_forbidden, "{} must not depend on {name}", rules.name);
        }
    }
}

#[test]
fn no_crate_speaks_of_what_it_must_not_know() {
    let wrong: Vec<String> = CRATES.iter().flat_map(scan).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The test above could pass because it sees nothing; so here is something for each of its rules.
#[test]
fn the_scan_finds_each_kind_of_mistake() {
    let of = |name: &str| CRATES.iter().find(|rules| rules.name == name).expect("a crate of the product");
    for (name, mistake) in [
        ("walstore", "fn f(page_no: u32) {}"),
        ("walstore", "use rusqlite::Connection;"),
        ("walstore", "struct SqliteHeader;"),
        ("segments", "use walstore::lease::Lease;"),
        ("segments", "use walstore::{id::Lsn, life::Incarnation};"),
        ("segments", "fn f() { tenant::name::Name::parse(\"x\"); }"),
        ("tenant", "fn f() { std::thread::spawn(|| ()); }"),
        ("tenant", "use http::StatusCode;"),
        ("tenant", "trait VfsFile {}"),
        ("pageserver", "fn run_sql() {}"),
        ("compute", "fn f() -> Key { Key::new(text) }"),
        ("compute", r##"fn f() { format!("w/{slot}"); }"##),
        ("compute", r##"const X: &str = r#"inc/"#;"##),
        ("compute", r#"#[cfg(not(test))] const X: &str = "t/";"#),
    ] {
        let found = of(name).check(&source::product_tokens(mistake));
        assert!(!found.is_empty(), "{name}: not noticed: {mistake}");
    }
    for (name, innocent) in [
        ("walstore", "/* page_no /* sqlite */ */ fn f<'sqlite>() -> &'static str { \"page_no\" } // rusqlite"),
        ("walstore", "#[cfg(test)] mod tests { fn page_no() { let brace = '}'; } } fn after() {}"),
        ("tenant", "use walstore::store::Store;"),
        ("compute", r#"fn f() { "text/plain"; "/w/"; 'w'; b"content"; }"#),
        ("compute", r#"#[cfg(test)] #[expect(x)] fn f() { Key::new("w/x") }"#),
    ] {
        assert_eq!(of(name).check(&source::product_tokens(innocent)), Vec::<String>::new(), "{innocent}");
    }
    // What follows a test module is product again.
    let after = "#[cfg(test)] mod tests { fn f() {} } fn page_no() {}";
    assert_eq!(of("walstore").check(&source::product_tokens(after)).len(), 1);
}
