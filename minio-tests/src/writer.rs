//! A client that writes transactions of [`rows`](crate::rows), one after the other, and keeps the books.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::clock;
use crate::dice::Dice;
use crate::hrana::{Database, Failure, Outcome};
use crate::ledger::{Ledger, TransactionId};
use crate::limits::{RECOVERY, REQUEST};
use crate::rows;
use crate::stream::Stream;

/// Ids tell round, client and number, so that no two clients use one twice.
pub fn first_id(round: u64) -> TransactionId {
    i64::try_from(round << 32).expect("fewer rounds")
}

/// Counts requests: those that were sent and not answered yet, and all.
#[derive(Default)]
pub struct InFlight {
    now: AtomicUsize,
    sent: AtomicUsize,
}

impl InFlight {
    pub fn during<T>(&self, request: impl FnOnce() -> T) -> T {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.now.fetch_add(1, Ordering::Relaxed);
        let result = request();
        self.now.fetch_sub(1, Ordering::Relaxed);
        result
    }

    /// Returns at a moment at which at least so many requests are in flight.
    ///
    /// # Panics
    /// If there is none.
    pub fn wait_for(&self, count: usize) {
        let many = || (self.now.load(Ordering::Relaxed) >= count).then_some(());
        clock::poll(REQUEST, many).expect("the clients have requests in flight");
    }

    /// Returns when so many requests more were sent.
    ///
    /// # Panics
    /// If that does not happen.
    pub fn wait_for_more(&self, count: usize) {
        let enough = self.sent() + count;
        clock::poll(RECOVERY, || (self.sent() >= enough).then_some(())).expect("the clients go on");
    }

    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }
}

pub struct Writer<'r> {
    in_flight: &'r InFlight,
    dice: Dice,
    next_id: TransactionId,
    pub ledger: Ledger,
}

impl<'r> Writer<'r> {
    /// The `number`-th client of a round.
    pub fn new(round: u64, number: usize, dice: &Dice, in_flight: &'r InFlight) -> Self {
        Self {
            in_flight,
            dice: dice.split(1 + number as u64),
            next_id: first_id(round) | i64::try_from(number << 24).expect("a few clients"),
            ledger: Ledger::default(),
        }
    }

    /// Tries one transaction, in one statement or interactively. The id of one that was acknowledged, `None` of
    /// one that was rolled back at will.
    ///
    /// # Errors
    /// With the first failure. The ledger has noted it.
    pub fn transact(&mut self, database: &Database) -> Result<Option<TransactionId>, Failure> {
        let id = self.next_id;
        self.next_id += 1;
        if self.dice.one_in(2) { self.interactive(database, id) } else { self.single_statement(database, id) }
    }

    fn single_statement(&mut self, database: &Database, id: TransactionId) -> Result<Option<TransactionId>, Failure> {
        let row_count = self.dice.between(1..4).cast_signed();
        let (sql, values) = rows::insert(id, 0..row_count, row_count);
        self.ledger.begin(id, row_count);
        self.ledger.send(id);
        let inserted = self.in_flight.during(|| database.execute(&sql, &values));
        self.ledger.answer(id, Outcome::of(&inserted));
        inserted.map(|_| Some(id))
    }

    fn interactive(&mut self, database: &Database, id: TransactionId) -> Result<Option<TransactionId>, Failure> {
        let row_count = self.dice.between(2..7).cast_signed();
        let begin = if self.dice.one_in(2) { "BEGIN" } else { "BEGIN IMMEDIATE" };
        let mut stream = Stream::new(database);
        self.ledger.begin(id, row_count);
        let mut statements = vec![(begin.to_owned(), vec![])];
        statements.extend((0..row_count).map(|n| rows::insert(id, n..n + 1, row_count)));
        for (sql, values) in statements {
            if let Err(failure) = self.in_flight.during(|| stream.execute(&sql, &values)) {
                if !failure.is_silence() {
                    // A courtesy: what it is told does not matter.
                    let _ = self.in_flight.during(|| stream.finish("ROLLBACK", &[]));
                }
                return Err(failure);
            }
        }
        if self.dice.one_in(8) {
            return self.in_flight.during(|| stream.finish("ROLLBACK", &[])).map(|_| None);
        }
        self.ledger.send(id);
        let committed = self.in_flight.during(|| stream.finish("COMMIT", &[]));
        self.ledger.answer(id, Outcome::of(&committed));
        committed.map(|_| Some(id))
    }
}
