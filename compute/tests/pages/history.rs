//! What happens to the database: statements that grow it, shrink it, and move its pages around.

use crate::rng::Rng;

const TABLES: u64 = 4;

/// The script that comes first: it decides how freed pages are treated.
pub fn first(rng: &mut Rng) -> String {
    // A small page cache, so that transactions spill.
    format!("PRAGMA auto_vacuum = {}; PRAGMA cache_size = {}", rng.below(3), rng.pick(&[8, 40, 2000]))
}

/// One transaction, or what is to be rolled back.
pub fn next(rng: &mut Rng) -> String {
    match rng.below(20) {
        0 => "VACUUM".into(),
        1..3 => format!("PRAGMA incremental_vacuum({})", rng.below(40)),
        3..7 => {
            let (count, is_kept) = (2 + rng.below(4), !rng.is_one_in(4));
            let statements: Vec<String> = (0..count).map(|_| statement(rng)).collect();
            let end = if is_kept { "COMMIT" } else { "ROLLBACK" };
            format!("BEGIN; {}; {end}", statements.join("; "))
        }
        _ => statement(rng),
    }
}

fn statement(rng: &mut Rng) -> String {
    let table = format!("t{}", rng.below(TABLES));
    let make = format!("CREATE TABLE IF NOT EXISTS {table}(a INTEGER PRIMARY KEY, b TEXT, c BLOB)");
    match rng.below(16) {
        0 => format!("DROP TABLE IF EXISTS {table}"),
        1 => format!("{make}; CREATE INDEX IF NOT EXISTS {table}_b ON {table}(b)"),
        2 => format!("{make}; DELETE FROM {table}"),
        3 => format!("{make}; DELETE FROM {table} WHERE a % {} = 0", 2 + rng.below(4)),
        4..7 => {
            let (every, text) = (2 + rng.below(40), rng.below(300));
            let value = rng.next() % 1_000_000;
            format!("{make}; UPDATE {table} SET b = printf('%0*d', {text}, a + {value}) WHERE a % {every} = 0")
        }
        // A blob over many overflow pages, which compresses badly.
        7 => {
            let bytes: String = (0..rng.between(1, 4_000)).map(|_| format!("{:016x}", rng.next())).collect();
            format!("{make}; INSERT INTO {table}(b, c) VALUES ('blob', x'{bytes}')")
        }
        8 => format!("{make}; INSERT INTO {table}(b, c) VALUES ('zeros', zeroblob({}))", rng.below(400_000)),
        9 => format!("{make}; DELETE FROM {table} WHERE length(c) > 1000"),
        // Many rows at once, in a large transaction.
        10 => rows(&make, &table, rng.between(300, 3_000), rng.between(10, 600), rng),
        _ => rows(&make, &table, rng.between(1, 40), rng.between(0, 1_500), rng),
    }
}

fn rows(make: &str, table: &str, count: u64, text: u64, rng: &mut Rng) -> String {
    let first = rng.next() % 1_000_000;
    format!(
        "{make}; INSERT INTO {table}(b) WITH RECURSIVE n(x) AS (SELECT {first} UNION ALL SELECT x + 1 FROM n \
         WHERE x < {first} + {count} - 1) SELECT printf('%0*d', {text}, x * 7919) FROM n"
    )
}
