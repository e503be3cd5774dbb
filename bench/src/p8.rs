//! P8: in process, through our VFS, against the same build of SQLite on a plain file.
//!
//! Both sides run the very same function with the same statements and keys, on a connection with SQLite's own page
//! cache at the same size, a small part of the database: so most pages come through the VFS. Ours is a connection as
//! production opens it, in a coroutine on its core. The other is `unix`, whose file the operating system has cached.
//!
//! *Update* is one commit per row. What our commit hands to the log is awaited after the clock has stopped, as P1
//! measures that; the other side's equivalent is `synchronous = OFF`, `journal_mode = MEMORY`: also there a commit ends
//! when others see it, and what makes it durable comes later.

mod ours;
mod plain;
mod work;

use self::ours::Ours;
use self::plain::Plain;
use self::work::{Spent, Work};
use crate::Options;
use crate::report::{Report, Value};
use crate::stats::median;

/// Turns that each side has in a round: short ones, so that a busy machine treats both alike.
const TURNS: u64 = 5;

/// What is compared, how much of it in a turn, and how fast we want to be.
const CASES: [(&str, Work, u64, Option<f64>); 6] = [
    ("point select", Work::Select, 3_000, Some(0.92)),
    ("update", Work::Update, 1_000, Some(0.90)),
    ("scan", Work::Scan, 1, Some(0.97)),
    ("range of 100 rows", Work::Range, 300, None),
    ("point select, from its text", Work::SelectText, 3_000, None),
    ("update, from its text", Work::UpdateText, 1_000, None),
];

pub fn run(options: &Options) -> anyhow::Result<Report> {
    let (ours, plain) = (Ours::start()?, Plain::open()?);
    let mut values = Vec::new();
    for (name, work, count, goal) in CASES {
        values.extend(compare(options.rounds, &ours, &plain, (name, work, count, goal))?);
    }
    values.push(Value::new("size of the database", plain.bytes()? as f64 / (1 << 20) as f64, "MiB"));
    ours.check()?;
    Ok(Report::new("P8", "speed in process through our VFS ÷ SQLite on a plain file, memory store", values))
}

fn compare(
    rounds: u32,
    ours: &Ours,
    plain: &Plain,
    (name, work, count, goal): (&str, Work, u64, Option<f64>),
) -> anyhow::Result<Vec<Value>> {
    let mut first_key = 0;
    let mut turn = || -> anyhow::Result<(Spent, Spent)> {
        let spent = (ours.run(work, first_key, count)?, plain.run(work, first_key, count)?);
        first_key += count;
        anyhow::ensure!(spent.0.sum == spent.1.sum, "{name}: {} rows' sum is not {}", spent.0.sum, spent.1.sum);
        Ok(spent)
    };
    turn()?;
    let (mut ratios, mut cpu_ratios, mut our_micros, mut their_micros) = (vec![], vec![], vec![], vec![]);
    for _ in 0..rounds {
        let (mut us, mut them) = (Spent::default(), Spent::default());
        for _ in 0..TURNS {
            let (our, their) = turn()?;
            us += our;
            them += their;
        }
        ratios.push(them.seconds / us.seconds);
        cpu_ratios.push(them.cpu_seconds / us.cpu_seconds);
        let micros = |spent: Spent| spent.cpu_seconds * 1e6 / (count * TURNS) as f64;
        our_micros.push(micros(us));
        their_micros.push(micros(them));
    }
    let ratio = Value::new(format!("{name}: our speed ÷ SQLite's"), median(&ratios), "×");
    Ok(vec![
        goal.into_iter().fold(ratio, Value::at_least),
        Value::new(format!("{name}: by CPU time of the thread"), median(&cpu_ratios), "×"),
        Value::new(format!("{name}: CPU time, ours"), median(&our_micros), "µs"),
        Value::new(format!("{name}: CPU time, SQLite's"), median(&their_micros), "µs"),
    ])
}
