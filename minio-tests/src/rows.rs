//! The table that tests of lost and torn writes fill: rows that say to which transaction they belong, and
//! whose content can be told from that.
//!
//! A trigger counts the rows in a second table, on a page that every transaction changes: a commit of which
//! one page is missing shows.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::dice::Dice;
use crate::hrana::{Database, Row};
use crate::ledger::{Found, TransactionId};
use crate::value::Value;

/// Bytes of a row's content: big rows make folds frequent.
const CONTENT_BYTES: Range<u64> = 2_000..8_000;

const SCHEMA: [&str; 4] = [
    "CREATE TABLE rows (tx INTEGER NOT NULL, n INTEGER NOT NULL, of INTEGER NOT NULL, content BLOB NOT NULL, \
     PRIMARY KEY (tx, n))",
    "CREATE TABLE total (n INTEGER NOT NULL)",
    "INSERT INTO total VALUES (0)",
    "CREATE TRIGGER count_rows AFTER INSERT ON rows BEGIN UPDATE total SET n = n + 1; END",
];

/// Makes the tables in an empty database.
///
/// # Panics
/// If it cannot.
pub fn create(database: &Database) {
    for sql in SCHEMA {
        database.execute(sql, &[]).unwrap_or_else(|failure| panic!("{sql}: {failure}"));
    }
}

/// The statement that inserts these rows of a transaction, with its arguments.
pub fn insert(id: TransactionId, numbers: Range<i64>, row_count: i64) -> (String, Vec<Value>) {
    let places: Vec<&str> = numbers.clone().map(|_| "(?, ?, ?, ?)").collect();
    let values = numbers.flat_map(|n| [id.into(), n.into(), row_count.into(), content(id, n).into()]);
    (format!("INSERT INTO rows VALUES {}", places.join(", ")), values.collect())
}

/// What a row holds.
fn content(id: TransactionId, n: i64) -> Vec<u8> {
    let mut dice = Dice::new(id.cast_unsigned()).split(n.cast_unsigned());
    let length = usize::try_from(dice.between(CONTENT_BYTES)).expect("a few thousand");
    dice.bytes(length)
}

/// All transactions that the database holds. Waits while it is unavailable.
pub fn found(database: &Database) -> BTreeMap<TransactionId, Found> {
    let sql = "SELECT tx, count(*), min(n), max(n), min(of), max(of) FROM rows GROUP BY tx";
    let rows = database.execute_when_available(sql, &[]);
    let read = |row: Row| {
        let of = |column: usize| row[column].integer();
        (of(0), Found { row_count: of(1), first: of(2), last: of(3), said: (of(4), of(5)) })
    };
    rows.into_iter().map(read).collect()
}

/// What is wrong with the database as such, and with the content of those transactions whose id is in
/// `ids`.
pub fn damage(database: &Database, ids: Range<TransactionId>) -> Vec<String> {
    let mut damage = Vec::new();
    let check = database.execute_when_available("PRAGMA integrity_check", &[]);
    if check != [["ok".into()]] {
        damage.push(format!("integrity_check: {check:?}"));
    }
    let counts = database.execute_when_available("SELECT (SELECT n FROM total), count(*) FROM rows", &[]);
    if counts[0][0] != counts[0][1] {
        damage.push(format!("the trigger has counted {:?} rows, and there are {:?}", counts[0][0], counts[0][1]));
    }
    let sql = "SELECT tx, n, content FROM rows WHERE tx >= ? AND tx < ?";
    match database.cursor(sql, &[ids.start.into(), ids.end.into()]) {
        Ok(rows) => damage.extend(
            rows.iter()
                .filter(|row| !holds_its_content(row))
                .map(|row| format!("row {:?} of transaction {:?} holds other bytes than were sent", row[1], row[0])),
        ),
        Err(failure) => damage.push(format!("the rows cannot be read: {failure}")),
    }
    damage
}

fn holds_its_content(row: &Row) -> bool {
    row[2] == Value::Blob(content(row[0].integer(), row[1].integer()))
}
