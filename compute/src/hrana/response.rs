//! The answer to a pipeline: one result or error for each of its requests, in order.

use super::error::HranaError;
use super::json::{Object, WriteJson};
use super::result::{BatchResult, DescribeResult, StmtResult};

/// The body of a pipeline's 200 answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PipelineResponseBody {
    /// `None` once the stream holds no state: clients then start a new one.
    pub baton: Option<String>,
    pub base_url: Option<String>,
    pub results: Vec<Result<StreamResponse, HranaError>>,
}

/// The answer to one request. Its `type` is the request's.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamResponse {
    Execute { result: StmtResult },
    Batch { result: BatchResult },
    Sequence,
    Describe { result: DescribeResult },
    StoreSql,
    CloseSql,
    GetAutocommit { is_autocommit: bool },
    Close,
}

impl WriteJson for PipelineResponseBody {
    fn write_json(&self, out: &mut Vec<u8>) {
        Object::begin(out)
            .field("baton", &self.baton)
            .field("base_url", &self.base_url)
            .field("results", &self.results)
            .end();
    }
}

impl WriteJson for Result<StreamResponse, HranaError> {
    fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Ok(response) => {
                Object::begin(out).field("type", "ok").field("response", response).end();
            }
            Err(error) => Object::begin(out).field("type", "error").field("error", error).end(),
        }
    }
}

impl WriteJson for StreamResponse {
    fn write_json(&self, out: &mut Vec<u8>) {
        let object = Object::begin(out);
        match self {
            StreamResponse::Execute { result } => {
                object.field("type", "execute").field("result", result).end();
            }
            StreamResponse::Batch { result } => {
                object.field("type", "batch").field("result", result).end();
            }
            StreamResponse::Describe { result } => {
                object.field("type", "describe").field("result", result).end();
            }
            StreamResponse::GetAutocommit { is_autocommit } => {
                object.field("type", "get_autocommit").field("is_autocommit", is_autocommit).end();
            }
            StreamResponse::Sequence => object.field("type", "sequence").end(),
            StreamResponse::StoreSql => object.field("type", "store_sql").end(),
            StreamResponse::CloseSql => object.field("type", "close_sql").end(),
            StreamResponse::Close => object.field("type", "close").end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &PipelineResponseBody) -> String {
        String::from_utf8(body.to_json()).unwrap()
    }

    #[test]
    fn an_empty_pipeline_has_nulls_and_an_empty_list() {
        let body = PipelineResponseBody::default();
        assert_eq!(text(&body), r#"{"baton":null,"base_url":null,"results":[]}"#);
    }

    #[test]
    fn every_kind_of_answer_has_its_json() {
        let body = PipelineResponseBody {
            baton: Some("b".into()),
            base_url: Some("http://n1/db/x/".into()),
            results: vec![
                Ok(StreamResponse::Execute { result: StmtResult::default() }),
                Ok(StreamResponse::Batch { result: BatchResult::default() }),
                Ok(StreamResponse::Describe { result: DescribeResult::default() }),
                Ok(StreamResponse::GetAutocommit { is_autocommit: true }),
                Ok(StreamResponse::Sequence),
                Ok(StreamResponse::StoreSql),
                Ok(StreamResponse::CloseSql),
                Ok(StreamResponse::Close),
                Err(HranaError::no_statement()),
            ],
        };
        let expected = concat!(
            r#"{"baton":"b","base_url":"http://n1/db/x/","results":["#,
            r#"{"type":"ok","response":{"type":"execute","result":{"cols":[],"rows":[],"affected_row_count":0,"#,
            r#""last_insert_rowid":null,"replication_index":null,"rows_read":0,"rows_written":0,"query_duration_ms":0.0}}},"#,
            r#"{"type":"ok","response":{"type":"batch","result":{"step_results":[],"step_errors":[],"replication_index":null}}},"#,
            r#"{"type":"ok","response":{"type":"describe","result":{"params":[],"cols":[],"is_explain":false,"is_readonly":false}}},"#,
            r#"{"type":"ok","response":{"type":"get_autocommit","is_autocommit":true}},"#,
            r#"{"type":"ok","response":{"type":"sequence"}},"#,
            r#"{"type":"ok","response":{"type":"store_sql"}},"#,
            r#"{"type":"ok","response":{"type":"close_sql"}},"#,
            r#"{"type":"ok","response":{"type":"close"}},"#,
            r#"{"type":"error","error":{"message":"SQL string does not contain any statement","code":"SQL_NO_STATEMENT"}}"#,
            r#"]}"#,
        );
        assert_eq!(text(&body), expected);
    }
}
