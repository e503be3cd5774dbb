//! What a statement, a batch or a description comes to.

use super::error::HranaError;
use super::json::{InString, Object, WriteJson, write_array};
use super::value::ValueRef;

/// A column of a result. `decltype` is the declared type if the column comes straight from a
/// table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Col {
    pub name: Option<String>,
    pub decltype: Option<String>,
}

/// Rows that are JSON already: encoded one by one while SQLite steps, so that no row exists
/// twice and the size of the response is known exactly at each row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// The rows with commas between them, without the outer brackets.
    json: Vec<u8>,
    count: u64,
}

impl Rows {
    pub fn push<'v>(&mut self, values: impl IntoIterator<Item = ValueRef<'v>>) {
        if self.count > 0 {
            self.json.push(b',');
        }
        self.count += 1;
        write_row(&mut self.json, values);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// The encoded size so far.
    pub fn bytes(&self) -> usize {
        self.json.len()
    }
}

impl WriteJson for Rows {
    fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        out.extend_from_slice(&self.json);
        out.push(b']');
    }
}

/// Writes one row, `[value,…]`.
pub fn write_row<'v>(out: &mut Vec<u8>, values: impl IntoIterator<Item = ValueRef<'v>>) {
    write_array(out, values, |out, value| value.write_json(out));
}

/// The result of one statement.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StmtResult {
    pub cols: Vec<Col>,
    pub rows: Rows,
    /// Zero unless the statement was an INSERT, UPDATE or DELETE.
    pub affected_row_count: u64,
    /// `None` unless the statement was an INSERT.
    pub last_insert_rowid: Option<i64>,
    /// The LSN that the result shows.
    pub replication_index: Option<u64>,
    pub rows_read: u64,
    pub rows_written: u64,
    pub query_duration_ms: f64,
}

/// The result of a batch: for each step a result, an error, or (skipped) neither.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BatchResult {
    pub step_results: Vec<Option<StmtResult>>,
    pub step_errors: Vec<Option<HranaError>>,
    pub replication_index: Option<u64>,
}

/// The description of a statement that was not run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DescribeResult {
    pub params: Vec<DescribeParam>,
    pub cols: Vec<DescribeCol>,
    pub is_explain: bool,
    pub is_readonly: bool,
}

impl DescribeResult {
    /// About how much of an answer it takes.
    pub fn bytes(&self) -> usize {
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let params: usize = self.params.iter().map(|param| size_of_val(param) + optional(&param.name)).sum();
        let col = |col: &DescribeCol| size_of_val(col) + col.name.len() + optional(&col.decltype);
        params + self.cols.iter().map(col).sum::<usize>()
    }
}

/// A parameter, with its prefix (`:a`, `?2`); nameless if it is a plain `?` or isn't used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeParam {
    pub name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeCol {
    pub name: String,
    pub decltype: Option<String>,
}

impl WriteJson for Col {
    fn write_json(&self, out: &mut Vec<u8>) {
        Object::begin(out).field("name", &self.name).field("decltype", &self.decltype).end();
    }
}

impl WriteJson for StmtResult {
    fn write_json(&self, out: &mut Vec<u8>) {
        Object::begin(out)
            .field("cols", &self.cols)
            .field("rows", &self.rows)
            .field("affected_row_count", &self.affected_row_count)
            .field("last_insert_rowid", &self.last_insert_rowid.map(InString))
            .field("replication_index", &self.replication_index.map(InString))
            .field("rows_read", &self.rows_read)
            .field("rows_written", &self.rows_written)
            .field("query_duration_ms", &self.query_duration_ms)
            .end();
    }
}

impl WriteJson for BatchResult {
    fn write_json(&self, out: &mut Vec<u8>) {
        Object::begin(out)
            .field("step_results", &self.step_results)
            .field("step_errors", &self.step_errors)
            .field("replication_index", &self.replication_index.map(InString))
            .end();
    }
}

impl WriteJson for DescribeResult {
    fn write_json(&self, out: &mut Vec<u8>) {
        Object::begin(out)
            .field("params", &self.params)
            .field("cols", &self.cols)
            .field("is_explain", &self.is_explain)
            .field("is_readonly", &self.is_readonly)
            .end();
    }
}

impl WriteJson for DescribeParam {
    fn write_json(&self, out: &mut Vec<u8>) {
        Object::begin(out).field("name", &self.name).end();
    }
}

impl WriteJson for DescribeCol {
    fn write_json(&self, out: &mut Vec<u8>) {
        Object::begin(out).field("name", &self.name).field("decltype", &self.decltype).end();
    }
}

#[cfg(test)]
#[path = "result_tests.rs"]
mod tests;
