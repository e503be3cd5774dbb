use super::*;

fn row(json: &str) -> Result<CursorEntry, NotHrana> {
    read_cursor_entry(&format!(r#"{{"type":"row","row":[{json}]}}"#))
}

#[test]
fn every_type_is_read_exactly() {
    for (json, cell) in [
        (r#"{"type":"null"}"#, Cell::Null),
        (r#"{"type":"null","value":null}"#, Cell::Null),
        (r#"{"type":"integer","value":"-9223372036854775808"}"#, Cell::Integer(i64::MIN)),
        (r#"{"type":"integer","value":"9007199254740993"}"#, Cell::Integer(9_007_199_254_740_993)),
        (r#"{"type":"float","value":0.1}"#, Cell::Real(0.1)),
        (r#"{"type":"float","value":1}"#, Cell::Real(1.0)),
        (r#"{"type":"float","value":null}"#, Cell::Infinite),
        (r#"{"type":"float","value":-1e999}"#, Cell::Infinite),
        (r#"{"type":"text","value":""}"#, Cell::Text(String::new())),
        (r#"{"type":"text","value":"a\u0000\"é"}"#, Cell::Text("a\0\"é".into())),
        (r#"{"type":"blob","base64":""}"#, Cell::Blob(vec![])),
        (r#"{"type":"blob","base64":"AAH/"}"#, Cell::Blob(vec![0, 1, 255])),
        (r#"{"type":"blob","base64":"AA=="}"#, Cell::Blob(vec![0])),
    ] {
        assert_eq!(row(json).expect(json), CursorEntry::Row(vec![cell]), "{json}");
    }
    let Ok(CursorEntry::Row(zero)) = row(r#"{"type":"float","value":-0.0}"#) else { panic!("-0.0") };
    assert!(matches!(zero[..], [Cell::Real(zero)] if zero == 0.0 && zero.is_sign_negative()));
}

#[test]
fn floats_come_back_to_the_last_bit() {
    let mut bits = 0x3ff0_0000_0000_0001_u64;
    for _ in 0..10_000 {
        // A fixed walk over all exponents (an LCG's constants): the same floats in every run.
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let float = f64::from_bits(bits);
        if float.is_finite() {
            assert_eq!(read_float(&format!("{float:e}")), Some(Cell::Real(float)));
        }
    }
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for json in [
        r#"{"type":"integer","value":"x"}"#,
        r#"{"type":"integer","value":"9223372036854775808"}"#,
        r#"{"type":"integer"}"#,
        r#"{"type":"float","value":"1"}"#,
        r#"{"type":"text","value":1}"#,
        r#"{"type":"blob","base64":"?"}"#,
        r#"{"type":"blob"}"#,
        r#"{"type":"date"}"#,
        r#"{}"#,
        "1",
    ] {
        assert!(row(json).is_err(), "{json}");
    }
}

#[test]
fn a_batch_tells_done_failed_and_skipped_apart() {
    let response = r#"{"type":"batch","result":{
        "step_results":[{"cols":[{"name":"a","decltype":"INT"}],"rows":[[{"type":"null"}]],
                         "affected_row_count":0,"last_insert_rowid":null},null,null],
        "step_errors":[null,{"message":"no","code":"SQLITE_ERROR"},null]}}"#;
    let steps = read_batch(response, 3).expect("three steps");
    let rows = Rows { columns: vec!["a".into()], rows: vec![vec![Cell::Null]] };
    let error = SqlError { message: "no".into(), code: Some("SQLITE_ERROR".into()) };
    assert_eq!(steps, [Step::Done(rows), Step::Failed(error), Step::Skipped]);
    assert!(read_batch(response, 2).is_err());
}

#[test]
fn a_refusal_is_read_in_all_its_forms() {
    for (body, shown) in [
        (r#"{"message":"m","code":"C"}"#, "m (C)"),
        (r#"{"error":"e"}"#, "e"),
        (r#"{"error":{"message":"m","code":"C"}}"#, "m (C)"),
        ("plain text\n", "plain text"),
        (r#"{"message":"SQLITE_BUSY: m","code":"SQLITE_BUSY"}"#, "SQLITE_BUSY: m"),
    ] {
        assert_eq!(read_refusal(body).to_string(), shown);
    }
}
