use super::*;
use rusqlite::ffi;

fn json(error: &HranaError) -> String {
    String::from_utf8(error.to_json()).unwrap()
}

#[test]
fn every_primary_code_has_the_name_that_sqlite_gives_it() {
    for (code, name) in [
        (ffi::SQLITE_INTERNAL, "SQLITE_INTERNAL"),
        (ffi::SQLITE_PERM, "SQLITE_PERM"),
        (ffi::SQLITE_ABORT, "SQLITE_ABORT"),
        (ffi::SQLITE_BUSY, "SQLITE_BUSY"),
        (ffi::SQLITE_LOCKED, "SQLITE_LOCKED"),
        (ffi::SQLITE_NOMEM, "SQLITE_NOMEM"),
        (ffi::SQLITE_READONLY, "SQLITE_READONLY"),
        (ffi::SQLITE_INTERRUPT, "SQLITE_INTERRUPT"),
        (ffi::SQLITE_IOERR, "SQLITE_IOERR"),
        (ffi::SQLITE_CORRUPT, "SQLITE_CORRUPT"),
        (ffi::SQLITE_NOTFOUND, "SQLITE_NOTFOUND"),
        (ffi::SQLITE_FULL, "SQLITE_FULL"),
        (ffi::SQLITE_CANTOPEN, "SQLITE_CANTOPEN"),
        (ffi::SQLITE_PROTOCOL, "SQLITE_PROTOCOL"),
        (ffi::SQLITE_SCHEMA, "SQLITE_SCHEMA"),
        (ffi::SQLITE_TOOBIG, "SQLITE_TOOBIG"),
        (ffi::SQLITE_CONSTRAINT, "SQLITE_CONSTRAINT"),
        (ffi::SQLITE_MISMATCH, "SQLITE_MISMATCH"),
        (ffi::SQLITE_MISUSE, "SQLITE_MISUSE"),
        (ffi::SQLITE_NOLFS, "SQLITE_NOLFS"),
        (ffi::SQLITE_AUTH, "SQLITE_AUTH"),
        (ffi::SQLITE_RANGE, "SQLITE_RANGE"),
        (ffi::SQLITE_NOTADB, "SQLITE_NOTADB"),
        (ffi::SQLITE_ERROR, "SQLITE_UNKNOWN"),
        (ffi::SQLITE_OK, "SQLITE_UNKNOWN"),
        (-1, "SQLITE_UNKNOWN"),
    ] {
        assert_eq!(sqlite_code(code), name);
    }
}

#[test]
fn extended_codes_have_the_numbers_that_sqlite_gives_them() {
    for (code, name) in [
        (ffi::SQLITE_BUSY_SNAPSHOT, "SQLITE_BUSY_SNAPSHOT"),
        (ffi::SQLITE_CONSTRAINT_CHECK, "SQLITE_CONSTRAINT_CHECK"),
        (ffi::SQLITE_CONSTRAINT_COMMITHOOK, "SQLITE_CONSTRAINT_COMMITHOOK"),
        (ffi::SQLITE_CONSTRAINT_DATATYPE, "SQLITE_CONSTRAINT_DATATYPE"),
        (ffi::SQLITE_CONSTRAINT_FOREIGNKEY, "SQLITE_CONSTRAINT_FOREIGNKEY"),
        (ffi::SQLITE_CONSTRAINT_FUNCTION, "SQLITE_CONSTRAINT_FUNCTION"),
        (ffi::SQLITE_CONSTRAINT_NOTNULL, "SQLITE_CONSTRAINT_NOTNULL"),
        (ffi::SQLITE_CONSTRAINT_PINNED, "SQLITE_CONSTRAINT_PINNED"),
        (ffi::SQLITE_CONSTRAINT_PRIMARYKEY, "SQLITE_CONSTRAINT_PRIMARYKEY"),
        (ffi::SQLITE_CONSTRAINT_ROWID, "SQLITE_CONSTRAINT_ROWID"),
        (ffi::SQLITE_CONSTRAINT_TRIGGER, "SQLITE_CONSTRAINT_TRIGGER"),
        (ffi::SQLITE_CONSTRAINT_UNIQUE, "SQLITE_CONSTRAINT_UNIQUE"),
        (ffi::SQLITE_CONSTRAINT_VTAB, "SQLITE_CONSTRAINT_VTAB"),
    ] {
        assert_eq!(sqlite_extended_code(code), Some(name));
        let primary = name.split('_').take(2).collect::<Vec<_>>().join("_");
        assert_eq!(sqlite_code(code & 0xff), primary);
    }
    assert_eq!(sqlite_extended_code(ffi::SQLITE_CONSTRAINT), None);
    assert_eq!(sqlite_extended_code(ffi::SQLITE_IOERR_READ), None);
}

#[test]
fn a_constraint_error_carries_both_codes() {
    let error = HranaError::sqlite(ffi::SQLITE_CONSTRAINT_UNIQUE, "UNIQUE constraint failed: t.u", None);
    assert_eq!(
        json(&error),
        r#"{"message":"SQLite error: UNIQUE constraint failed: t.u","code":"SQLITE_CONSTRAINT","extended_code":"SQLITE_CONSTRAINT_UNIQUE"}"#
    );
}

/// What SQLite itself says of a statement, as our executor will see it.
fn error_of(sql: &str) -> HranaError {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    let error = match connection.prepare(sql) {
        Ok(mut statement) => statement.raw_execute().unwrap_err(),
        Err(error) => error,
    };
    match error {
        rusqlite::Error::SqliteFailure(error, message) => {
            HranaError::sqlite(error.extended_code, &message.unwrap_or_default(), None)
        }
        rusqlite::Error::SqlInputError { error, msg, offset, .. } => {
            HranaError::sqlite(error.extended_code, &msg, usize::try_from(offset).ok())
        }
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn mistakes_in_the_sql_are_sorted_into_three_codes() {
    for (sql, code, message) in [
        ("selec 1", "SQL_PARSE_ERROR", "SQL string could not be parsed: near \"selec\": syntax error (at offset 0)"),
        ("select 1 where", "SQL_PARSE_ERROR", "SQL string could not be parsed: incomplete input"),
        ("select 'a", "SQL_PARSE_ERROR", "SQL string could not be parsed: unrecognized token: \"'a\" (at offset 7)"),
        ("select x()", "SQL_INPUT_ERROR", "SQL input error: no such function: x (at offset 7)"),
        ("select nope", "SQL_INPUT_ERROR", "SQL input error: no such column: nope (at offset 7)"),
        ("select * from nope", "SQLITE_UNKNOWN", "SQLite error: no such table: nope"),
        ("rollback", "SQLITE_UNKNOWN", "SQLite error: cannot rollback - no transaction is active"),
    ] {
        let error = error_of(sql);
        assert_eq!((error.code, error.message.as_str()), (code, message), "{sql}");
        assert_eq!(error.extended_code, None);
    }
}

#[test]
fn offsets_do_not_hide_the_code_of_other_errors() {
    let error = HranaError::sqlite(ffi::SQLITE_AUTH, "not authorized", Some(3));
    assert_eq!((error.code, error.message.as_str()), ("SQLITE_AUTH", "SQLite error: not authorized"));
}

#[test]
fn each_constructor_gives_the_code_that_clients_know() {
    for (error, code) in [
        (HranaError::no_statement(), "SQL_NO_STATEMENT"),
        (HranaError::many_statements(), "SQL_MANY_STATEMENTS"),
        (HranaError::args_invalid("too few"), "ARGS_INVALID"),
        (HranaError::args_both_positional_and_named(), "ARGS_BOTH_POSITIONAL_AND_NAMED"),
        (HranaError::transaction_timeout(), "TRANSACTION_TIMEOUT"),
        (HranaError::transaction_busy(), "TRANSACTION_BUSY"),
        (HranaError::blocked("quota"), "BLOCKED"),
        (HranaError::response_too_large(10), "RESPONSE_TOO_LARGE"),
        (HranaError::sql_store_too_many(50), "SQL_STORE_TOO_MANY"),
        (HranaError::sql_store_too_large(6000, 5000), "SQL_STORE_TOO_LARGE"),
        (HranaError::fault(Fault::Indefinite, "x"), "SHOAL_OUTCOME_UNKNOWN"),
    ] {
        assert_eq!(error.code, code);
        assert_eq!(error.to_string(), error.message);
    }
    assert_eq!(HranaError::blocked("quota").message, "Operation was blocked: quota");
}

#[test]
fn protocol_errors_read_as_clients_expect_them() {
    let version = ProtocolError::Version { what: "The `get_autocommit` request", minimum: HranaVersion::Hrana3 };
    for (error, message) in [
        (ProtocolError::BatonInvalid, "Received an invalid baton"),
        (ProtocolError::BatonReused, "Received a baton that has already been used"),
        (ProtocolError::StreamClosed, "Stream for this baton was closed"),
        (ProtocolError::SqlMissing, "Either `sql` or `sql_id` are required"),
        (ProtocolError::SqlAndSqlId, "Either `sql` or `sql_id` are required, but not both"),
        (ProtocolError::SqlTextNotFound { sql_id: -3 }, "SQL text -3 not found"),
        (ProtocolError::SqlTextExists { sql_id: 1 }, "SQL text 1 already exists"),
        (ProtocolError::ConditionStep, "Invalid reference to step in a batch condition"),
        (version, "The `get_autocommit` request is only supported in protocol version hrana3 and higher"),
        (ProtocolError::StreamExpired, "The stream has expired due to inactivity"),
    ] {
        assert_eq!(error.to_string(), message);
    }
    assert_eq!(ProtocolError::StreamExpired.code(), "STREAM_EXPIRED");
}

#[test]
fn shortening_keeps_the_beginning_the_end_and_character_boundaries() {
    assert_eq!(shorten("short", 10), "short");
    assert_eq!(shorten("éééééééééé", 10), "éééééééééé");
    let shortened = shorten(&format!("begin{}end", "é".repeat(1000)), 10);
    assert!(shortened.starts_with("begin…") && shortened.ends_with("end"), "{shortened}");
    assert!(shortened.chars().count() <= 12);
    assert_eq!(shorten("", 10), "");
}
