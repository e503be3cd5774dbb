use super::*;
use proptest::prelude::*;

fn read(json: &str) -> Result<Value, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

fn written(value: &Value) -> String {
    String::from_utf8(value.to_json()).unwrap()
}

/// Equal down to the bit, so that −0.0 and 0.0 differ.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}

#[test]
fn each_type_has_its_json_and_reads_back_the_same() {
    let blob = Value::Blob(Bytes::from_static(&[0xde, 0xad, 0xbe, 0xef]));
    for (value, json) in [
        (Value::Null, r#"{"type":"null"}"#),
        (Value::Integer(42), r#"{"type":"integer","value":"42"}"#),
        (Value::Integer(i64::MIN), r#"{"type":"integer","value":"-9223372036854775808"}"#),
        (Value::Integer(i64::MAX), r#"{"type":"integer","value":"9223372036854775807"}"#),
        (Value::Integer((1 << 53) + 1), r#"{"type":"integer","value":"9007199254740993"}"#),
        (Value::Float(0.5), r#"{"type":"float","value":0.5}"#),
        (Value::Float(-0.0), r#"{"type":"float","value":-0.0}"#),
        (Value::Float(9007199254740993.0), r#"{"type":"float","value":9007199254740992.0}"#),
        (Value::Text(String::new()), r#"{"type":"text","value":""}"#),
        (Value::Text("a\0\"é😀\n".into()), r#"{"type":"text","value":"a\u0000\"é😀\n"}"#),
        (Value::Blob(Bytes::new()), r#"{"type":"blob","base64":""}"#),
        (blob, r#"{"type":"blob","base64":"3q2+7w"}"#),
    ] {
        assert_eq!(written(&value), json);
        assert!(same(&read(json).unwrap(), &value), "{json}");
    }
}

#[test]
fn fields_come_in_any_order_and_unknown_ones_are_ignored() {
    let seven = Ok(Value::Integer(7));
    assert_eq!(read(r#"{"value":"7","type":"integer"}"#), seven);
    assert_eq!(read(r#"{"x":[{}],"value":"7","base64":null,"type":"integer"}"#), seven);
    assert_eq!(read(r#"{"type":"null","value":null}"#), Ok(Value::Null));
}

#[test]
fn floats_may_be_written_as_whole_numbers() {
    for (number, float) in [
        ("3", 3.0),
        ("-3", -3.0),
        ("0", 0.0),
        ("-0", -0.0),
        ("-0.0", -0.0),
        ("18446744073709551615", 18446744073709551615.0),
        ("9007199254740993", 9007199254740992.0),
        ("100000000000000000000", 1e20),
        ("1e2", 100.0),
    ] {
        let value = read(&format!(r#"{{"type":"float","value":{number}}}"#)).unwrap();
        assert!(same(&value, &Value::Float(float)), "{number}: {value:?}");
    }
}

#[test]
fn floats_that_are_hard_to_read_are_read_exactly() {
    // Each differs in the last bit if the parser rounds twice.
    for text in ["2.2250738585072014e-308", "9007199254740992.5", "1.00000000000000011102230246251565", "8.533e+68"] {
        let value = read(&format!(r#"{{"type":"float","value":{text}}}"#)).unwrap();
        assert!(same(&value, &Value::Float(text.parse().unwrap())), "{text}");
    }
}

#[test]
fn blobs_are_read_with_and_without_padding_of_the_standard_alphabet_only() {
    let blob = Ok(Value::Blob(Bytes::from_static(&[0xfb, 0xff])));
    assert_eq!(read(r#"{"type":"blob","base64":"+/8"}"#), blob);
    assert_eq!(read(r#"{"type":"blob","base64":"+/8="}"#), blob);
    assert_eq!(read(r#"{"type":"blob","base64":"\u002b/8="}"#), blob);
    for base64 in ["-_8", "+/8==", "+ /8", "+", "é", "=", "+/9"] {
        let error = read(&format!(r#"{{"type":"blob","base64":"{base64}"}}"#)).unwrap_err();
        assert!(error.contains("not base64"), "{error}");
    }
}

#[test]
fn a_refused_value_says_what_is_wrong_with_it() {
    for (json, message) in [
        (
            r#"{"type":"integer","value":42}"#,
            "must be a decimal number in a string, such as \"42\", but it is the JSON number 42",
        ),
        (r#"{"type":"integer","value":4.5}"#, "but it is the JSON number 4.5"),
        (r#"{"type":"integer","value":null}"#, "but it is missing or null"),
        (r#"{"type":"integer"}"#, "but it is missing or null"),
        (
            r#"{"type":"integer","value":"9223372036854775808"}"#,
            "`9223372036854775808` is not a decimal integer of 64 bits",
        ),
        (r#"{"type":"integer","value":"0x10"}"#, "is not a decimal integer"),
        (r#"{"type":"integer","value":""}"#, "is not a decimal integer"),
        (r#"{"type":"float","value":"1.5"}"#, "must be a finite JSON number, but it is the string `1.5`"),
        (r#"{"type":"float","value":null}"#, "must be a finite JSON number, but it is missing or null"),
        (r#"{"type":"float","value":1e999}"#, "number out of range"),
        (r#"{"type":"float","value":NaN}"#, "expected"),
        (r#"{"type":"text","value":5}"#, "must be a string, but it is the JSON number 5"),
        (r#"{"type":"text","value":true}"#, "must be a string, but it is true"),
        (r#"{"type":"text","value":["a"]}"#, "expected a string or a number"),
        (r#"{"type":"text","value":"\ud800"}"#, "hex escape"),
        (r#"{"type":"blob","value":"AA"}"#, "needs the field `base64`"),
        (r#"{"type":"blob","base64":7}"#, "needs the field `base64`"),
        (r#"{"type":"boolean","value":true}"#, "unknown value type `boolean`"),
        (r#"{"value":"7"}"#, "missing field `type`"),
        (r#"null"#, "invalid type: null"),
        (r#"7"#, "invalid type: integer"),
    ] {
        let error = read(json).unwrap_err();
        assert!(error.contains(message), "{json}: {error}");
    }
}

#[test]
fn errors_repeat_only_the_beginning_and_the_end_of_long_texts() {
    let long = "x".repeat(1 << 20);
    for json in [
        format!(r#"{{"type":"{long}"}}"#),
        format!(r#"{{"type":"integer","value":"{long}"}}"#),
        format!(r#"{{"type":"float","value":"{long}"}}"#),
    ] {
        let error = read(&json).unwrap_err();
        assert!(error.len() < 400, "{} bytes", error.len());
    }
}

#[test]
fn infinities_go_out_as_numbers_beyond_range_and_broken_text_with_replacement_characters() {
    for (value, json) in [
        (ValueRef::Float(f64::INFINITY), r#"{"type":"float","value":1e999}"#),
        (ValueRef::Float(f64::NEG_INFINITY), r#"{"type":"float","value":-1e999}"#),
        (ValueRef::Float(f64::NAN), r#"{"type":"float","value":null}"#),
        (ValueRef::Text(b"a\xff\xc3b\xc3\xa9"), "{\"type\":\"text\",\"value\":\"a\u{fffd}\u{fffd}bé\"}"),
    ] {
        assert_eq!(String::from_utf8(value.to_json()).unwrap(), json);
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        // Every bit pattern but those that JSON has no number for.
        any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |f| f.is_finite()).prop_map(Value::Float),
        any::<String>().prop_map(Value::Text),
        proptest::collection::vec(any::<u8>(), 0..100).prop_map(|blob| Value::Blob(blob.into())),
    ]
}

proptest! {
    #[test]
    fn every_value_survives_the_trip(value in any_value()) {
        let back = read(&written(&value)).unwrap();
        prop_assert!(same(&back, &value), "{:?} became {:?}", value, back);
    }

    #[test]
    fn what_is_written_is_json_even_for_text_that_is_not_utf_8(text in proptest::collection::vec(any::<u8>(), 0..60)) {
        let json: serde_json::Value = serde_json::from_slice(&ValueRef::Text(&text).to_json()).unwrap();
        prop_assert_eq!(json["value"].as_str().unwrap(), String::from_utf8_lossy(&text));
    }

    #[test]
    fn no_input_makes_reading_panic(json in r#"\{("(type|value|base64)":("(null|integer|float|text|blob|[-0-9a-zA-Z+/=]{0,9})"|[-0-9.e]{1,9}|null),?){0,4}\}"#) {
        let _ = read(&json);
    }
}
