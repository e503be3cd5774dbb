#![doc = include_str!("../README.md")]

pub mod books;
pub mod bucket;
pub mod clock;
#[cfg(feature = "docker")]
pub mod container;
pub mod dice;
pub mod fleet;
pub mod hrana;
pub mod ledger;
pub mod limits;
pub mod log;
pub mod minio;
pub mod rows;
pub mod settings;
pub mod shoal;
pub mod stream;
pub mod traffic;
pub mod value;
pub mod verify;
pub mod writer;

/// Tells the person who runs the tests something, past the test harness, which hides what a passing test
/// prints.
pub fn announce(text: &str) {
    use std::io::Write;
    // Nobody can be told that nobody can be told.
    let _ = writeln!(std::io::stderr(), "minio-tests: {text}");
}
