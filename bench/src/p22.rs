//! P22: how many bytes are put over time, folds and merges included, against what SQLite's WAL writes for the same
//! statements? And what is left in the bucket, against a fresh image of the same pages?
//!
//! Several databases, each with one client that writes row by row: updates, inserts, deletes, and now and then a
//! transaction of twenty rows. The same statements go to SQLite in WAL mode, whose WAL is measured before it is truncated.

mod mirror;

use std::thread;
use std::time::{Duration, Instant};

use emulator::{Operation, Profile};

use self::mirror::{Mirror, STATEMENTS_MIN, schema, statement};
use crate::hrana::Client;
use crate::report::{Report, Value};
use crate::rig::Rig;
use crate::{Options, bulk, clock};

const DATABASES: u64 = 4;
/// Until the server takes its databases for idle, and gives dead space back.
const IDLE: Duration = Duration::from_secs(75);
/// For the log's slots to be deleted, after the folds: renewals of the lease do that.
const COLLECT: Duration = Duration::from_secs(15);

const PUT_RATIO_MAX: f64 = 1.5;
const LIVE_RATIO_MAX: f64 = 1.3;

pub fn run(options: &Options) -> anyhow::Result<Report> {
    // Nothing is to be kept for restores.
    let rig = Rig::start_with(&["--retention", "0"])?;
    let mut sides = Vec::new();
    for number in 0..DATABASES {
        let (client, mirror) = (Client::new(rig.create(&name(number))?), Mirror::open()?);
        for sql in schema() {
            client.run(&sql)?;
            mirror.load(&sql)?;
        }
        sides.push((client, mirror));
    }
    bulk::wait_until_quiet(&rig);
    rig.emulator.set_profile(Profile::s3std());
    let deadline = clock::now() + Duration::from_secs(options.minutes * 60);
    let (commits, spent) = rig.count(|| {
        thread::scope(|scope| {
            let numbered = (0..).zip(&mut sides);
            let threads: Vec<_> =
                numbered.map(|(number, side)| scope.spawn(move || write(number, side, deadline))).collect();
            let commits = threads.into_iter().map(|thread| thread.join().expect("BUG: a client panicked"));
            commits.sum::<anyhow::Result<u64>>()
        })
    })?;
    rig.emulator.set_profile(Profile::local());
    // Segments with dead space are put anew, and what is not folded yet once more by the last fold.
    let ((), folding) = rig.count(|| {
        clock::pause(IDLE);
        bulk::wait_until_quiet(&rig);
        (0..DATABASES).try_for_each(|number| rig.server().release(&name(number)))?;
        clock::pause(COLLECT);
        Ok(())
    })?;

    let put = |class: &str| {
        (spent.get(Operation::Put, class).bytes + folding.get(Operation::Put, class).bytes) as f64
    };
    let all = (spent.of_operation(Operation::Put).bytes + folding.of_operation(Operation::Put).bytes) as f64;
    let wal = sides.iter().map(|(_, mirror)| mirror.wal_bytes).sum::<u64>() as f64;
    let images = sides.iter().map(|(_, mirror)| mirror.fresh_image_bytes()).sum::<anyhow::Result<u64>>()? as f64;
    let live = |prefix: &str| rig.emulator.objects(prefix).iter().map(|(_, object)| object.len()).sum::<usize>() as f64;
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    Ok(Report::new("P22", "bytes PUT ÷ bytes of SQLite's WAL, and what is left ÷ a fresh image, mixed load, s3std", vec![
        Value::new("bytes PUT ÷ bytes of SQLite's WAL", all / wal, "×").at_most(PUT_RATIO_MAX),
        Value::new("bytes in the bucket after collection ÷ a fresh image", live("") / images, "×")
            .at_most(LIVE_RATIO_MAX),
        Value::new("PUT in all", mib(all), "MiB"),
        Value::new("PUT to the log", mib(put("w") + put("x") + put("b")), "MiB"),
        Value::new("PUT in packs and page maps", mib(put("pack") + put("map")), "MiB"),
        Value::new("PUT in heads", mib(put("head")), "MiB"),
        Value::new("SQLite's WAL", mib(wal), "MiB"),
        Value::new("left in the bucket", mib(live("")), "MiB"),
        Value::new("of this below t/ (packs, page maps, heads)", mib(live("t/")), "MiB"),
        Value::new("fresh images", mib(images), "MiB"),
        Value::new("commits", commits as f64, ""),
        Value::new("minutes", options.minutes as f64, ""),
    ]))
}

fn name(number: u64) -> String {
    format!("mixed-{number}")
}

/// Writes to both until the time is up, at least so much that there is something to compare.
fn write(number: u64, (client, mirror): &mut (Client, Mirror), deadline: Instant) -> anyhow::Result<u64> {
    let mut commits = 0;
    while clock::now() < deadline || commits < STATEMENTS_MIN {
        let sql = statement(number << 40 | commits);
        client.run(&sql)?;
        mirror.run(&sql)?;
        commits += 1;
    }
    mirror.truncate()?;
    Ok(commits)
}
