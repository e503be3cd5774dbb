//! `shoal verify` as a process: what it ends with, and what it says.

use std::process::Stdio;

use serde_json::Value as Json;

use crate::bucket::Bucket;
use crate::shoal;

/// What one check came to.
#[derive(Debug)]
pub struct Verified {
    /// What it ended with.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Checks a bucket, with more arguments.
pub fn verify(bucket: &Bucket, arguments: &[&str]) -> Verified {
    let url = bucket.store_url();
    verify_with(&[&["--store", &url], arguments].concat(), bucket.credentials())
}

/// Checks what the arguments say.
///
/// # Panics
/// If it cannot be started.
pub fn verify_with(arguments: &[&str], credentials: Option<(String, String)>) -> Verified {
    let mut command = shoal::command();
    if let Some((access, secret)) = credentials {
        command.env("AWS_ACCESS_KEY_ID", access).env("AWS_SECRET_ACCESS_KEY", secret);
    }
    let output = command.arg("verify").args(arguments).stdin(Stdio::null()).output().expect("the built binary starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Verified { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

impl Verified {
    /// What it found, if that was asked for with `--output json`.
    ///
    /// # Panics
    /// If it says something else.
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The lines of text that begin so.
    pub fn lines<'s>(&'s self, beginning: &str) -> Vec<&'s str> {
        self.stdout.lines().filter(|line| line.starts_with(beginning)).collect()
    }
}
