//! What a libSQL server answers, as the shell needs it: batches, cursors, values, errors.
//!
//! Numbers are kept as JSON text ([`RawValue`]) and parsed here: `serde_json`'s own floats may be
//! off by the last bit, and a dump must not be. Unknown fields are passed over.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD_INDIFFERENT as BASE64;
use serde::Deserialize;
use serde_json::value::RawValue;

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Integer(i64),
    Real(f64),
    /// +∞ or -∞: JSON has no word for them, and the protocol sends `null`.
    Infinite,
    Text(String),
    Blob(Vec<u8>),
}

/// What a statement gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Cell>>,
}

/// SQLite refused a statement, or the server did.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, thiserror::Error)]
pub struct SqlError {
    pub message: String,
    #[serde(default)]
    pub code: Option<String>,
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) if !code.is_empty() && !self.message.contains(code.as_str()) => {
                write!(f, "{} ({code})", self.message)
            }
            _ => f.write_str(&self.message),
        }
    }
}

/// How far a batch came at one of its steps.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Done(Rows),
    Failed(SqlError),
    /// Not run, because an earlier one failed.
    Skipped,
}

/// The answer's form is not the protocol's.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotHrana(pub String);

impl From<serde_json::Error> for NotHrana {
    fn from(error: serde_json::Error) -> NotHrana {
        NotHrana(error.to_string())
    }
}

#[derive(Deserialize)]
pub struct PipelineAnswer<'a> {
    #[serde(default)]
    pub baton: Option<String>,
    #[serde(default)]
    pub base_url: Option<String>,
    #[serde(borrow)]
    pub results: Vec<StreamResult<'a>>,
}

/// The answer to one request of a pipeline: `response`, or `error`.
#[derive(Deserialize)]
pub struct StreamResult<'a> {
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<SqlError>,
}

impl<'a> StreamResult<'a> {
    /// The response's JSON, or the error of the request as a whole.
    pub fn outcome(self) -> Result<Result<&'a str, SqlError>, NotHrana> {
        match (self.response, self.error) {
            (Some(response), None) => Ok(Ok(response.get())),
            (_, Some(error)) => Ok(Err(error)),
            (None, None) => Err(NotHrana("a result is neither a response nor an error".into())),
        }
    }
}

#[derive(Deserialize)]
struct BatchResponse<'a> {
    #[serde(borrow)]
    result: BatchResult<'a>,
}

#[derive(Deserialize)]
struct BatchResult<'a> {
    #[serde(borrow)]
    step_results: Vec<Option<StatementResult<'a>>>,
    step_errors: Vec<Option<SqlError>>,
}

#[derive(Deserialize)]
struct StatementResult<'a> {
    cols: Vec<Column>,
    #[serde(borrow)]
    rows: Vec<Vec<WireCell<'a>>>,
}

#[derive(Deserialize)]
struct Column {
    #[serde(default)]
    name: Option<String>,
}

/// Reads the response to a `batch` of `step_count` steps.
pub fn read_batch(response: &str, step_count: usize) -> Result<Vec<Step>, NotHrana> {
    let BatchResult { step_results, step_errors } = serde_json::from_str::<BatchResponse>(response)?.result;
    if step_results.len() != step_count || step_errors.len() != step_count {
        return Err(NotHrana(format!("{step_count} steps were sent, {} answered", step_results.len())));
    }
    step_results
        .into_iter()
        .zip(step_errors)
        .map(|step| match step {
            (_, Some(error)) => Ok(Step::Failed(error)),
            (Some(result), None) => result.read().map(Step::Done),
            (None, None) => Ok(Step::Skipped),
        })
        .collect()
}

/// Reads the response to `get_autocommit`.
pub fn read_autocommit(response: &str) -> Result<bool, NotHrana> {
    #[derive(Deserialize)]
    struct Autocommit {
        is_autocommit: bool,
    }
    Ok(serde_json::from_str::<Autocommit>(response)?.is_autocommit)
}

impl StatementResult<'_> {
    fn read(self) -> Result<Rows, NotHrana> {
        let rows = self.rows.into_iter().map(read_cells).collect::<Result<_, _>>()?;
        Ok(Rows { columns: column_names(self.cols), rows })
    }
}

fn column_names(columns: Vec<Column>) -> Vec<String> {
    columns.into_iter().map(|column| column.name.unwrap_or_default()).collect()
}

fn read_cells(cells: Vec<WireCell<'_>>) -> Result<Vec<Cell>, NotHrana> {
    cells.into_iter().map(WireCell::read).collect()
}

/// A value before its fields are matched against its type.
#[derive(Deserialize)]
struct WireCell<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    base64: Option<Cow<'a, str>>,
}

impl WireCell<'_> {
    fn read(self) -> Result<Cell, NotHrana> {
        let wrong = || NotHrana(format!("a value of type `{}` can't be read", self.kind));
        let value = self.value.map_or("null", RawValue::get);
        match self.kind.as_ref() {
            "null" => Ok(Cell::Null),
            "integer" => value.trim_matches('"').parse().map(Cell::Integer).map_err(|_| wrong()),
            "float" => read_float(value).ok_or_else(wrong),
            "text" => serde_json::from_str(value).map(Cell::Text).map_err(|_| wrong()),
            "blob" => {
                let base64 = self.base64.as_deref().ok_or_else(wrong)?;
                BASE64.decode(base64).map(Cell::Blob).map_err(|_| wrong())
            }
            _ => Err(wrong()),
        }
    }
}

/// The standard library rounds correctly, and reads what overflows (`1e999`) as infinite.
fn read_float(json: &str) -> Option<Cell> {
    match json {
        "null" => Some(Cell::Infinite),
        json => {
            let float: f64 = json.parse().ok()?;
            Some(if float.is_finite() { Cell::Real(float) } else { Cell::Infinite })
        }
    }
}

/// The first line of a cursor's answer.
#[derive(Deserialize)]
pub struct CursorStart {
    pub baton: Option<String>,
    #[serde(default)]
    pub base_url: Option<String>,
}

/// A later line of a cursor's answer that matters here.
#[derive(Debug, PartialEq)]
pub enum CursorEntry {
    Columns(Vec<String>),
    Row(Vec<Cell>),
    /// The step, or all of them, ended well.
    End,
    Failed(SqlError),
    /// Something of no concern here, such as the replication index.
    Other,
}

#[derive(Deserialize)]
struct WireEntry<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    cols: Option<Vec<Column>>,
    #[serde(borrow, default)]
    row: Option<Vec<WireCell<'a>>>,
    #[serde(default)]
    error: Option<SqlError>,
}

/// Reads one line of a cursor's answer.
pub fn read_cursor_entry(line: &str) -> Result<CursorEntry, NotHrana> {
    let entry: WireEntry = serde_json::from_str(line)?;
    match (entry.kind.as_ref(), entry.cols, entry.row, entry.error) {
        ("step_begin", Some(columns), ..) => Ok(CursorEntry::Columns(column_names(columns))),
        ("row", _, Some(row), _) => read_cells(row).map(CursorEntry::Row),
        ("step_end", ..) => Ok(CursorEntry::End),
        ("step_error" | "error", _, _, Some(error)) => Ok(CursorEntry::Failed(error)),
        ("step_begin" | "row" | "step_error" | "error", ..) => {
            Err(NotHrana(format!("the entry `{}` is incomplete", entry.kind)))
        }
        _ => Ok(CursorEntry::Other),
    }
}

/// The message in the body of a refusal, in whichever form the server has: `{"message","code"}`,
/// `{"error":"…"}`, `{"error":{"message","code"}}` or plain text.
pub fn read_refusal(body: &str) -> SqlError {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Refusal {
        Plain(SqlError),
        Text { error: String },
        Nested { error: SqlError },
    }
    match serde_json::from_str(body) {
        Ok(Refusal::Plain(error) | Refusal::Nested { error }) => error,
        Ok(Refusal::Text { error }) => SqlError { message: error, code: None },
        Err(_) => SqlError { message: body.trim().to_owned(), code: None },
    }
}

#[cfg(test)]
mod tests;
