//! Chinook, a small shop with 15,000 rows, through `shoal shell`, against what SQLite itself says.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use minio_tests::bucket::Bucket;
use minio_tests::hrana::{Database, Row};
use minio_tests::shoal::{self, Shoal};
use minio_tests::value::Value;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

const TABLES: [(&str, &str); 11] = [
    ("Album", "AlbumId"),
    ("Artist", "ArtistId"),
    ("Customer", "CustomerId"),
    ("Employee", "EmployeeId"),
    ("Genre", "GenreId"),
    ("Invoice", "InvoiceId"),
    ("InvoiceLine", "InvoiceLineId"),
    ("MediaType", "MediaTypeId"),
    ("Playlist", "PlaylistId"),
    ("PlaylistTrack", "PlaylistId, TrackId"),
    ("Track", "TrackId"),
];

const QUESTIONS: [&str; 15] = [
    "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name",
    "SELECT ar.Name, count(*) AS albums FROM Artist ar JOIN Album al USING (ArtistId)
        GROUP BY ar.ArtistId ORDER BY albums DESC, ar.Name",
    "SELECT ar.Name, al.Title, count(t.TrackId), sum(t.Milliseconds), avg(t.Bytes) FROM Artist ar
        JOIN Album al ON al.ArtistId = ar.ArtistId JOIN Track t ON t.AlbumId = al.AlbumId
        GROUP BY al.AlbumId ORDER BY al.AlbumId",
    "SELECT BillingCountry, count(*), sum(Total), avg(Total), min(Total), max(Total) FROM Invoice
        GROUP BY BillingCountry ORDER BY BillingCountry",
    "SELECT c.CustomerId, c.FirstName || ' ' || c.LastName, e.LastName, total(i.Total) FROM Customer c
        LEFT JOIN Employee e ON e.EmployeeId = c.SupportRepId LEFT JOIN Invoice i USING (CustomerId)
        GROUP BY c.CustomerId ORDER BY c.CustomerId",
    "SELECT i.InvoiceId, i.Total, sum(l.UnitPrice * l.Quantity) FROM Invoice i JOIN InvoiceLine l USING (InvoiceId)
        GROUP BY i.InvoiceId ORDER BY i.InvoiceId",
    "SELECT g.Name, m.Name, count(*) FROM Track t JOIN Genre g USING (GenreId) JOIN MediaType m
        ON m.MediaTypeId = t.MediaTypeId GROUP BY 1, 2 ORDER BY 1, 2",
    "SELECT p.PlaylistId, p.Name, count(pt.TrackId), group_concat(pt.TrackId ORDER BY pt.TrackId) FROM Playlist p
        LEFT JOIN PlaylistTrack pt USING (PlaylistId) GROUP BY p.PlaylistId ORDER BY p.PlaylistId",
    "WITH RECURSIVE chain(id, name, depth) AS (
        SELECT EmployeeId, LastName, 0 FROM Employee WHERE ReportsTo IS NULL
        UNION ALL SELECT e.EmployeeId, e.LastName, depth + 1 FROM Employee e JOIN chain ON e.ReportsTo = chain.id)
        SELECT * FROM chain ORDER BY depth, id",
    "SELECT t.TrackId, t.Name FROM Track t WHERE NOT EXISTS
        (SELECT 1 FROM InvoiceLine l WHERE l.TrackId = t.TrackId) ORDER BY t.TrackId",
    "SELECT CustomerId, InvoiceDate, Total, sum(Total) OVER (PARTITION BY CustomerId ORDER BY InvoiceDate, InvoiceId),
        rank() OVER (ORDER BY Total DESC) FROM Invoice ORDER BY InvoiceId",
    "SELECT strftime('%Y-%m', InvoiceDate) AS month, count(DISTINCT CustomerId), round(sum(Total), 2) FROM Invoice
        GROUP BY month ORDER BY month",
    "SELECT Composer, count(*) FROM Track WHERE Composer LIKE '%é%' OR Composer IS NULL GROUP BY Composer
        ORDER BY Composer",
    "SELECT Country, City FROM Customer UNION SELECT BillingCountry, BillingCity FROM Invoice
        EXCEPT SELECT Country, City FROM Employee ORDER BY 1, 2",
    "SELECT typeof(Total), typeof(InvoiceDate), typeof(BillingState), count(*) FROM Invoice GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
];

#[test]
fn chinook_answers_as_sqlite_does_on_the_directory_store() {
    load_and_compare(&Bucket::directory());
}

#[test]
fn chinook_answers_as_sqlite_does_on_minio() {
    load_and_compare(&Bucket::minio());
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/chinook.sql")
}

fn load_and_compare(bucket: &Bucket) {
    let caches = tempfile::tempdir().expect("a temporary directory");
    let process = Shoal::on(bucket, &caches.path().join("one")).start();
    process.create_database("chinook");
    load(&process.database("chinook"));
    let sqlite = Connection::open_in_memory().expect("a database");
    sqlite.execute_batch(&std::fs::read_to_string(script()).expect("the script")).expect("SQLite runs the script");
    compare(&process.database("chinook"), &sqlite);
    process.terminate();
    // The second process has nothing but the bucket.
    let process = Shoal::on(bucket, &caches.path().join("two")).start();
    compare(&process.database("chinook"), &sqlite);
    process.terminate();
}

fn load(database: &Database) {
    let mut shell = shoal::command();
    shell.args(["shell", database.url()]).stdin(Stdio::from(File::open(script()).expect("the script")));
    let output = shell.output().expect("the shell runs");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert_eq!((&*printed, &*errors), ("", ""), "a script without queries prints nothing");
}

fn compare(database: &Database, sqlite: &Connection) {
    let tables = TABLES.map(|(table, key)| format!("SELECT * FROM {table} ORDER BY {key}"));
    let mut row_count = 0;
    for sql in tables.iter().map(String::as_str).chain(QUESTIONS) {
        let expected = ask_sqlite(sqlite, sql);
        assert!(!expected.is_empty(), "a question without an answer shows nothing: {sql}");
        row_count += expected.len();
        assert_same(&expected, &database.cursor(sql, &[]).expect("the cursor answers"), sql);
        assert_same(&expected, &database.execute(sql, &[]).expect("the pipeline answers"), sql);
    }
    assert!(row_count > 15_000, "the script fills the tables: {row_count} rows");
    assert_eq!(database.execute("PRAGMA integrity_check", &[]).expect("answers"), [["ok".into()]]);
}

/// Compares value by value, so that a message does not hold a table.
fn assert_same(expected: &[Row], found: &[Row], sql: &str) {
    assert_eq!(expected.len(), found.len(), "the number of rows of: {sql}");
    for (number, (expected, found)) in expected.iter().zip(found).enumerate() {
        assert_eq!(expected, found, "row {number} of: {sql}");
    }
}

fn ask_sqlite(sqlite: &Connection, sql: &str) -> Vec<Row> {
    let mut statement = sqlite.prepare(sql).expect(sql);
    let column_count = statement.column_count();
    let read = |row: &rusqlite::Row<'_>| (0..column_count).map(|column| Ok(value(row.get_ref(column)?))).collect();
    let rows = statement.query_map([], read).expect(sql);
    rows.collect::<Result<_, _>>().expect(sql)
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => Value::Integer(integer),
        ValueRef::Real(real) => Value::Real(real),
        ValueRef::Text(text) => Value::Text(String::from_utf8(text.to_vec()).expect("Chinook is UTF-8")),
        ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
    }
}
