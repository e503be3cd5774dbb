//! Where a statement's rows go, and how many of them one answer may gather.

use crate::hrana::error::HranaError;
use crate::hrana::result::{Col, StmtResult};
use crate::hrana::value::ValueRef;

/// Receives a statement's result while it runs.
pub trait Output {
    fn begin(&mut self, cols: Vec<Col>) -> Result<(), HranaError>;
    fn row(&mut self, values: &[ValueRef<'_>]) -> Result<(), HranaError>;
}

/// What a result is counted as besides its columns and rows, and what an error or an answer of few words is.
pub const RESULT_BYTES: usize = 64;

/// Gathers rows for a pipeline's answer, up to a limit.
#[derive(Default)]
pub struct Gathered {
    pub result: StmtResult,
    /// What the answer may still take.
    bytes_max: usize,
    /// What the columns take.
    columns_bytes: usize,
    /// The limit of the whole answer, for the error.
    limit: usize,
}

impl Gathered {
    /// Room for what the limit of an answer leaves.
    pub fn within(limit: usize, used: usize) -> Self {
        Self { bytes_max: limit.saturating_sub(used), limit, ..Self::default() }
    }

    /// What the answer grows by.
    pub fn bytes(&self) -> usize {
        RESULT_BYTES + self.columns_bytes + self.result.rows.bytes()
    }

    fn check(&self, more: usize) -> Result<(), HranaError> {
        let is_too_large = self.bytes().saturating_add(more) > self.bytes_max;
        if is_too_large { Err(HranaError::response_too_large(self.limit as u64)) } else { Ok(()) }
    }
}

impl Output for Gathered {
    fn begin(&mut self, cols: Vec<Col>) -> Result<(), HranaError> {
        self.columns_bytes = columns_bytes(&cols);
        self.check(0)?;
        self.result.cols = cols;
        Ok(())
    }

    fn row(&mut self, values: &[ValueRef<'_>]) -> Result<(), HranaError> {
        // Before it is encoded: one value may stand in many columns of one row.
        self.check(row_bytes(values))?;
        self.result.rows.push(values.iter().copied());
        self.check(0)
    }
}

fn columns_bytes(cols: &[Col]) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    cols.iter().map(|col| size_of_val(col) + text(&col.name) + text(&col.decltype)).sum()
}

/// About how much a row is, from the lengths of its values; encoded it can be a few times as much.
pub fn row_bytes(values: &[ValueRef<'_>]) -> usize {
    let bytes = |value: &ValueRef<'_>| match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
        _ => 0,
    };
    values.iter().map(bytes).fold(0, usize::saturating_add)
}
