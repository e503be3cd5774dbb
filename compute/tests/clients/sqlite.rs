//! What the script must come to, according to a plain SQLite in memory. Nothing of ours takes part.

use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::Connection;

use crate::outcome::Outcome;
use crate::script::{Action, Args, End, Mode, Statement, Step};
use crate::value::Value;

/// The outcomes of every step.
pub fn run(steps: &[Step]) -> Vec<Vec<Outcome>> {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let sqlite = Sqlite { uri: format!("file:/expected-{run}?vfs=memdb") };
    // A database in memory is there as long as somebody has it open.
    let _open = sqlite.session();
    steps.iter().map(|step| sqlite.run_step(&step.action)).collect()
}

struct Sqlite {
    uri: String,
}

impl Sqlite {
    /// A connection that has done nothing yet, as each request of a client finds it.
    fn session(&self) -> Connection {
        let session = Connection::open(&self.uri).expect("a database in memory");
        // As libSQL's server has it.
        session.pragma_update(None, "foreign_keys", true).expect("a pragma");
        session
    }

    fn run_step(&self, action: &Action) -> Vec<Outcome> {
        match action {
            Action::Execute(statements) => statements.iter().map(|it| execute(&self.session(), it)).collect(),
            Action::Transaction { mode, statements, end } => transaction(&self.session(), *mode, statements, *end),
            Action::Batch(texts) => vec![batch(&self.session(), texts)],
            Action::Script(text) => {
                vec![self.session().execute_batch(text).map_or_else(|error| failed(&error), |()| Outcome::Done)]
            }
            // They don't depend on each other's order.
            Action::Together(transactions) => {
                let one = |it: &Vec<Statement>| transaction(&self.session(), Mode::Write, it, End::Commit);
                transactions.iter().flat_map(one).collect()
            }
        }
    }
}

fn transaction(session: &Connection, mode: Mode, statements: &[Statement], end: End) -> Vec<Outcome> {
    session.execute_batch("BEGIN").expect("no transaction is open");
    session.pragma_update(None, "query_only", mode == Mode::Read).expect("a pragma");
    let mut outcomes: Vec<Outcome> = statements.iter().map(|statement| execute(session, statement)).collect();
    session.execute_batch(if end == End::Commit { "COMMIT" } else { "ROLLBACK" }).expect("a transaction is open");
    outcomes.push(Outcome::Done);
    outcomes
}

fn batch(session: &Connection, texts: &[String]) -> Outcome {
    session.execute_batch("BEGIN").expect("no transaction is open");
    let result = texts.iter().try_for_each(|text| session.execute_batch(text));
    session.execute_batch(if result.is_ok() { "COMMIT" } else { "ROLLBACK" }).expect("a transaction is open");
    result.map_or_else(|error| failed(&error), |()| Outcome::Done)
}

fn execute(session: &Connection, statement: &Statement) -> Outcome {
    let outcome = if statement.has_rows { query(session, statement) } else { count(session, statement) };
    outcome.unwrap_or_else(|error| failed(&error))
}

fn query(session: &Connection, statement: &Statement) -> rusqlite::Result<Outcome> {
    let mut prepared = session.prepare(&statement.sql)?;
    let columns = prepared.column_names().map(str::to_owned).collect();
    let width = prepared.column_count();
    bind(&mut prepared, &statement.args)?;
    let mut found = prepared.raw_query();
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        rows.push((0..width).map(|index| row.get_ref(index).map(Value::from)).collect::<rusqlite::Result<_>>()?);
    }
    Ok(Outcome::Rows { columns, rows })
}

fn count(session: &Connection, statement: &Statement) -> rusqlite::Result<Outcome> {
    let mut prepared = session.prepare(&statement.sql)?;
    bind(&mut prepared, &statement.args)?;
    prepared.raw_execute()?;
    // SQLite's count is that of the last statement that changes rows; libSQL's clients are told 0 by others.
    let changes_rows = ["INSERT", "REPLACE", "UPDATE", "DELETE"].iter().any(|verb| statement.sql.starts_with(verb));
    let affected = if changes_rows { session.changes() } else { 0 };
    let rowid = statement.sql.starts_with("INSERT").then(|| session.last_insert_rowid());
    Ok(Outcome::Count { affected, rowid })
}

fn bind(prepared: &mut rusqlite::Statement<'_>, args: &Args) -> rusqlite::Result<()> {
    match args {
        Args::Positional(values) => {
            for (index, value) in values.iter().enumerate() {
                prepared.raw_bind_parameter(index + 1, value)?;
            }
        }
        Args::Named(values) => {
            for (name, value) in values {
                let index = prepared.parameter_index(name)?.expect("a parameter of the statement");
                prepared.raw_bind_parameter(index, value)?;
            }
        }
    }
    Ok(())
}

/// SQLite's message, and the code that libSQL's clients know such a failure by.
fn failed(error: &rusqlite::Error) -> Outcome {
    let (failure, message, has_place) = match error {
        rusqlite::Error::SqliteFailure(failure, message) => (failure, message.clone().expect("a message"), false),
        rusqlite::Error::SqlInputError { error, msg, offset, .. } => (error, msg.clone(), *offset >= 0),
        other => panic!("not SQLite's: {other}"),
    };
    let code = match failure.extended_code & 0xff {
        rusqlite::ffi::SQLITE_CONSTRAINT => "SQLITE_CONSTRAINT",
        rusqlite::ffi::SQLITE_READONLY => "SQLITE_READONLY",
        rusqlite::ffi::SQLITE_ERROR if message.ends_with("syntax error") => "SQL_PARSE_ERROR",
        rusqlite::ffi::SQLITE_ERROR if has_place => "SQL_INPUT_ERROR",
        rusqlite::ffi::SQLITE_ERROR => "SQLITE_UNKNOWN",
        other => panic!("the script has no errors of code {other}: {message}"),
    };
    Outcome::Failed { code: Some(code.to_owned()), message }
}
