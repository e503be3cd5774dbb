//! What the text of a statement tells before SQLite has looked at it.

/// Where a NUL is that has something behind it: its byte and its line, from 1. SQLite takes the text to end there, so
/// that the rest would be left out without a word.
pub fn hidden_behind_nul(sql: &str) -> Option<(usize, usize)> {
    let (before, after) = sql.split_once('\0')?;
    let is_end = after.bytes().all(|byte| byte == 0 || byte.is_ascii_whitespace());
    (!is_end).then(|| (before.len(), before.matches('\n').count() + 1))
}

/// A statement without the white space and comments before it.
pub fn without_preamble(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == '\u{feff}');
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, after)| after);
        } else {
            return rest;
        }
    }
}

/// The first word of a statement, lower case, behind white space and comments.
fn first_word(sql: &str) -> String {
    let word = without_preamble(sql).split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    word.to_ascii_lowercase()
}

pub fn is_vacuum(sql: &str) -> bool {
    first_word(sql) == "vacuum"
}

/// Whether it takes back what a transaction has done, or some of it.
pub fn is_rollback(sql: &str) -> bool {
    first_word(sql) == "rollback"
}

/// Whether a transaction starts here, which may write later.
pub fn is_begin(sql: &str) -> bool {
    matches!(first_word(sql).as_str(), "begin" | "savepoint")
}

/// Whether this is how libSQL's clients begin a transaction that must not write. The first form is no SQL for
/// SQLite, and in the second it takes the word for the transaction's name.
pub fn is_begin_read_only(sql: &str) -> bool {
    if first_word(sql) != "begin" {
        return false;
    }
    let words = without_preamble(sql).split(|c: char| c.is_whitespace() || c == ';').filter(|word| !word.is_empty());
    let words: Vec<String> = words.take(4).map(str::to_ascii_lowercase).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    matches!(words[..], ["begin", "readonly"] | ["begin", "transaction", "readonly"] | ["begin", "readonly", "transaction"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_nul_hides_is_found() {
        assert_eq!(hidden_behind_nul("SELECT 1"), None);
        assert_eq!(hidden_behind_nul("SELECT 1;\0 \n\0"), None);
        assert_eq!(hidden_behind_nul("SELECT\n1;\0SELECT 2"), Some((9, 2)));
    }

    #[test]
    fn read_only_transactions_are_recognised_as_libsqls_clients_write_them() {
        for sql in ["BEGIN READONLY", "BEGIN TRANSACTION READONLY", "-- x\n begin\n readonly transaction ;"] {
            assert!(is_begin_read_only(sql), "{sql:?}");
        }
        for sql in ["BEGIN", "BEGIN IMMEDIATE", "BEGIN TRANSACTION", "SELECT 'begin readonly'", "BEGIN READONLY; SELECT 1"] {
            assert!(!is_begin_read_only(sql), "{sql:?}");
        }
    }

    #[test]
    fn the_first_word_is_found_behind_comments() {
        for sql in ["VACUUM", " ;; vacuum;", "-- x\n/* y */VACUUM main", "\u{feff}Vacuum INTO 'x'"] {
            assert!(is_vacuum(sql), "{sql:?}");
        }
        for sql in ["", "--", "/*", "SELECT 'vacuum'", "vacuumx", "-- vacuum"] {
            assert!(!is_vacuum(sql), "{sql:?}");
        }
    }
}
