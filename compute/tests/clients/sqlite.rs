//! What the script must come to, according to a plain SQLite in memory. Nothing of ours takes part.

use rusqlite::{Connection, params_from_iter};

use crate::outcome::Outcome;
use crate::script::{Action, Args, End, Mode, Statement, Step};
use crate::value::Value;

/// The outcomes of every step.
pub fn run(steps: &[Step]) -> Vec<Vec<Outcome>> {
    let sqlite = Connection::open_in_memory().expect("a database in memory");
    // As libSQL's server has it.
    sqlite.pragma_update(None, "foreign_keys", true).expect("a pragma");
    steps.iter().map(|step| run_step(&sqlite, &step.action)).collect()
}

fn run_step(sqlite: &Connection, action: &Action) -> Vec<Outcome> {
    match action {
        Action::Execute(statements) => statements.iter().map(|statement| execute(sqlite, statement)).collect(),
        Action::Transaction { mode, statements, end } => transaction(sqlite, *mode, statements, *end),
        Action::Batch(texts) => vec![batch(sqlite, texts)],
        Action::Script(text) => vec![sqlite.execute_batch(text).map_or_else(|error| failed(&error), |()| Outcome::Done)],
        // They don't depend on each other's order.
        Action::Together(transactions) => {
            let one = |statements: &Vec<Statement>| transaction(sqlite, Mode::Write, statements, End::Commit);
            transactions.iter().flat_map(one).collect()
        }
    }
}

fn transaction(sqlite: &Connection, mode: Mode, statements: &[Statement], end: End) -> Vec<Outcome> {
    sqlite.execute_batch("BEGIN").expect("no transaction is open");
    sqlite.pragma_update(None, "query_only", mode == Mode::Read).expect("a pragma");
    let mut outcomes: Vec<Outcome> = statements.iter().map(|statement| execute(sqlite, statement)).collect();
    sqlite.pragma_update(None, "query_only", false).expect("a pragma");
    sqlite.execute_batch(if end == End::Commit { "COMMIT" } else { "ROLLBACK" }).expect("a transaction is open");
    outcomes.push(Outcome::Done);
    outcomes
}

fn batch(sqlite: &Connection, texts: &[String]) -> Outcome {
    sqlite.execute_batch("BEGIN").expect("no transaction is open");
    let result = texts.iter().try_for_each(|text| sqlite.execute_batch(text));
    sqlite.execute_batch(if result.is_ok() { "COMMIT" } else { "ROLLBACK" }).expect("a transaction is open");
    result.map_or_else(|error| failed(&error), |()| Outcome::Done)
}

fn execute(sqlite: &Connection, statement: &Statement) -> Outcome {
    let outcome = if statement.has_rows { query(sqlite, statement) } else { count(sqlite, statement) };
    outcome.unwrap_or_else(|error| failed(&error))
}

fn query(sqlite: &Connection, statement: &Statement) -> rusqlite::Result<Outcome> {
    let mut prepared = sqlite.prepare(&statement.sql)?;
    let columns = prepared.column_names().into_iter().map(str::to_owned).collect();
    let width = prepared.column_count();
    bind(&mut prepared, &statement.args)?;
    let mut found = prepared.raw_query();
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        rows.push((0..width).map(|index| row.get_ref(index).map(Value::from)).collect::<rusqlite::Result<_>>()?);
    }
    Ok(Outcome::Rows { columns, rows })
}

fn count(sqlite: &Connection, statement: &Statement) -> rusqlite::Result<Outcome> {
    let before = sqlite.total_changes();
    let mut prepared = sqlite.prepare(&statement.sql)?;
    bind(&mut prepared, &statement.args)?;
    prepared.raw_execute()?;
    // SQLite keeps the count of the last statement that had one; libSQL's clients are told 0 by the others.
    let affected = if sqlite.total_changes() > before { sqlite.changes() } else { 0 };
    let rowid = statement.sql.starts_with("INSERT").then(|| sqlite.last_insert_rowid());
    Ok(Outcome::Count { affected, rowid })
}

fn bind(prepared: &mut rusqlite::Statement<'_>, args: &Args) -> rusqlite::Result<()> {
    match args {
        Args::Positional(values) => {
            for (index, value) in params_from_iter(values).into_iter().enumerate() {
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
