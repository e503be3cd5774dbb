//! Requests of the administration plane that make one database out of another, and what they cost at the bucket.

use std::hash::{DefaultHasher, Hasher};
use std::io::Read;

use anyhow::Context;
use emulator::{JournalEntry, Operation, Profile};
use serde_json::Value as Json;

use crate::chain::Chain;
use crate::clock;
use crate::hrana;
use crate::rig::Rig;

/// What one request cost, in requests to names, heads, maps and packs: what a node does for itself does not count.
#[derive(Debug)]
pub struct Cost {
    pub puts: u64,
    pub gets: u64,
    /// Those of `puts` and `gets` that were for packs.
    pub of_packs: u64,
    /// Round trips in sequence.
    pub round_trips: u64,
    pub millis: f64,
    /// The requests that waited for each other.
    pub chain: String,
}

/// Does something while the store answers as `profile` says, and counts what that costs.
pub fn cost_of<T>(
    rig: &Rig,
    profile: Profile,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Cost)> {
    rig.emulator.set_profile(profile);
    rig.emulator.begin_journal();
    let (done, millis) = clock::millis(work);
    let journal = rig.emulator.end_journal();
    rig.emulator.set_profile(Profile::local());
    let done = done?;
    let ours: Vec<_> = journal.iter().filter(|entry| is_of_a_database(entry)).collect();
    let count = |operation: Operation| ours.iter().filter(|entry| entry.operation == operation).count() as u64;
    let of_packs = ours.iter().filter(|entry| entry.class.as_str() == "pack").count() as u64;
    let chain = Chain::of(ours.iter().copied());
    let (round_trips, chain) = (chain.round_trips() as u64, chain.to_string());
    let (puts, gets) = (count(Operation::Put), count(Operation::Get));
    Ok((done, Cost { puts, gets, of_packs, round_trips, millis, chain }))
}

fn is_of_a_database(entry: &JournalEntry) -> bool {
    ["n", "head", "map", "pack"].contains(&entry.class.as_str())
}

/// A request below `/v1/namespaces/`.
pub fn ask(rig: &Rig, path: &str, body: &Json) -> anyhow::Result<Json> {
    let url = format!("http://{}/v1/namespaces/{path}", rig.server().admin);
    let mut answer = hrana::agent().post(&url).send(body.to_string())?;
    let text = answer.body_mut().read_to_string()?;
    anyhow::ensure!(answer.status().is_success(), "{path}: {}: {text}", answer.status());
    serde_json::from_str(&text).with_context(|| format!("{path}: not JSON: {text}"))
}

/// A database as a file: its length, and a hash of all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub bytes: u64,
    hash: u64,
}

/// What a database, or a moment of one, holds, byte for byte.
pub fn content(rig: &Rig, name: &str) -> anyhow::Result<Content> {
    let url = format!("http://{}/db/{name}/export", rig.server().http);
    let mut answer = hrana::agent().get(&url).call()?;
    anyhow::ensure!(answer.status().is_success(), "cannot export `{name}`: {}", answer.status());
    let (mut reader, mut hasher, mut bytes) = (answer.body_mut().as_reader(), DefaultHasher::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            return Ok(Content { bytes, hash: hasher.finish() });
        }
        hasher.write(&buffer[..read]);
        bytes += read as u64;
    }
}
