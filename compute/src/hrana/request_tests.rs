use super::*;
use crate::hrana::condition::{StepOutcome, evaluate};
use proptest::prelude::*;

fn parse(json: &str) -> Result<PipelineRequestBody, String> {
    PipelineRequestBody::parse(json.as_bytes()).map_err(|error| error.to_string())
}

fn parse_one(request: &str) -> Result<StreamRequest, String> {
    let body = parse(&format!(r#"{{"baton":null,"requests":[{request}]}}"#))?;
    Ok(body.requests.into_iter().next().unwrap())
}

fn parse_condition(condition: &str) -> Result<BatchCond, String> {
    let step = format!(r#"{{"condition":{condition},"stmt":{{"sql":"SELECT 1"}}}}"#);
    match parse_one(&format!(r#"{{"type":"batch","batch":{{"steps":[{step}]}}}}"#))? {
        StreamRequest::Batch { batch } => Ok(batch.steps.into_iter().next().unwrap().condition.unwrap()),
        other => panic!("{other:?}"),
    }
}

fn given(sql: &str) -> SqlSource {
    SqlSource { sql: Some(sql.into()), sql_id: None }
}

fn stored(sql_id: i32) -> SqlSource {
    SqlSource { sql: None, sql_id: Some(sql_id) }
}

fn plain(sql: SqlSource) -> Stmt {
    Stmt { sql, args: vec![], named_args: vec![], want_rows: true, replication_index: None }
}

#[test]
fn every_type_of_request_is_read() {
    let body = parse(
        r#"{"baton":"abc","requests":[
            {"type":"execute","stmt":{"sql":"SELECT ?","args":[{"type":"integer","value":"1"}],"named_args":[],"want_rows":false}},
            {"type":"execute","stmt":{"sql_id":-7,"named_args":[{"name":":a","value":{"type":"null"}}]}},
            {"type":"batch","batch":{"steps":[]}},
            {"type":"sequence","sql":"SELECT 1; SELECT 2"},
            {"type":"sequence","sql_id":3},
            {"type":"describe","sql":""},
            {"type":"store_sql","sql_id":2147483647,"sql":"SELECT 1"},
            {"type":"close_sql","sql_id":-2147483648},
            {"type":"get_autocommit"},
            {"type":"close"}]}"#,
    )
    .unwrap();
    let with_args = Stmt { args: vec![Value::Integer(1)], want_rows: false, ..plain(given("SELECT ?")) };
    let named = NamedArg { name: ":a".into(), value: Value::Null };
    assert_eq!(body.baton.as_deref(), Some("abc"));
    assert_eq!(
        body.requests,
        [
            StreamRequest::Execute { stmt: with_args },
            StreamRequest::Execute { stmt: Stmt { named_args: vec![named], ..plain(stored(-7)) } },
            StreamRequest::Batch { batch: Batch { steps: vec![], replication_index: None } },
            StreamRequest::Sequence { sql: given("SELECT 1; SELECT 2") },
            StreamRequest::Sequence { sql: stored(3) },
            StreamRequest::Describe { sql: given("") },
            StreamRequest::StoreSql { sql_id: i32::MAX, sql: "SELECT 1".into() },
            StreamRequest::CloseSql { sql_id: i32::MIN },
            StreamRequest::GetAutocommit,
            StreamRequest::Close,
        ]
    );
}

#[test]
fn absent_null_and_unknown_fields_do_no_harm() {
    let expected = StreamRequest::Execute { stmt: plain(given("SELECT 1")) };
    for request in [
        r#"{"type":"execute","stmt":{"sql":"SELECT 1"}}"#,
        r#"{"stmt":{"want_rows":null,"sql":"SELECT 1"},"type":"execute"}"#,
        r#"{"type":"execute","stmt":{"sql":"SELECT 1","sql_id":null,"args":null,"named_args":null,"want_rows":null}}"#,
        r#"{"type":"execute","stmt":{"sql":"SELECT 1","hint":"12"},"sql":null}"#,
        r#"{"type":"execute","stmt":{"sql":"SELECT 1","hint":12},"future":{"a":[1]}}"#,
        r#"{"\u0074ype":"\u0065xecute","stmt":{"sql":"SELECT\u00201","replication_index":null}}"#,
    ] {
        assert_eq!(parse_one(request), Ok(expected.clone()), "{request}");
    }
    let empty = PipelineRequestBody { baton: None, requests: vec![] };
    assert_eq!(parse(r#"{"requests":[]}"#), Ok(empty.clone()));
    assert_eq!(parse(r#"{"x":1,"requests":[],"baton":null}"#), Ok(empty));
}

#[test]
fn what_a_client_has_seen_is_read_as_text_and_as_number() {
    let index = |request: &str| parse_one(request).expect(request).replication_index();
    for stmt in [r#"{"sql":"SELECT 1","replication_index":"12"}"#, r#"{"replication_index":12,"sql":"SELECT 1"}"#] {
        assert_eq!(index(&format!(r#"{{"type":"execute","stmt":{stmt}}}"#)), Some(12));
        let batch = format!(r#"{{"type":"batch","batch":{{"steps":[{{"stmt":{stmt}}}],"replication_index":"9"}}}}"#);
        assert_eq!(index(&batch), Some(12), "the highest");
    }
    assert_eq!(index(r#"{"type":"close"}"#), None);
    assert!(parse_one(r#"{"type":"execute","stmt":{"sql":"SELECT 1","replication_index":"-1"}}"#).is_err());
}

#[test]
fn a_batch_and_its_conditions_are_read() {
    let cursor = CursorRequestBody::parse(
        br#"{"baton":null,"batch":{"replication_index":"1","steps":[
            {"stmt":{"sql":"BEGIN"}},
            {"condition":null,"stmt":{"sql":"A"}},
            {"condition":{"type":"ok","step":0},"stmt":{"sql":"B"}},
            {"condition":{"type":"not","cond":{"type":"error","step":2}},"stmt":{"sql":"C"}},
            {"condition":{"type":"and","conds":[{"type":"is_autocommit"},{"type":"or","conds":[]}]},"stmt":{"sql":"D"}}]}}"#,
    )
    .unwrap();
    assert_eq!(cursor.baton, None);
    let conditions: Vec<_> = cursor.batch.steps.into_iter().map(|step| step.condition).collect();
    let not = BatchCond::Not { cond: Box::new(BatchCond::Error { step: 2 }) };
    let and = BatchCond::And { conds: vec![BatchCond::IsAutocommit, BatchCond::Or { conds: vec![] }] };
    assert_eq!(conditions, [None, None, Some(BatchCond::Ok { step: 0 }), Some(not), Some(and)]);
}

#[test]
fn what_cannot_be_understood_fails_as_a_whole_and_says_why() {
    for (json, message) in [
        ("", "EOF while parsing"),
        ("null", "invalid type: null"),
        ("[]", "invalid length 1, expected a body such as"),
        ("{}", "missing field `requests`"),
        (r#"{"requests":{}}"#, "expected a sequence"),
        (r#"{"requests":[{}]}"#, "missing field `type`"),
        (r#"{"requests":[{"type":"shutdown"}]}"#, "unknown type of request: `shutdown`"),
        (r#"{"requests":[{"type":"execute"}]}"#, "missing field `stmt`"),
        (r#"{"requests":[{"type":"batch"}]}"#, "missing field `batch`"),
        (r#"{"requests":[{"type":"store_sql","sql":"x"}]}"#, "missing field `sql_id`"),
        (r#"{"requests":[{"type":"store_sql","sql_id":1}]}"#, "missing field `sql`"),
        (r#"{"requests":[{"type":"close_sql","sql_id":2147483648}]}"#, "expected i32"),
        (r#"{"requests":[{"type":"execute","stmt":{"sql":5}}]}"#, "expected a string"),
        (
            r#"{"requests":[{"type":"execute","stmt":{"sql":"S","args":[{"type":"integer","value":1}]}}]}"#,
            "JSON number 1",
        ),
        (r#"{"requests":[{"type":"execute","stmt":{"sql":"S","args":[5]}}]}"#, "invalid type: integer `5`"),
        (r#"{"baton":5,"requests":[]}"#, "expected a string"),
        (r#"{"requests":[]} x"#, "trailing characters"),
        (r#"{"requests":[],"requests":[]}"#, "duplicate field `requests`"),
    ] {
        let error = parse(json).unwrap_err();
        assert!(error.starts_with("Cannot deserialize client message from JSON: "), "{error}");
        assert!(error.contains(message), "{json}: {error}");
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_refused() {
    let error = PipelineRequestBody::parse(b"{\"requests\":[{\"type\":\"sequence\",\"sql\":\"\xff\"}]}").unwrap_err();
    assert!(matches!(error, ProtocolError::Json { .. }), "{error}");
}

#[test]
fn a_message_does_not_repeat_a_hostile_text_whole() {
    let long = "x".repeat(1 << 20);
    for request in [
        format!(r#"{{"type":"{long}"}}"#),
        format!(r#"{{"type":"close_sql","sql_id":"{long}"}}"#),
        format!(r#"{{"type":"execute","stmt":"{long}"}}"#),
    ] {
        let error = parse_one(&request).unwrap_err();
        assert!(error.len() < 500, "{} bytes", error.len());
        assert!(error.contains("line 1 column"), "{error}");
    }
}

fn nested(levels: usize, open: &str, close: &str) -> String {
    format!("{}{}{}", open.repeat(levels - 1), r#"{"type":"ok","step":0}"#, close.repeat(levels - 1))
}

#[test]
fn conditions_nest_to_the_limit_and_no_deeper() {
    for (open, close) in [(r#"{"type":"not","cond":"#, "}"), (r#"{"type":"and","conds":["#, "]}")] {
        let deepest = parse_condition(&nested(CONDITION_DEPTH_MAX, open, close)).unwrap();
        assert!(evaluate(&deepest, &[StepOutcome::Ok], &|| true).is_ok());
        let error = parse_condition(&nested(CONDITION_DEPTH_MAX + 1, open, close)).unwrap_err();
        assert!(error.contains("a batch condition is nested deeper than 50 levels"), "{error}");
        let error = parse_condition(&nested(100_000, open, close)).unwrap_err();
        assert!(error.contains("recursion limit exceeded"), "{error}");
    }
}

#[test]
fn unknown_fields_are_skipped_however_deep_they_nest() {
    // Were they skipped recursively, this would overflow the stack of the test's thread.
    let deep = format!(r#"{{"requests":[],"x":{}{}}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert_eq!(parse(&deep), Ok(PipelineRequestBody { baton: None, requests: vec![] }));
}

#[test]
fn malformed_conditions_are_refused() {
    for (condition, message) in [
        (r#"{"type":"maybe"}"#, "unknown type of batch condition: `maybe`"),
        (r#"{"type":"ok"}"#, "missing field `step`"),
        (r#"{"type":"ok","step":-1}"#, "expected u32"),
        (r#"{"type":"error","step":4294967296}"#, "expected u32"),
        (r#"{"type":"not"}"#, "missing field `cond`"),
        (r#"{"type":"and","conds":null}"#, "missing field `conds`"),
        (r#"{"type":"or"}"#, "missing field `conds`"),
    ] {
        let error = parse_condition(condition).unwrap_err();
        assert!(error.contains(message), "{condition}: {error}");
    }
}

#[test]
fn sql_is_given_or_stored_but_not_both() {
    let texts = BTreeMap::from([(4, "SELECT 4".to_owned())]);
    let both = SqlSource { sql: Some("x".into()), sql_id: Some(4) };
    assert_eq!(given("x").text(&texts), Ok("x"));
    assert_eq!(stored(4).text(&texts), Ok("SELECT 4"));
    assert_eq!(stored(5).text(&texts), Err(ProtocolError::SqlTextNotFound { sql_id: 5 }));
    assert_eq!(SqlSource::default().text(&texts), Err(ProtocolError::SqlMissing));
    assert_eq!(both.text(&texts), Err(ProtocolError::SqlAndSqlId));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = PipelineRequestBody::parse(&body);
        let _ = CursorRequestBody::parse(&body);
    }

    #[test]
    fn a_cut_body_is_refused(cut in 0usize..88) {
        let whole = r#"{"baton":null,"requests":[{"type":"execute","stmt":{"sql":"SELECT 1"}},{"type":"close"}]}"#;
        prop_assert!(parse(whole).is_ok());
        prop_assert!(parse(&whole[..cut]).is_err());
    }
}
