//! P9: over how many round trips does the first query of a small cold database go?

use std::time::Duration;

use crate::Options;
use crate::clock;
use crate::cold::{Cold, Cost};
use crate::raw::RawClient;
use crate::report::{Report, Value};
use crate::stats;

/// Compressed, as its rows are random.
const BODY_BYTES: u64 = 25_000;
const COUNT: &str = "SELECT count(*) FROM t";
/// Databases in each state. Two requests side by side may by chance look like two in sequence, never the other way
/// round, so the fewest count.
const DATABASES: usize = 3;
/// A database that nobody has used for a minute is looked at with the next heartbeat, and closed with the one after.
const UNTIL_CLOSED: Duration = Duration::from_secs(75);

pub fn run(options: &Options) -> anyhow::Result<Report> {
    let mut cold = Cold::start()?;
    let names: Vec<String> = (0..DATABASES).map(|number| format!("app-{number}")).collect();
    for name in &names {
        let client = cold.create(name)?;
        client.run("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")?;
        client.run(&format!("INSERT INTO t (body) VALUES (randomblob({BODY_BYTES}))"))?;
        cold.release(name)?;
    }
    let raw = RawClient::new(&cold.emulator)?;
    let mut values = Vec::new();

    cold.restart()?;
    let nobodys = fewest(&cold, &names, COUNT, 1)?;
    clock::pause(UNTIL_CLOSED);
    let known = fewest(&cold, &names, COUNT, 1)?;
    let raw_get = raw_get_millis(&cold, &raw, options.rounds)?;

    let new: Vec<String> = (0..DATABASES).map(|number| format!("new-{number}")).collect();
    new.iter().try_for_each(|name| cold.create(name).map(drop))?;
    let unknown = fewest(&cold, &new, "SELECT count(*) FROM sqlite_schema", 0)?;

    for name in &names {
        cold.client(name).run("INSERT INTO t (body) VALUES (NULL)")?;
    }
    cold.restart()?;
    // The first one finds the log; what it has read does for the others.
    let others = fewest(&cold, &names[..1], COUNT, 2)?;

    let cases = [
        ("name known, ours", known, 1.0),
        ("name not known, ours", unknown, 2.0),
        ("nobody's", nobodys, 3.0),
        ("a dead owner's, with its log", others, 4.0),
    ];
    for (case, cost, goal) in cases {
        println!("{case}: {}", cost.chain);
        values.push(Value::new(format!("{case}: round trips in sequence"), cost.round_trips as f64, "").exactly(goal));
        values.push(Value::new(format!("{case}: GETs"), cost.gets as f64, ""));
        values.push(Value::new(format!("{case}: answered after"), cost.millis, "ms"));
    }
    values.push(Value::new("a raw GET of a head, p50", raw_get, "ms"));
    Ok(Report::new("P9", "cold first query of a 25 KB database, over HTTP, at s3std", values))
}

/// The cheapest of the same query in databases in the same state.
fn fewest(cold: &Cold, names: &[String], sql: &str, expected: i64) -> anyhow::Result<Cost> {
    let mut costs = Vec::new();
    for name in names {
        let (found, cost) = cold.query(name, sql)?;
        anyhow::ensure!(found == expected, "{name} answers {found}, not {expected}");
        costs.push(cost);
    }
    Ok(costs.into_iter().min_by_key(|cost| cost.round_trips).expect("BUG: no databases"))
}

fn raw_get_millis(cold: &Cold, raw: &RawClient, rounds: u32) -> anyhow::Result<f64> {
    let head = cold.emulator.objects("t/").into_iter().find(|(key, _)| key.ends_with("/head"));
    let (key, head) = head.expect("there are databases");
    let part = [(key, 0..head.len() as u64)];
    cold.emulator.set_profile(emulator::Profile::s3std());
    let times = (0..rounds.max(7)).map(|_| raw.get_parts(&part, 1)).collect::<anyhow::Result<Vec<f64>>>();
    cold.emulator.set_profile(emulator::Profile::local());
    Ok(stats::median(&times?))
}
