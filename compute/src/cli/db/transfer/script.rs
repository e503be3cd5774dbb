//! SQL text, as `.dump` of any SQLite tool and `GET …/dump` write it → a SQLite file, on this machine. It is read in
//! pieces, so it may be of any length.
//!
//! The connection opens no file but that one: ATTACH and extensions are refused. Otherwise a dump may do what dumps
//! do; those of `sqlite3` write virtual tables straight into the schema and their shadow tables by hand. What comes of
//! it is checked as a file that anybody may have made.
//!
//! A dump that is not whole is refused: it ends inside of its transaction, or rolls it back. So is one with a NUL, at
//! which SQLite would take the text to end, and one with a statement that does not end within [`Patience`].

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, ErrorCode};
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::TransferError;
use crate::cli::db::progress::Progress;
use crate::cli::limits::{
    DUMP_STATEMENT_STEPS_MAX, DUMP_STATEMENT_STEPS_PER_BYTE, SCRIPT_BUFFER_BYTES, STATEMENT_BYTES_MAX,
};
use crate::cli::shell::split::{Open, Splitter, Statement};

/// Steps of SQLite after which it is asked whether the statement may go on.
const STEPS_AT_ONCE: i32 = 10_000;

/// How long a statement may take, in steps of SQLite's machine.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub steps: u64,
    /// For each byte of the script that has been read.
    pub steps_per_byte: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { steps: DUMP_STATEMENT_STEPS_MAX, steps_per_byte: DUMP_STATEMENT_STEPS_PER_BYTE }
    }
}

/// Runs the script at `source` on a new file.
pub fn load(source: &Path, target: &Path, progress: &Progress, patience: Patience) -> Result<(), TransferError> {
    let unreadable = TransferError::file(source, "can't be read");
    let file = File::open(source).map_err(&unreadable)?;
    let of = file.metadata().map_err(&unreadable)?.len();
    let steps = Arc::new(AtomicU64::new(0));
    let sql = open(target, &steps).map_err(TransferError::not_read(target))?;
    let mut script = Script { sql, source, splitter: Splitter::default(), statements: 0, steps, steps_max: 0 };
    let mut reader = BufReader::with_capacity(SCRIPT_BUFFER_BYTES, file);
    let mut done = 0;
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(STATEMENT_BYTES_MAX as u64 + 1);
        limited.read_until(b'\n', &mut line).map_err(&unreadable)?;
        if line.is_empty() {
            return script.finish();
        }
        let offset = done;
        done += line.len() as u64;
        script.steps_max = patience.steps.saturating_add(done.saturating_mul(patience.steps_per_byte));
        progress.at("loading the dump", done, of);
        script.take_line(line, offset)?;
    }
}

/// `steps`: those that are left to the statement that runs.
fn open(target: &Path, steps: &Arc<AtomicU64>) -> rusqlite::Result<Connection> {
    let mut sql = Connection::open(target)?;
    let left = steps.clone();
    let is_over = move || {
        let rest = left.load(Ordering::Relaxed).checked_sub(u64::from(STEPS_AT_ONCE.unsigned_abs()));
        left.store(rest.unwrap_or(0), Ordering::Relaxed);
        rest.is_none()
    };
    steps.store(u64::MAX, Ordering::Relaxed);
    sql.progress_handler(STEPS_AT_ONCE, Some(is_over))?;
    let setup = "PRAGMA page_size=4096; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA foreign_keys=OFF; \
                 PRAGMA trusted_schema=OFF; PRAGMA cache_size=-64000";
    sql.execute_batch(setup)?;
    sql.authorizer(Some(|context: AuthContext<'_>| match context.action {
        // VACUUM's own is nameless.
        AuthAction::Attach { filename: "" } => Authorization::Allow,
        AuthAction::Attach { .. } | AuthAction::Detach { .. } | AuthAction::Unknown { .. } => Authorization::Deny,
        AuthAction::Function { function_name: "load_extension" | "fts3_tokenizer" } => Authorization::Deny,
        AuthAction::Pragma { pragma_name, .. } if pragma_name.ends_with("_directory") => Authorization::Deny,
        _ => Authorization::Allow,
    }))?;
    Ok(sql)
}

struct Script<'p> {
    sql: Connection,
    source: &'p Path,
    splitter: Splitter,
    statements: usize,
    /// Those that are left to the statement that runs, and that the next one gets.
    steps: Arc<AtomicU64>,
    steps_max: u64,
}

impl Script<'_> {
    /// `offset`: where in the file it begins.
    fn take_line(&mut self, line: Vec<u8>, offset: u64) -> Result<(), TransferError> {
        let at = self.splitter.line();
        let is_first = at == 1 && self.statements == 0;
        if let Some(index) = line.iter().position(|byte| *byte == 0) {
            let problem = format!("there is a NUL in line {at}, the byte at offset {} of the file", offset + index as u64);
            return Err(match is_first {
                true => TransferError::NotText { path: self.source.to_owned(), problem },
                false => self.fails(at, &problem),
            });
        }
        let line = String::from_utf8(line).map_err(|_| match is_first {
            true => TransferError::NotText { path: self.source.to_owned(), problem: "its first line is not UTF-8".into() },
            false => self.fails(at, "this is not UTF-8 text"),
        })?;
        let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
        if line.starts_with('.') && self.splitter.open() == Open::Nothing {
            return Err(self.fails(at, "this is a command of sqlite3, not SQL"));
        }
        self.splitter.push(line);
        while let Some(statement) = self.splitter.next_statement() {
            self.run(&statement)?;
        }
        if self.splitter.waiting_bytes() > STATEMENT_BYTES_MAX {
            return Err(self.fails(at, "a statement is too long: is a quote left open?"));
        }
        Ok(())
    }

    fn run(&mut self, statement: &Statement) -> Result<(), TransferError> {
        self.statements += 1;
        let words = || statement.sql.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let is = |index: usize, word: &str| words().nth(index).is_some_and(|it| it.eq_ignore_ascii_case(word));
        let to_savepoint = is(1, "TO") || (is(1, "TRANSACTION") && is(2, "TO"));
        if is(0, "ROLLBACK") && !to_savepoint {
            return Err(self.fails(statement.line, "it rolls back here, as a dump does that ended early: it is not whole"));
        }
        self.steps.store(self.steps_max, Ordering::Relaxed);
        self.sql.execute_batch(&statement.sql).map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => {
                let problem = format!("this statement has not ended after {} steps of SQLite: does it ever?", self.steps_max);
                self.fails(statement.line, &problem)
            }
            Some(ErrorCode::DiskFull) => TransferError::no_room(error),
            _ => self.fails(statement.line, &error.to_string()),
        })
    }

    fn finish(mut self) -> Result<(), TransferError> {
        if let Some(statement) = self.splitter.finish() {
            self.run(&statement)?;
        }
        if !self.sql.is_autocommit() {
            return Err(self.fails(self.splitter.line(), "it ends inside of a transaction: it is not whole"));
        }
        if self.statements == 0 {
            let problem = "there is no statement in it".into();
            return Err(TransferError::NotText { path: self.source.to_owned(), problem });
        }
        Ok(())
    }

    fn fails(&self, line: usize, problem: &str) -> TransferError {
        TransferError::Script { path: self.source.to_owned(), line, problem: problem.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { steps: 1_000_000, steps_per_byte: 1_000 };

    /// What is said of a script that is refused.
    fn refusal(script: &[u8]) -> String {
        let directory = tempfile::tempdir().expect("a directory");
        let (source, target) = (directory.path().join("dump.sql"), directory.path().join("db"));
        std::fs::write(&source, script).expect("a file");
        load(&source, &target, &Progress::to_terminal(), PATIENCE).expect_err("a refusal").to_string()
    }

    #[test]
    fn a_nul_is_refused_with_its_place() {
        let error = refusal(b"create table a(x);\ninsert into a values(1);\n\0\ninsert into a values(2);\n");
        assert!(error.contains("dump.sql, line 3: there is a NUL in line 3, the byte at offset 44"), "{error}");
        let error = refusal(b"SELECT 1; SELECT 'a\0b';");
        assert!(error.contains("there is a NUL in line 1, the byte at offset 19"), "{error}");
        let error = refusal(&[0; 8192]);
        assert!(error.contains("neither a SQLite database nor SQL text: there is a NUL in line 1, the byte at offset 0"), "{error}");
    }

    #[test]
    fn a_statement_without_an_end_is_stopped_and_named() {
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n;\n";
        let error = refusal(format!("CREATE TABLE t(a);\nSELECT 1;\n{endless}SELECT 2;\n").as_bytes());
        assert!(error.contains("dump.sql, line 3: this statement has not ended after 1115000 steps"), "{error}");
        // Nor are there other words for it.
        let trigger = "CREATE TRIGGER g AFTER INSERT ON t BEGIN\n INSERT INTO t ";
        let error = refusal(format!("CREATE TABLE t(a);\n{trigger}{endless}END;\nINSERT INTO t VALUES(1);\n").as_bytes());
        assert!(error.contains("has not ended"), "{error}");
    }

    #[test]
    fn many_statements_may_take_longer_than_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let (source, target) = (directory.path().join("dump.sql"), directory.path().join("db"));
        let long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) SELECT sum(i) FROM n;\n";
        std::fs::write(&source, long.repeat(20)).expect("a file");
        load(&source, &target, &Progress::to_terminal(), PATIENCE).expect("each of them ends");
    }

    #[test]
    fn without_room_the_message_says_where() {
        let full = "PRAGMA max_page_count=5;\nCREATE TABLE t(a);\nINSERT INTO t VALUES(zeroblob(100000));\n";
        let (error, place) = (refusal(full.as_bytes()), std::env::temp_dir());
        assert!(error.contains("no room for temporary files") && error.contains("TMPDIR"), "{error}");
        assert!(error.contains(&*place.to_string_lossy()), "{error}");
    }
}
