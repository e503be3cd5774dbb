//! Which requests only read, as far as can be told from the first words of their statements.
//!
//! A wrong "no" costs nothing: the request goes to the owner's path, as without replicas. A wrong "yes" (`WITH …
//! INSERT`) costs the client an error at that statement, which says where to write. A transaction counts as reading only
//! if it says so (`BEGIN READONLY`) or ends in the same request: one that goes on may want to write.

use std::collections::BTreeMap;

use crate::core::Work;
use crate::hrana::request::{SqlSource, StreamRequest};
use crate::moment::Moment;
use crate::session::text;

/// Pragmas that tools look around with. They leave nothing behind in a connection.
const READING_PRAGMAS: [&str; 22] = [
    "application_id", "collation_list", "compile_options", "data_version", "database_list", "encoding",
    "foreign_key_check", "foreign_key_list", "freelist_count", "function_list", "index_info", "index_list",
    "index_xinfo", "integrity_check", "page_count", "page_size", "quick_check", "schema_version", "table_info",
    "table_list", "table_xinfo", "user_version",
];

/// What a request wants of a database, besides what its statements say.
#[derive(Clone, Copy, Debug)]
pub struct Asks {
    /// Another state than the present one.
    pub at: Option<Moment>,
    pub only_reads: bool,
    /// The last commit (raw) that the client has seen.
    pub min_lsn: u64,
}

pub fn only_reads(work: &Work) -> bool {
    let mut stored = BTreeMap::new();
    let mut transaction = Transaction::default();
    match work {
        Work::Local { .. } => false,
        Work::Download { .. } => true,
        Work::Cursor { batch, .. } => {
            batch.steps.iter().all(|step| transaction.reads(&step.stmt.sql, &stored)) && !transaction.is_open
        }
        Work::Pipeline { requests, .. } => {
            let all = requests.iter().all(|request| match request {
                StreamRequest::Execute { stmt } => transaction.reads(&stmt.sql, &stored),
                StreamRequest::Batch { batch } => {
                    batch.steps.iter().all(|step| transaction.reads(&step.stmt.sql, &stored))
                }
                StreamRequest::StoreSql { sql_id, sql } => {
                    stored.insert(*sql_id, sql.clone());
                    true
                }
                StreamRequest::Sequence { .. } => false,
                StreamRequest::Describe { .. }
                | StreamRequest::CloseSql { .. }
                | StreamRequest::GetAutocommit
                | StreamRequest::Close => true,
            });
            all && !transaction.is_open && requests.iter().any(runs_sql)
        }
    }
}

fn runs_sql(request: &StreamRequest) -> bool {
    matches!(request, StreamRequest::Execute { .. } | StreamRequest::Batch { .. } | StreamRequest::Describe { .. })
}

#[derive(Default)]
struct Transaction {
    is_open: bool,
}

impl Transaction {
    /// Whether a statement looks as if it only read.
    fn reads(&mut self, source: &SqlSource, stored: &BTreeMap<i32, String>) -> bool {
        // What makes no sense is the owner's to refuse.
        let Ok(sql) = source.text(stored) else { return false };
        let sql = text::without_preamble(sql);
        let mut words = sql.split(|letter: char| !letter.is_ascii_alphabetic() && letter != '_').filter(|word| !word.is_empty());
        let first = words.next().unwrap_or_default().to_ascii_uppercase();
        if !sql.get(..first.len()).is_some_and(|start| start.eq_ignore_ascii_case(&first)) {
            // No SQL.
            return false;
        }
        match first.as_str() {
            "BEGIN" if text::is_begin_read_only(sql) => true,
            "SELECT" | "VALUES" | "EXPLAIN" => true,
            "WITH" => !words.any(|word| ["INSERT", "UPDATE", "DELETE", "REPLACE"].iter().any(|it| word.eq_ignore_ascii_case(it))),
            "PRAGMA" => {
                let name = words.next().unwrap_or_default();
                READING_PRAGMAS.iter().any(|it| name.eq_ignore_ascii_case(it)) && !sql.contains('=')
            }
            "BEGIN" => match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "" | "DEFERRED" | "TRANSACTION" => {
                    self.is_open = true;
                    true
                }
                _ => false,
            },
            "COMMIT" | "END" | "ROLLBACK" => {
                self.is_open = false;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::hrana::request::PipelineRequestBody;

    fn pipeline(statements: &[&str]) -> bool {
        let requests: Vec<_> =
            statements.iter().map(|sql| serde_json::json!({"type": "execute", "stmt": {"sql": sql}})).collect();
        let body = serde_json::json!({"requests": requests}).to_string();
        let requests = PipelineRequestBody::parse(body.as_bytes()).expect("a pipeline").requests;
        only_reads(&Work::Pipeline { requests, reply: oneshot::channel().0 })
    }

    #[test]
    fn reads_are_told_from_what_may_write() {
        for reads in [
            &["SELECT 1"][..],
            &["  select 1"],
            &["WITH a AS (SELECT 1) SELECT * FROM a"],
            &["BEGIN", "SELECT 1", "COMMIT"],
            &["BEGIN DEFERRED TRANSACTION", "SELECT 1", "ROLLBACK"],
            &["BEGIN READONLY"],
            &["BEGIN TRANSACTION READONLY"],
            &["-- a comment\nSELECT 1", "/* another */ select 2"],
            &["EXPLAIN SELECT 1", "VALUES (1)"],
            &["PRAGMA table_info('t')", "pragma user_version"],
        ] {
            assert!(pipeline(reads), "{reads:?}");
        }
        for may_write in [
            &["INSERT INTO t VALUES (1)"][..],
            &["SELECT 1", "DELETE FROM t"],
            &["WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a"],
            &["BEGIN"],
            &["BEGIN IMMEDIATE", "SELECT 1", "COMMIT"],
            &["PRAGMA user_version = 3"],
            &["PRAGMA incremental_vacuum"],
            &["PRAGMA foreign_keys"],
            &["-- a comment\nDELETE FROM t"],
            &["/* SELECT */ DELETE FROM t"],
            &[""],
            &[],
        ] {
            assert!(!pipeline(may_write), "{may_write:?}");
        }
    }
}
