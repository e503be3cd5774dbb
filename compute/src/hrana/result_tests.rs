use super::*;
use crate::hrana::value::Value;

fn text(value: &impl WriteJson) -> String {
    String::from_utf8(value.to_json()).unwrap()
}

fn one_row() -> StmtResult {
    let mut rows = Rows::default();
    rows.push([ValueRef::Integer(42), ValueRef::Null]);
    StmtResult {
        cols: vec![
            Col { name: Some("x".into()), decltype: Some("INT".into()) },
            Col { name: Some("count(*)".into()), decltype: None },
        ],
        rows,
        affected_row_count: 1,
        last_insert_rowid: Some((1 << 53) + 1),
        replication_index: Some(2),
        rows_read: 3,
        rows_written: 4,
        query_duration_ms: 0.25,
    }
}

const ONE_ROW: &str = concat!(
    r#"{"cols":[{"name":"x","decltype":"INT"},{"name":"count(*)","decltype":null}],"#,
    r#""rows":[[{"type":"integer","value":"42"},{"type":"null"}]],"#,
    r#""affected_row_count":1,"last_insert_rowid":"9007199254740993","replication_index":"2","#,
    r#""rows_read":3,"rows_written":4,"query_duration_ms":0.25}"#,
);

#[test]
fn a_statements_result_has_its_big_numbers_in_strings() {
    assert_eq!(text(&one_row()), ONE_ROW);
}

#[test]
fn a_batch_has_a_result_an_error_or_neither_for_each_step() {
    let batch = BatchResult {
        step_results: vec![Some(one_row()), None, None],
        step_errors: vec![None, Some(HranaError::sqlite(1, "no such table: nope", None)), None],
        replication_index: Some(u64::MAX),
    };
    let expected = format!(
        r#"{{"step_results":[{ONE_ROW},null,null],"step_errors":[null,{},null],"replication_index":"18446744073709551615"}}"#,
        r#"{"message":"SQLite error: no such table: nope","code":"SQLITE_UNKNOWN"}"#
    );
    assert_eq!(text(&batch), expected);
}

#[test]
fn a_description_names_parameters_and_columns() {
    let description = DescribeResult {
        params: vec![DescribeParam { name: Some(":x".into()) }, DescribeParam { name: None }],
        cols: vec![DescribeCol { name: "a".into(), decltype: Some("TEXT".into()) }],
        is_explain: false,
        is_readonly: true,
    };
    assert_eq!(
        text(&description),
        r#"{"params":[{"name":":x"},{"name":null}],"cols":[{"name":"a","decltype":"TEXT"}],"is_explain":false,"is_readonly":true}"#
    );
}

#[test]
fn rows_are_counted_and_measured_as_they_come() {
    let mut rows = Rows::default();
    assert_eq!((rows.count(), text(&rows).as_str()), (0, "[]"));
    rows.push([]);
    assert_eq!((rows.count(), text(&rows).as_str()), (1, "[[]]"));
    rows.push([Value::Text("a".into()).as_value_ref()]);
    assert_eq!((rows.count(), text(&rows).as_str()), (2, r#"[[],[{"type":"text","value":"a"}]]"#));
    assert_eq!(rows.bytes() + "[]".len(), text(&rows).len());
}
