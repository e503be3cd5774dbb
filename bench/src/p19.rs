//! P19: what does it cost to restore a large database to a moment, beside a small one, and is it exact?
//!
//! Each database gets a history of commits. After some of them all of it is exported; after a restore to one of these, by
//! LSN or by time, it is exported again, and must be the same file.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use emulator::Profile;
use serde_json::{Value as Json, json};

use crate::forks::{Content, Cost, ask, content, cost_of};
use crate::hrana::Client;
use crate::report::{Report, Value};
use crate::rig::Rig;
use crate::{Options, bulk, clock, stats};

/// Commits of each history after the load.
const COMMITS: u64 = 60;
/// Of which so many are gone back to.
const MOMENTS: u64 = 4;
/// Rows that each commit changes.
const ROWS: u64 = 50;
/// Name (read and written), base, pin, head of the child, head of the former one.
const REQUESTS_MAX: f64 = 6.0;

struct State {
    lsn: u64,
    time: String,
    content: Content,
}

pub fn run(options: &Options) -> anyhow::Result<Report> {
    let rig = Rig::start()?;
    let mut values = vec![Value::new("the large database", options.megabytes as f64, "MiB")];
    for (name, mib) in [("small", 1), ("large", options.megabytes)] {
        bulk::fill(&Client::new(rig.create(name)?), mib)?;
        rig.server().release(name)?;
        let (states, last) = history(&rig, name, mib)?;
        values.extend(restored(&rig, name, &states, last)?);
    }
    Ok(Report::new("P19", "restores in place of a large database beside those of one of 1 MiB, at s3std", values))
}

/// Writes to a database, and keeps some of its states in mind, and the last. Folds come when they do.
fn history(rig: &Rig, name: &str, mib: u64) -> anyhow::Result<(Vec<State>, Content)> {
    let client = Client::new(rig.server().url(name));
    let mut states = Vec::new();
    for number in 0..COMMITS {
        let first = number * 9_973 % bulk::rows(mib);
        let lsn = client.commit(&format!(
            "UPDATE t SET n = n + 1, v = hex(randomblob(400)) WHERE id BETWEEN {first} AND {}",
            first + ROWS
        ))?;
        if number % (COMMITS / MOMENTS) == COMMITS / MOMENTS / 2 {
            states.push(State { lsn, time: now(), content: content(rig, name)? });
        }
        // No two commits have the same time.
        clock::pause(Duration::from_millis(2));
    }
    client.run("DELETE FROM t WHERE id % 2 = 0 AND id < 1000")?;
    // Nothing is left to be folded; and this node owns it again, by a read.
    rig.server().release(name)?;
    Ok((states, content(rig, name)?))
}

/// Restores to each state, under a new name by time, and in place: the first by LSN, the others by their bookmarks, as
/// the name leads to another database by then. Then the way back.
fn restored(rig: &Rig, name: &str, states: &[State], last: Content) -> anyhow::Result<Vec<Value>> {
    let mut wrong = 0;
    let mut check = |name: &str, expected: Content| {
        content(rig, name).map(|found| wrong += u64::from(found != expected))
    };
    let (mut aside, mut in_place) = (Vec::new(), Vec::new());
    let mut first: Option<String> = None;
    for (number, state) in states.iter().enumerate() {
        let to = format!("{name}-{number}");
        aside.push(restore(rig, name, &json!({ "timestamp": state.time, "to": to }))?.1);
        check(&to, state.content)?;
    }
    for state in states {
        let moment = match &first {
            None => json!({ "lsn": state.lsn }),
            Some(undo) => json!({ "bookmark": bookmark(undo, state.lsn)? }),
        };
        let (answer, cost) = restore(rig, name, &moment)?;
        anyhow::ensure!(answer["lsn"] == state.lsn, "restored to {answer}, not to {}", state.lsn);
        let undo = answer["undo"].as_str().context("a restore without a way back")?;
        first.get_or_insert_with(|| undo.to_owned());
        check(name, state.content)?;
        in_place.push(cost);
    }
    let undo = first.context("nothing was restored")?;
    let (_, undone) = restore(rig, name, &json!({ "bookmark": undo }))?;
    check(name, last)?;
    let others = |cost: &Cost| (cost.puts + cost.gets - cost.of_packs) as f64;
    let packs = |cost: &Cost| cost.of_packs as f64;
    let most = |costs: &[Cost], of: fn(&Cost) -> f64| costs.iter().map(of).fold(0.0, f64::max);
    let p50 = |costs: &[Cost]| stats::median(&costs.iter().map(|cost| cost.millis).collect::<Vec<_>>());
    Ok(vec![
        Value::new(format!("{name}: restored states that are not what they were"), wrong as f64, "").exactly(0.0),
        Value::new(format!("{name}: restored states, the way back included"), (2 * states.len() + 1) as f64, ""),
        Value::new(format!("{name}: requests of a restore in place, most"), most(&in_place, others), "").at_most(REQUESTS_MAX),
        Value::new(format!("{name}: and for packs of the tail, most"), most(&in_place, packs), ""),
        Value::new(format!("{name}: requests of a restore aside, most"), most(&aside, others), "").at_most(REQUESTS_MAX),
        Value::new(format!("{name}: and for packs of the tail, most"), most(&aside, packs), ""),
        Value::new(format!("{name}: requests of the way back"), others(&undone), "").at_most(REQUESTS_MAX),
        Value::new(format!("{name}: a restore in place, p50"), p50(&in_place), "ms"),
        Value::new(format!("{name}: a restore aside, p50"), p50(&aside), "ms"),
        Value::new(format!("{name}: the way back"), undone.millis, "ms"),
    ])
}

fn restore(rig: &Rig, name: &str, moment: &Json) -> anyhow::Result<(Json, Cost)> {
    let restored = cost_of(rig, Profile::s3std(), || ask(rig, &format!("{name}/restore"), moment))?;
    println!("{name} to {moment}: {}, {:.0} ms", restored.1.chain, restored.1.millis);
    Ok(restored)
}

/// Another moment of the database of a bookmark.
fn bookmark(of: &str, lsn: u64) -> anyhow::Result<String> {
    let (database, _) = of.rsplit_once('-').context("not a bookmark")?;
    Ok(format!("{database}-{lsn}"))
}

/// By this machine's clock, which is the server's, too.
#[expect(clippy::disallowed_methods, reason = "the server's clock is the real one")]
fn now() -> String {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros();
    compute::moment::time_text(u64::try_from(micros).expect("before the year 500,000"))
}
