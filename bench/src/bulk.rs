//! Databases of a size, and waiting until a server has folded what it was given.

use std::time::Duration;

use crate::clock;
use crate::hrana::Client;
use crate::rig::Rig;

/// Rows that one statement inserts: about 20 MB.
const ROWS_AT_ONCE: u64 = 20_000;
/// Rows of 800 random hexadecimal digits and a little: four to a page, that compress to about half.
const ROWS_PER_MIB: u64 = 1024;

pub const SCHEMA: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, v TEXT NOT NULL)";

/// How many rows [`fill`] inserts.
pub fn rows(mib: u64) -> u64 {
    mib * ROWS_PER_MIB
}

/// Creates the table and fills it until the database is about `mib` large. `n` of each row is its id modulo 977.
pub fn fill(client: &Client, mib: u64) -> anyhow::Result<()> {
    client.run(SCHEMA)?;
    let rows = rows(mib);
    for after in (0..rows).step_by(ROWS_AT_ONCE as usize) {
        let upto = (after + ROWS_AT_ONCE).min(rows);
        client.run(&format!(
            "WITH RECURSIVE ids(id) AS (SELECT {after} + 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {upto})
             INSERT INTO t SELECT id, id % 977, hex(randomblob(400)) FROM ids"
        ))?;
    }
    Ok(())
}

/// Waits until nothing but heartbeats has gone to the bucket for two seconds: what was due is folded, and collected.
pub fn wait_until_quiet(rig: &Rig) {
    let work = || {
        let counters = rig.emulator.counters();
        ["w", "x", "pack", "map", "head"].iter().map(|class| counters.of_class(*class).requests).sum::<u64>()
    };
    let mut before = work();
    loop {
        clock::pause(Duration::from_secs(2));
        let now = work();
        if now == before {
            return;
        }
        before = now;
    }
}
