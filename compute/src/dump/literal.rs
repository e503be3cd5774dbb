//! SQL literals that give back exactly the value they were made from.
//!
//! | value | literal |
//! |---|---|
//! | NULL | `NULL` |
//! | INTEGER | its digits |
//! | REAL | the shortest digits that come back to the same float, always with a point or an exponent: `1.0`, `1e16`, `-0.0` |
//! | +∞, -∞ | `1e999`, `-1e999` |
//! | TEXT | `'it''s'`; `CAST(X'…' AS TEXT)` when quotes can't carry it |
//! | BLOB | `X'…'` |
//!
//! Quotes can't carry a NUL, at which SQLite's parser stops, bytes that are no UTF-8, and a
//! carriage return, which `sqlite3` drops at the end of a line when it reads a script. The cast takes the bytes for
//! text in the encoding of the database.

use std::fmt::Write as _;

use super::Encoding;

/// Appends the literal of `text`, whose bytes need not be UTF-8, for a database of this encoding.
pub fn push_text(sql: &mut String, text: &[u8], encoding: Encoding) {
    match (std::str::from_utf8(text), encoding) {
        (Ok(text), _) if !text.contains(['\0', '\r']) => push_quoted(sql, text, '\''),
        (Ok(text), Encoding::Utf16Little) => push_cast(sql, &utf16(text, u16::to_le_bytes)),
        (Ok(text), Encoding::Utf16Big) => push_cast(sql, &utf16(text, u16::to_be_bytes)),
        _ => push_cast(sql, text),
    }
}

fn utf16(text: &str, bytes: impl Fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(bytes).collect()
}

fn push_cast(sql: &mut String, bytes: &[u8]) {
    sql.push_str("CAST(");
    push_blob(sql, bytes);
    sql.push_str(" AS TEXT)");
}

pub fn push_blob(sql: &mut String, blob: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    sql.reserve(blob.len() * 2 + 3);
    sql.push_str("X'");
    for byte in blob {
        sql.push(char::from(DIGITS[usize::from(byte >> 4)]));
        sql.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    sql.push('\'');
}

/// Appends a finite float.
pub fn push_real(sql: &mut String, real: f64) {
    // Rust's `Debug` has exactly the properties that are wanted: shortest, and never like an integer.
    let _ = write!(sql, "{real:?}");
}

/// `name` as an identifier, whatever it contains.
pub fn identifier(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    push_quoted(&mut quoted, name, '"');
    quoted
}

/// `text` as a string, for the shell's own queries.
pub fn string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    push_text(&mut quoted, text.as_bytes(), Encoding::Utf8);
    quoted
}

fn push_quoted(sql: &mut String, text: &str, quote: char) {
    sql.push(quote);
    for (index, part) in text.split(quote).enumerate() {
        if index > 0 {
            sql.push(quote);
            sql.push(quote);
        }
        sql.push_str(part);
    }
    sql.push(quote);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::types::Value;

    use super::*;

    fn literal(push: impl FnOnce(&mut String)) -> String {
        let mut sql = String::new();
        push(&mut sql);
        sql
    }

    /// What SQLite makes of a literal.
    fn value_of(sql: &str) -> Value {
        let connection = rusqlite::Connection::open_in_memory().expect("memory");
        connection.query_row(&format!("SELECT {sql}"), [], |row| row.get(0)).expect(sql)
    }

    #[test]
    fn literals_look_as_documented() {
        assert_eq!(literal(|sql| push_text(sql, b"", Encoding::Utf8)), "''");
        assert_eq!(literal(|sql| push_text(sql, b"it's", Encoding::Utf8)), "'it''s'");
        assert_eq!(literal(|sql| push_text(sql, b"'", Encoding::Utf8)), "''''");
        assert_eq!(literal(|sql| push_text(sql, b"a\nb", Encoding::Utf8)), "'a\nb'");
        assert_eq!(literal(|sql| push_text(sql, b"a\0b", Encoding::Utf8)), "CAST(X'610062' AS TEXT)");
        assert_eq!(literal(|sql| push_text(sql, b"a\r\n", Encoding::Utf8)), "CAST(X'610d0a' AS TEXT)");
        assert_eq!(literal(|sql| push_text(sql, b"\xff", Encoding::Utf8)), "CAST(X'ff' AS TEXT)");
        assert_eq!(literal(|sql| push_text(sql, b"a\0", Encoding::Utf16Little)), "CAST(X'61000000' AS TEXT)");
        assert_eq!(literal(|sql| push_text(sql, b"a\r", Encoding::Utf16Big)), "CAST(X'0061000d' AS TEXT)");
        assert_eq!(literal(|sql| push_text(sql, b"a", Encoding::Utf16Big)), "'a'");
        assert_eq!(literal(|sql| push_blob(sql, b"")), "X''");
        assert_eq!(literal(|sql| push_blob(sql, &[0, 0xab])), "X'00ab'");
        for (real, text) in [(1.0, "1.0"), (0.1, "0.1"), (-0.0, "-0.0"), (1e16, "1e16"), (5e-324, "5e-324")] {
            assert_eq!(literal(|sql| push_real(sql, real)), text);
        }
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(string("it's"), "'it''s'");
    }

    proptest! {
        #[test]
        fn sqlite_reads_back_every_text(text in ".*") {
            prop_assert_eq!(value_of(&string(&text)), Value::Text(text));
        }

        #[test]
        fn sqlite_reads_back_every_blob(blob in prop::collection::vec(any::<u8>(), 0..50)) {
            prop_assert_eq!(value_of(&literal(|sql| push_blob(sql, &blob))), Value::Blob(blob));
        }

        #[test]
        fn sqlite_reads_back_every_float(real in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL) {
            let Value::Real(read) = value_of(&literal(|sql| push_real(sql, real))) else {
                panic!("{real:?} is read as something else")
            };
            prop_assert_eq!(read.to_bits(), real.to_bits());
        }
    }
}
