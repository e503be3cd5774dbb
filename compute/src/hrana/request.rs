//! What clients send over HTTP: the bodies of `pipeline` and `cursor`.
//!
//! Unknown fields are ignored (clients of later versions and other servers send some), absent and
//! `null` mean the same, and fields may come in any order. What is read is read strictly: an unknown request type, a wrong
//! type of a field, or a value that isn't exactly representable fails the whole HTTP request, so
//! that nothing of a misunderstood pipeline has run.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};

use super::error::{ProtocolError, shorten};
use super::limits::{CONDITION_DEPTH_MAX, ECHO_CHARS_MAX};
use super::value::Value;

/// `POST …/v2/pipeline` and `…/v3/pipeline`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(expecting = "a body such as {\"baton\":null,\"requests\":[]}")]
pub struct PipelineRequestBody {
    #[serde(default)]
    pub baton: Option<String>,
    pub requests: Vec<StreamRequest>,
}

/// `POST …/v3/cursor`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(expecting = "a body such as {\"baton\":null,\"batch\":{\"steps\":[]}}")]
pub struct CursorRequestBody {
    #[serde(default)]
    pub baton: Option<String>,
    pub batch: Batch,
}

impl PipelineRequestBody {
    pub fn parse(body: &[u8]) -> Result<PipelineRequestBody, ProtocolError> {
        Ok(serde_json::from_slice(body)?)
    }
}

impl CursorRequestBody {
    pub fn parse(body: &[u8]) -> Result<CursorRequestBody, ProtocolError> {
        Ok(serde_json::from_slice(body)?)
    }
}

/// One request of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamRequest {
    Execute { stmt: Stmt },
    Batch { batch: Batch },
    Sequence { sql: SqlSource },
    Describe { sql: SqlSource },
    StoreSql { sql_id: i32, sql: String },
    CloseSql { sql_id: i32 },
    GetAutocommit,
    Close,
}

impl StreamRequest {
    /// The last commit that the client wants to see, if it says so.
    pub fn replication_index(&self) -> Option<u64> {
        match self {
            StreamRequest::Execute { stmt } => stmt.replication_index,
            StreamRequest::Batch { batch } => batch.replication_index(),
            _ => None,
        }
    }
}

impl Batch {
    /// The highest of its own and of its steps'.
    pub fn replication_index(&self) -> Option<u64> {
        let steps = self.steps.iter().filter_map(|step| step.stmt.replication_index);
        steps.chain(self.replication_index).max()
    }
}

fn replication_index<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<Index>::deserialize(deserializer)?.map(|Index(index)| index))
}

/// A string, as results carry it, or a number. Whatever else stands there is refused as it is met, and not kept first.
struct Index(u64);

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Index, D::Error> {
        deserializer.deserialize_any(IndexVisitor)
    }
}

struct IndexVisitor;

impl Visitor<'_> for IndexVisitor {
    type Value = Index;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a replication index: a number, or a string that is one")
    }

    fn visit_u64<E>(self, index: u64) -> Result<Index, E> {
        Ok(Index(index))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Index, E> {
        text.parse().map(Index).map_err(E::custom)
    }
}

/// Where the text of a statement comes from. Which of the two it must be is checked when it is
/// looked up, because stored texts belong to the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SqlSource {
    pub sql: Option<String>,
    pub sql_id: Option<i32>,
}

impl SqlSource {
    /// The text: given here, or stored earlier on this stream.
    pub fn text<'s>(&'s self, stored: &'s BTreeMap<i32, String>) -> Result<&'s str, ProtocolError> {
        match (&self.sql, self.sql_id) {
            (Some(sql), None) => Ok(sql),
            (None, Some(sql_id)) => match stored.get(&sql_id) {
                Some(sql) => Ok(sql),
                None => Err(ProtocolError::SqlTextNotFound { sql_id }),
            },
            (None, None) => Err(ProtocolError::SqlMissing),
            (Some(_), Some(_)) => Err(ProtocolError::SqlAndSqlId),
        }
    }
}

/// One statement with its arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Stmt {
    pub sql: SqlSource,
    pub args: Vec<Value>,
    pub named_args: Vec<NamedArg>,
    pub want_rows: bool,
    /// The last commit that the client has seen and wants to see again.
    pub replication_index: Option<u64>,
}

/// An argument by name; the name may have its prefix (`:`, `@`, `$`) or not.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(expecting = "an argument with name and value")]
pub struct NamedArg {
    pub name: String,
    pub value: Value,
}

/// Statements in order, each with an optional condition on the outcome of earlier ones.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(expecting = "a batch such as {\"steps\":[]}")]
pub struct Batch {
    pub steps: Vec<BatchStep>,
    /// See [`Stmt::replication_index`].
    #[serde(default, deserialize_with = "replication_index")]
    pub replication_index: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(expecting = "a step such as {\"stmt\":{\"sql\":\"SELECT 1\"}}")]
pub struct BatchStep {
    #[serde(default)]
    pub condition: Option<BatchCond>,
    pub stmt: Stmt,
}

/// When a step runs. Nests no deeper than [`CONDITION_DEPTH_MAX`] if it was parsed here.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchCond {
    Ok { step: u32 },
    Error { step: u32 },
    Not { cond: Box<BatchCond> },
    And { conds: Vec<BatchCond> },
    Or { conds: Vec<BatchCond> },
    IsAutocommit,
}

/// All fields of all request types. Matching them against the type afterwards, instead of looking
/// for the type first, reads the JSON once and lets the type come last.
#[derive(serde::Deserialize)]
#[serde(expecting = "a request such as {\"type\":\"close\"}")]
struct UncheckedRequest<'b> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'b, str>,
    stmt: Option<Stmt>,
    batch: Option<Batch>,
    sql: Option<String>,
    sql_id: Option<i32>,
}

impl<'de> Deserialize<'de> for StreamRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StreamRequest, D::Error> {
        UncheckedRequest::deserialize(deserializer)?.check()
    }
}

impl UncheckedRequest<'_> {
    fn check<E: serde::de::Error>(self) -> Result<StreamRequest, E> {
        Ok(match self.kind.as_ref() {
            "execute" => StreamRequest::Execute { stmt: required(self.stmt, "stmt")? },
            "batch" => StreamRequest::Batch { batch: required(self.batch, "batch")? },
            "sequence" => StreamRequest::Sequence { sql: self.sql_source() },
            "describe" => StreamRequest::Describe { sql: self.sql_source() },
            "store_sql" => {
                StreamRequest::StoreSql { sql_id: required(self.sql_id, "sql_id")?, sql: required(self.sql, "sql")? }
            }
            "close_sql" => StreamRequest::CloseSql { sql_id: required(self.sql_id, "sql_id")? },
            "get_autocommit" => StreamRequest::GetAutocommit,
            "close" => StreamRequest::Close,
            other => return Err(unknown_type("request", other)),
        })
    }

    fn sql_source(self) -> SqlSource {
        SqlSource { sql: self.sql, sql_id: self.sql_id }
    }
}

#[derive(serde::Deserialize)]
#[serde(expecting = "a statement such as {\"sql\":\"SELECT 1\"}")]
struct UncheckedStmt {
    sql: Option<String>,
    sql_id: Option<i32>,
    args: Option<Vec<Value>>,
    named_args: Option<Vec<NamedArg>>,
    want_rows: Option<bool>,
    #[serde(default, deserialize_with = "replication_index")]
    replication_index: Option<u64>,
}

impl<'de> Deserialize<'de> for Stmt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Stmt, D::Error> {
        let unchecked = UncheckedStmt::deserialize(deserializer)?;
        Ok(Stmt {
            sql: SqlSource { sql: unchecked.sql, sql_id: unchecked.sql_id },
            args: unchecked.args.unwrap_or_default(),
            named_args: unchecked.named_args.unwrap_or_default(),
            want_rows: unchecked.want_rows.unwrap_or(true),
            replication_index: unchecked.replication_index,
        })
    }
}

/// All fields of all conditions; the parser's own bound on nesting keeps the recursion finite
/// until [`UncheckedCond::check`] applies ours.
#[derive(serde::Deserialize)]
#[serde(expecting = "a batch condition such as {\"type\":\"ok\",\"step\":0}")]
struct UncheckedCond<'b> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'b, str>,
    step: Option<u32>,
    #[serde(borrow)]
    cond: Option<Box<UncheckedCond<'b>>>,
    #[serde(borrow)]
    conds: Option<Vec<UncheckedCond<'b>>>,
}

impl<'de> Deserialize<'de> for BatchCond {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BatchCond, D::Error> {
        UncheckedCond::deserialize(deserializer)?.check(1)
    }
}

impl UncheckedCond<'_> {
    fn check<E: serde::de::Error>(self, depth: usize) -> Result<BatchCond, E> {
        if depth > CONDITION_DEPTH_MAX {
            return Err(E::custom(format_args!(
                "a batch condition is nested deeper than {CONDITION_DEPTH_MAX} levels"
            )));
        }
        let check_all = |conds: Vec<UncheckedCond<'_>>| -> Result<Vec<BatchCond>, E> {
            conds.into_iter().map(|cond| cond.check(depth + 1)).collect()
        };
        Ok(match self.kind.as_ref() {
            "ok" => BatchCond::Ok { step: required(self.step, "step")? },
            "error" => BatchCond::Error { step: required(self.step, "step")? },
            "not" => {
                let cond: Box<UncheckedCond<'_>> = required(self.cond, "cond")?;
                BatchCond::Not { cond: Box::new(cond.check(depth + 1)?) }
            }
            "and" => BatchCond::And { conds: check_all(required(self.conds, "conds")?)? },
            "or" => BatchCond::Or { conds: check_all(required(self.conds, "conds")?)? },
            "is_autocommit" => BatchCond::IsAutocommit,
            other => return Err(unknown_type("batch condition", other)),
        })
    }
}

fn required<T, E: serde::de::Error>(field: Option<T>, name: &'static str) -> Result<T, E> {
    field.ok_or_else(|| E::missing_field(name))
}

fn unknown_type<E: serde::de::Error>(what: &str, kind: &str) -> E {
    E::custom(format_args!("unknown type of {what}: `{}`", shorten(kind, ECHO_CHARS_MAX)))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
