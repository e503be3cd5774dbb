//! P18: what does a fork of a large database cost, beside one of a small database? What do ten thousand of them take in
//! the bucket, and how does a fork of a fork of a fork … open?

use std::time::Duration;

use anyhow::Context;
use emulator::Profile;
use serde_json::json;

use crate::forks::{Cost, ask, cost_of};
use crate::hrana::Client;
use crate::report::{Report, Value};
use crate::rig::Rig;
use crate::scatter::scattered;
use crate::{Options, bulk, clock, stats};

/// Until the server takes its databases for idle, and has given dead space back.
const IDLE: Duration = Duration::from_secs(75);
const SIDES: [&str; 2] = ["small", "large"];
/// Forks of each that are timed, for every round that is asked for.
const PAIRS_PER_ROUND: u32 = 9;
const DEPTH: u64 = 100;
/// Two requests side by side may by chance look like two in sequence, never the other way round: the fewest count.
const OPENINGS: u64 = 3;
/// The name's record, the base, the parent's pin, the child's head.
const PUTS_MAX: f64 = 4.0;
const GETS_MAX: f64 = 2.0;
const TIME_RATIO_MAX: f64 = 1.1;
const BYTES_PER_FORK_MAX: f64 = 2048.0;

pub fn run(options: &Options) -> anyhow::Result<Report> {
    let mut rig = Rig::start()?;
    for (name, mib) in SIDES.into_iter().zip([1, options.megabytes]) {
        bulk::fill(&Client::new(rig.create(name)?), mib)?;
        rig.server().release(name)?;
        read(&rig, name, 1, mib)?;
    }
    bulk::wait_until_quiet(&rig);
    let mut values = vec![Value::new("the large database", options.megabytes as f64, "MiB")];
    values.extend(firsts(&rig)?);
    let pairs = u64::from(options.rounds * PAIRS_PER_ROUND);
    values.extend(timed(&rig, "again", pairs, Profile::s3std(), false)?);
    values.extend(timed(&rig, "without the store's time", pairs, Profile::local(), false)?);
    values.extend(timed(&rig, "after a commit", pairs, Profile::s3std(), true)?);
    values.extend(many(&rig, options)?);
    values.extend(chain(&mut rig, options.megabytes)?);
    Ok(Report::new("P18", "forks of a large database beside those of one of 1 MiB, at s3std", values))
}

/// Tells the fork's id.
fn fork(rig: &Rig, of: &str, to: &str) -> anyhow::Result<String> {
    let answer = ask(rig, &format!("{of}/fork/{to}"), &json!({}))?;
    answer["database"].as_str().map(str::to_owned).context("a fork without an id")
}

/// Reads a row, and checks it.
fn read(rig: &Rig, name: &str, row: u64, mib: u64) -> anyhow::Result<()> {
    let id = scattered(row) % bulk::rows(mib) + 1;
    let sql = format!("SELECT n * 1000 + length(v) FROM t WHERE id = {id}");
    let found = Client::new(rig.server().url(name)).number(&sql)?;
    anyhow::ensure!(found == (id % 977 * 1000 + 800) as i64, "row {id} of `{name}` reads as {found}");
    Ok(())
}

/// The first fork of each, of a state that is folded and has no base yet.
fn firsts(rig: &Rig) -> anyhow::Result<Vec<Value>> {
    let mut values = Vec::new();
    for name in SIDES {
        let (_, cost) = cost_of(rig, Profile::s3std(), || fork(rig, name, &format!("{name}-first")))?;
        println!("the first fork of the {name} one: {}, {:.0} ms", cost.chain, cost.millis);
        values.push(Value::new(format!("{name}: PUTs of the first fork"), cost.puts as f64, "").at_most(PUTS_MAX));
        values.push(Value::new(format!("{name}: GETs of the first fork"), cost.gets as f64, "").at_most(GETS_MAX));
    }
    Ok(values)
}

/// Forks of both in turns. `written`: each after a commit, which has to be folded for it.
fn timed(rig: &Rig, case: &str, pairs: u64, profile: Profile, written: bool) -> anyhow::Result<Vec<Value>> {
    let mut costs: [Vec<Cost>; 2] = [Vec::new(), Vec::new()];
    let letters: String = case.chars().filter(char::is_ascii_lowercase).collect();
    for pair in 0..pairs {
        // What comes second is not always the same.
        for side in if pair % 2 == 0 { [0, 1] } else { [1, 0] } {
            let name = SIDES[side];
            if written {
                let sql = format!("UPDATE t SET v = hex(randomblob(400)) WHERE id = {}", pair + 1);
                Client::new(rig.server().url(name)).run(&sql)?;
            }
            let to = format!("{name}-{letters}-{pair}");
            costs[side].push(cost_of(rig, profile, || fork(rig, name, &to))?.1);
        }
    }
    let median_of = |side: usize, of: fn(&Cost) -> f64| stats::median(&costs[side].iter().map(of).collect::<Vec<_>>());
    let ratio = median_of(1, |cost| cost.millis) / median_of(0, |cost| cost.millis);
    let mut values = Vec::new();
    for (side, name) in SIDES.into_iter().enumerate() {
        println!("{case}, {name}: {}", costs[side][0].chain);
        let (puts, gets) = (median_of(side, |cost| cost.puts as f64), median_of(side, |cost| cost.gets as f64));
        let goal = PUTS_MAX + f64::from(u8::from(written));
        values.push(Value::new(format!("{name}: PUTs of a fork {case}, p50"), puts, "").at_most(goal));
        values.push(Value::new(format!("{name}: GETs of a fork {case}, p50"), gets, "").at_most(GETS_MAX));
        values.push(Value::new(format!("{name}: a fork {case}, p50"), median_of(side, |cost| cost.millis), "ms"));
    }
    let ratio = Value::new(format!("time of a fork {case}, large ÷ small, p50"), ratio, "");
    // A fold of a large database may have more to write, and without the store's time nothing but chance is left.
    values.push(if written || profile == Profile::local() { ratio } else { ratio.at_most(TIME_RATIO_MAX) });
    Ok(values)
}

/// Objects that belong to databases, and names.
fn bytes_kept(rig: &Rig) -> u64 {
    let of = |prefix: &str| rig.emulator.objects(prefix).iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    of("t/") + of("n/")
}

fn many(rig: &Rig, options: &Options) -> anyhow::Result<Vec<Value>> {
    // What was loaded is compacted once it is idle, and what that replaces is kept for the retention: not for the forks.
    clock::pause(IDLE);
    bulk::wait_until_quiet(rig);
    let before = bytes_kept(rig);
    let (ids, millis) = clock::millis(|| {
        let ids = (0..options.forks).map(|number| fork(rig, "large", &format!("many-{number}")));
        ids.collect::<anyhow::Result<Vec<String>>>()
    });
    let each = (bytes_kept(rig) - before) as f64 / options.forks as f64;
    for number in (0..options.forks).step_by((options.forks / 10).max(1) as usize) {
        read(rig, &format!("many-{number}"), number, options.megabytes)?;
    }
    let last = ids?.pop().map_or(0, |last| heads(rig, &format!("{last}/head")).into_iter().sum::<usize>());
    let parent = heads(rig, "/head").into_iter().max().unwrap_or(0);
    Ok(vec![
        Value::new("forks of the large one", options.forks as f64, ""),
        Value::new("bytes in the bucket for each of them, names and pins included", each, "").at_most(BYTES_PER_FORK_MAX),
        Value::new("bytes of the head of one", last as f64, ""),
        Value::new("bytes of their parent's head, which is the largest", parent as f64, ""),
        Value::new("made in", millis / 1000.0, "s"),
    ])
}

/// The bytes of heads whose keys end in this.
fn heads(rig: &Rig, suffix: &str) -> Vec<usize> {
    let heads = rig.emulator.objects("t/").into_iter().filter(|(key, _)| key.ends_with(suffix));
    heads.map(|(_, bytes)| bytes.len()).collect()
}

/// A fork of a fork of a fork, opened by a node that knows nothing.
fn chain(rig: &mut Rig, mib: u64) -> anyhow::Result<Vec<Value>> {
    let name = |depth: u64| if depth == 0 { "large".to_owned() } else { format!("deep-{depth}") };
    for depth in 0..DEPTH {
        fork(rig, &name(depth), &name(depth + 1))?;
    }
    let mut values = Vec::new();
    let mut root = None;
    for depth in [0, 1, DEPTH] {
        let mut costs = Vec::new();
        for round in 0..OPENINGS {
            // Nobody's, so nobody has to know of the former server.
            rig.server().release(&name(depth))?;
            rig.restart_without_cache()?;
            costs.push(cost_of(rig, Profile::s3std(), || read(rig, &name(depth), round, mib))?.1);
        }
        let cost = costs.into_iter().min_by_key(|cost| cost.round_trips).context("nothing was opened")?;
        println!("first read, {depth} deep: {}", cost.chain);
        let value = Value::new(format!("round trips of a cold read, {depth} forks deep"), cost.round_trips as f64, "");
        values.push(if depth == 0 { value } else { value.at_most(root.unwrap_or(0.0)) });
        root = root.or(Some(cost.round_trips as f64));
    }
    Ok(values)
}
