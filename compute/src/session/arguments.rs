//! Binding a statement's arguments.

use rusqlite::types::{ToSqlOutput, ValueRef as SqlValueRef};
use rusqlite::{ErrorCode, Statement};

use crate::hrana::error::HranaError;
use crate::hrana::request::{NamedArg, Stmt};
use crate::hrana::value::Value;

/// Why a parameter has no value.
pub enum BindError {
    Arguments(HranaError),
    /// There is no memory for it.
    Sqlite(rusqlite::Error),
}

impl From<HranaError> for BindError {
    fn from(error: HranaError) -> Self {
        Self::Arguments(error)
    }
}

/// Binds every parameter of `statement`, or says which one has no value.
pub fn bind(statement: &mut Statement<'_>, stmt: &Stmt) -> Result<(), BindError> {
    if !stmt.args.is_empty() && !stmt.named_args.is_empty() {
        return Err(HranaError::args_both_positional_and_named().into());
    }
    if stmt.named_args.is_empty() { positional(statement, &stmt.args) } else { named(statement, &stmt.named_args) }
}

fn positional(statement: &mut Statement<'_>, args: &[Value]) -> Result<(), BindError> {
    let count = statement.parameter_count();
    if args.len() != count {
        let given = args.len();
        return Err(HranaError::args_invalid(&format!("the statement has {count} parameters, {given} values came")).into());
    }
    for (index, value) in args.iter().enumerate() {
        bind_one(statement, index + 1, value)?;
    }
    Ok(())
}

fn named(statement: &mut Statement<'_>, args: &[NamedArg]) -> Result<(), BindError> {
    for index in 1..=statement.parameter_count() {
        let name = statement.parameter_name(index).map(str::to_owned);
        let bare = |name: &str| name.trim_start_matches([':', '@', '$', '?']).to_owned();
        let value = name.as_deref().and_then(|name| {
            let exact = args.iter().find(|arg| arg.name == name);
            exact.or_else(|| args.iter().find(|arg| bare(name) == arg.name))
        });
        let Some(arg) = value else {
            let name = name.unwrap_or_else(|| format!("?{index}"));
            return Err(HranaError::args_invalid(&format!("value for parameter {name} not found")).into());
        };
        bind_one(statement, index, &arg.value)?;
    }
    Ok(())
}

fn bind_one(statement: &mut Statement<'_>, index: usize, value: &Value) -> Result<(), BindError> {
    let value = match value {
        Value::Null => SqlValueRef::Null,
        Value::Integer(integer) => SqlValueRef::Integer(*integer),
        Value::Float(float) => SqlValueRef::Real(*float),
        Value::Text(text) => SqlValueRef::Text(text.as_bytes()),
        Value::Blob(blob) => SqlValueRef::Blob(blob),
    };
    let bound = statement.raw_bind_parameter(index, ToSqlOutput::Borrowed(value));
    bound.map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::OutOfMemory) => BindError::Sqlite(error),
        _ => HranaError::args_invalid(&error.to_string()).into(),
    })
}
