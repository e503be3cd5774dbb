//! The clients of one round.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use minio_tests::clock;
use minio_tests::dice::Dice;
use minio_tests::hrana::{Database, Failure, Outcome};
use minio_tests::ledger::{Ledger, TransactionId};
use minio_tests::limits::REQUEST;
use minio_tests::rows;
use minio_tests::stream::Stream;

const CLIENTS_PER_DATABASE: usize = 4;
/// Requests that are in flight at each kill.
const IN_FLIGHT_MIN: usize = 8;
/// Refusals that are part of normal life under load.
const REFUSALS: [&str; 5] = ["SQLITE_BUSY", "SHOAL_UNAVAILABLE", "SHOAL_CLOSED", "STREAM_EXPIRED", ""];

/// Ids tell round, client and number, so that no two clients use one twice.
pub fn first_id(round: u64) -> TransactionId {
    i64::try_from(round << 32).expect("fewer rounds")
}

/// What a round leaves: for each database what its clients know, and the server's log.
pub struct Ended {
    pub ledgers: Vec<Ledger>,
    pub log: Vec<String>,
}

/// Counts requests that were sent and not answered yet.
#[derive(Default)]
pub struct InFlight(AtomicUsize);

impl InFlight {
    fn during<T>(&self, request: impl FnOnce() -> T) -> T {
        self.0.fetch_add(1, Ordering::Relaxed);
        let result = request();
        self.0.fetch_sub(1, Ordering::Relaxed);
        result
    }

    /// Returns at a moment at which enough requests are in flight.
    pub fn wait_for_many(&self) {
        let many = || (self.0.load(Ordering::Relaxed) >= IN_FLIGHT_MIN).then_some(());
        clock::poll(REQUEST, many).expect("the clients have requests in flight");
    }
}

/// Lets clients write until `end` has ended the server; its result is the server's log.
pub fn under(databases: &[Database], round: u64, dice: &Dice, end: impl FnOnce(&InFlight) -> Vec<String>) -> Ended {
    let in_flight = InFlight::default();
    thread::scope(|scope| {
        let in_flight = &in_flight;
        let client = |(database, number): (usize, usize)| {
            let client = Client {
                database: &databases[database],
                in_flight,
                dice: dice.split(1 + number as u64),
                next_id: first_id(round) | i64::try_from(number << 24).expect("a few clients"),
                ledger: Ledger::default(),
            };
            (database, scope.spawn(move || client.run()))
        };
        let numbers = 0..databases.len() * CLIENTS_PER_DATABASE;
        let clients: Vec<_> = numbers.map(|number| client((number % databases.len(), number))).collect();
        let log = end(in_flight);
        let mut ledgers = vec![Ledger::default(); databases.len()];
        for (database, client) in clients {
            ledgers[database].absorb(client.join().expect("a client panicked"));
        }
        Ended { ledgers, log }
    })
}

struct Client<'r> {
    database: &'r Database,
    in_flight: &'r InFlight,
    dice: Dice,
    next_id: TransactionId,
    ledger: Ledger,
}

/// The server is gone.
struct Gone;

impl Client<'_> {
    fn run(mut self) -> Ledger {
        loop {
            let id = self.next_id;
            self.next_id += 1;
            let done = if self.dice.one_in(2) { self.interactive(id) } else { self.single_statement(id) };
            if let Err(Gone) = done {
                return self.ledger;
            }
        }
    }

    fn single_statement(&mut self, id: TransactionId) -> Result<(), Gone> {
        let row_count = self.dice.between(1..4).cast_signed();
        let (sql, values) = rows::insert(id, 0..row_count, row_count);
        self.ledger.begin(id, row_count);
        self.ledger.send(id);
        let inserted = self.in_flight.during(|| self.database.execute(&sql, &values));
        self.ledger.answer(id, Outcome::of(&inserted));
        survived(&inserted)
    }

    fn interactive(&mut self, id: TransactionId) -> Result<(), Gone> {
        let row_count = self.dice.between(2..7).cast_signed();
        let begin = if self.dice.one_in(2) { "BEGIN" } else { "BEGIN IMMEDIATE" };
        let mut stream = Stream::new(self.database);
        self.ledger.begin(id, row_count);
        let mut statements = vec![(begin.to_owned(), vec![])];
        statements.extend((0..row_count).map(|n| rows::insert(id, n..n + 1, row_count)));
        for (sql, values) in statements {
            let done = self.in_flight.during(|| stream.execute(&sql, &values));
            survived(&done)?;
            if done.is_err() {
                return survived(&self.in_flight.during(|| stream.finish("ROLLBACK", &[])));
            }
        }
        if self.dice.one_in(8) {
            return survived(&self.in_flight.during(|| stream.finish("ROLLBACK", &[])));
        }
        self.ledger.send(id);
        let committed = self.in_flight.during(|| stream.finish("COMMIT", &[]));
        self.ledger.answer(id, Outcome::of(&committed));
        survived(&committed)
    }
}

/// Whether the server was there to answer. A refusal that is not part of normal life ends the test.
fn survived<T>(result: &Result<T, Failure>) -> Result<(), Gone> {
    match result {
        Ok(_) => Ok(()),
        Err(Failure::Unreachable(_) | Failure::NoAnswer(_)) => Err(Gone),
        Err(failure) => {
            assert!(REFUSALS.contains(&failure.code()), "a client was told: {failure}");
            Ok(())
        }
    }
}
