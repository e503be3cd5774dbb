//! Clients of several databases that some of several processes serve: writers, and readers who watch that no
//! process shows them the past.
//!
//! A reader remembers a transaction that was acknowledged, by whichever process, *before* it sends its request.
//! An answer without that transaction is a stale read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::dice::Dice;
use crate::fleet::Nodes;
use crate::hrana::{Database, Failure};
use crate::ledger::{Ledger, TransactionId};
use crate::limits::{POLL, RECOVERY};
use crate::writer::{InFlight, Writer};

/// Refusals that are part of normal life while processes come and go.
const REFUSALS: [&str; 6] =
    ["SQLITE_BUSY", "SHOAL_UNAVAILABLE", "SHOAL_CLOSED", "SHOAL_FENCED", "SHOAL_OUTCOME_UNKNOWN", "STREAM_EXPIRED"];
/// Between two reads of one reader.
const READ_PAUSE: Duration = Duration::from_millis(4);

/// How clients choose a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// They go to the next when one refuses or is silent.
    Roam,
    /// The processes share them, and they stay where they are.
    Stay,
}

/// What was acknowledged of one database.
#[derive(Clone, Default)]
struct Acknowledged {
    last: Option<TransactionId>,
    /// The process that acknowledged it.
    last_by: usize,
    /// How many transactions, by process.
    counts: Vec<u64>,
}

/// A round of traffic, seen by whoever makes trouble meanwhile.
pub struct Traffic<'r> {
    nodes: &'r Nodes,
    names: &'r [String],
    habit: Habit,
    pub in_flight: InFlight,
    stop: AtomicBool,
    acknowledged: Vec<Mutex<Acknowledged>>,
    stale: Mutex<Vec<String>>,
}

/// What a round leaves.
pub struct Ended<T> {
    /// What the clients of each database know.
    pub ledgers: Vec<Ledger>,
    /// Reads that showed the past, in sentences.
    pub stale: Vec<String>,
    /// For each database the process that was the last to acknowledge a transaction: most likely its owner.
    pub owners: Vec<usize>,
    /// Requests that were sent.
    pub requests: usize,
    /// What the troublemaker returned.
    pub result: T,
}

/// Ends the clients even if the test fails while they run.
struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `writers` clients for each database, and a reader for each process, until `trouble` returns.
pub fn during<T>(
    (nodes, names): (&Nodes, &[String]),
    (writers, habit): (usize, Habit),
    (round, dice): (u64, &Dice),
    trouble: impl FnOnce(&Traffic<'_>) -> T,
) -> Ended<T> {
    let traffic = Traffic {
        nodes,
        names,
        habit,
        in_flight: InFlight::default(),
        stop: AtomicBool::new(false),
        acknowledged: names.iter().map(|_| Mutex::default()).collect(),
        stale: Mutex::default(),
    };
    let (ledgers, result) = thread::scope(|scope| {
        let stop = StopOnDrop(&traffic.stop);
        let traffic = &traffic;
        let clients: Vec<_> = (0..names.len() * writers)
            .map(|number| {
                let writer = Writer::new(round, number, dice, &traffic.in_flight);
                (number % names.len(), scope.spawn(move || traffic.write(number, writer)))
            })
            .collect();
        for node in 0..nodes.count() {
            scope.spawn(move || traffic.read(node));
        }
        let result = trouble(traffic);
        drop(stop);
        let mut ledgers = vec![Ledger::default(); names.len()];
        for (database, client) in clients {
            ledgers[database].absorb(client.join().expect("a client panicked"));
        }
        (ledgers, result)
    });
    let owners = (0..names.len()).map(|database| traffic.acknowledged(database).last_by).collect();
    let stale = traffic.stale.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ended { ledgers, stale, owners, requests: traffic.in_flight.sent(), result }
}

impl Traffic<'_> {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn acknowledged(&self, database: usize) -> Acknowledged {
        self.acknowledged[database].lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, database: usize, node: usize, id: TransactionId) {
        let mut acknowledged = self.acknowledged[database].lock().unwrap_or_else(PoisonError::into_inner);
        (acknowledged.last, acknowledged.last_by) = (Some(id), node);
        acknowledged.counts.resize(self.nodes.count(), 0);
        acknowledged.counts[node] += 1;
    }

    /// Transactions of a database that a process has acknowledged.
    pub fn acknowledged_by(&self, database: usize, node: usize) -> u64 {
        self.acknowledged(database).counts.get(node).copied().unwrap_or(0)
    }

    /// Waits until such processes have acknowledged more transactions of every database, and does something
    /// `meanwhile`, again and again.
    ///
    /// # Panics
    /// If that does not happen.
    pub fn wait_for_acknowledgements(&self, by: impl Fn(usize) -> bool, mut meanwhile: impl FnMut()) {
        let nodes = || (0..self.nodes.count()).filter(|node| by(*node));
        let count = |database| nodes().map(|node| self.acknowledged_by(database, node)).sum::<u64>();
        let before: Vec<u64> = (0..self.names.len()).map(count).collect();
        let grew = || before.iter().enumerate().all(|(database, before)| count(database) > *before);
        let all = clock::poll(RECOVERY, || {
            meanwhile();
            grew().then_some(())
        });
        assert!(all.is_some(), "not every database was written to within {RECOVERY:?}");
    }

    fn write(&self, number: usize, mut writer: Writer<'_>) -> Ledger {
        let (database, mut node) = (number % self.names.len(), number / self.names.len() % self.nodes.count());
        let mut seat = Seat::default();
        while !self.is_over() {
            if let Some(at) = seat.take(self.nodes, node, &self.names[database]) {
                match writer.transact(at) {
                    Ok(id) => {
                        id.into_iter().for_each(|id| self.note(database, node, id));
                        continue;
                    }
                    Err(failure) => check_refusal(&failure),
                }
            }
            if self.habit == Habit::Roam {
                node = (node + 1) % self.nodes.count();
            }
            clock::sleep(POLL);
        }
        writer.ledger
    }

    fn read(&self, node: usize) {
        let mut seats: Vec<Seat> = self.names.iter().map(|_| Seat::default()).collect();
        while !self.is_over() {
            for (database, seat) in seats.iter_mut().enumerate() {
                if let Some(at) = seat.take(self.nodes, node, &self.names[database])
                    && let Err(failure) = self.look(database, node, at)
                {
                    check_refusal(&failure);
                }
                clock::sleep(READ_PAUSE);
            }
        }
    }

    /// Reads a database at one process, and looks whether it shows what was acknowledged before.
    ///
    /// # Errors
    /// With the refusal, which is always allowed.
    pub fn look(&self, database: usize, node: usize, at: &Database) -> Result<(), Failure> {
        let last = self.acknowledged(database).last;
        let rows = at.execute("SELECT count(*) FROM rows WHERE tx = ?", &[last.unwrap_or_default().into()])?;
        if let Some(id) = last
            && rows[0][0].integer() == 0
        {
            let text = format!("process {node} has shown {} without transaction {id}", self.names[database]);
            self.stale.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
        Ok(())
    }
}

fn check_refusal(failure: &Failure) {
    let is_normal = failure.is_silence() || REFUSALS.contains(&failure.code());
    assert!(is_normal, "a client was told: {failure}");
}

/// A client's place at a process, kept for as long as that has its address.
#[derive(Default)]
struct Seat(Option<(String, Database)>);

impl Seat {
    fn take(&mut self, nodes: &Nodes, node: usize, name: &str) -> Option<&Database> {
        let address = nodes.address(node)?;
        if self.0.as_ref().is_none_or(|(taken, _)| *taken != address) {
            self.0 = Some((address, nodes.database(node, name)?));
        }
        self.0.as_ref().map(|(_, database)| database)
    }
}
