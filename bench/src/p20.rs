//! P20: failover. An owner is killed with `kill -9` while a client writes; the client turns to the other node.
//! How long until the other one acknowledges a write, and over how many round trips? How much longer with many
//! databases, all wanted at once, and with a long log behind?

mod failover;
mod many;
mod recovery;

use std::time::Duration;

use crate::hrana::Client;
use crate::report::Report;
use crate::{Options, clock};

/// A client that was refused comes back after this.
const RETRY: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(30);

const SCHEMA: &str = "CREATE TABLE t (n INTEGER PRIMARY KEY, note TEXT NOT NULL)";

pub fn run(options: &Options) -> anyhow::Result<Report> {
    let mut values = failover::measure(options.kills)?;
    values.extend(many::measure(options.databases)?);
    values.extend(recovery::measure(options.log_seconds)?);
    Ok(Report::new("P20", "failover after kill -9 with a lease of 900 ms, s3std", values))
}

/// Repeats one write until it is acknowledged.
fn write_until_acknowledged(client: &Client, sql: &str) -> anyhow::Result<()> {
    let deadline = clock::now() + PATIENCE;
    while let Err(failure) = client.run(sql) {
        if clock::now() > deadline {
            return Err(failure.context("the other node does not take over"));
        }
        clock::pause(RETRY);
    }
    Ok(())
}
