//! The clients of one round.

use std::thread;

use minio_tests::dice::Dice;
use minio_tests::hrana::Database;
use minio_tests::ledger::Ledger;
use minio_tests::writer::{InFlight, Writer};

const CLIENTS_PER_DATABASE: usize = 4;
/// Requests that are in flight at each kill.
pub const IN_FLIGHT_MIN: usize = 8;
/// Requests that are sent, once so many are in flight, before a server is told to end.
pub const SENT_BEFORE_THE_END: usize = 300;
/// Refusals that are part of normal life under load.
const REFUSALS: [&str; 5] = ["SQLITE_BUSY", "SHOAL_UNAVAILABLE", "SHOAL_CLOSED", "STREAM_EXPIRED", ""];

/// What a round leaves: for each database what its clients know, and the server's log.
pub struct Ended {
    pub ledgers: Vec<Ledger>,
    pub log: Vec<String>,
}

/// Lets clients write until `end` has ended the server; its result is the server's log.
pub fn under(databases: &[Database], round: u64, dice: &Dice, end: impl FnOnce(&InFlight) -> Vec<String>) -> Ended {
    let in_flight = InFlight::default();
    thread::scope(|scope| {
        let numbers = 0..databases.len() * CLIENTS_PER_DATABASE;
        let clients: Vec<_> = numbers
            .map(|number| {
                let database = number % databases.len();
                let writer = Writer::new(round, number, dice, &in_flight);
                (database, scope.spawn(move || write_until_the_end(writer, &databases[database])))
            })
            .collect();
        let log = end(&in_flight);
        let mut ledgers = vec![Ledger::default(); databases.len()];
        for (database, client) in clients {
            ledgers[database].absorb(client.join().expect("a client panicked"));
        }
        Ended { ledgers, log }
    })
}

/// Writes until the server is gone. A refusal that is not part of normal life ends the test.
fn write_until_the_end(mut writer: Writer<'_>, database: &Database) -> Ledger {
    loop {
        match writer.transact(database) {
            Ok(_) => {}
            Err(failure) if failure.is_silence() => return writer.ledger,
            Err(failure) => assert!(REFUSALS.contains(&failure.code()), "a client was told: {failure}"),
        }
    }
}
