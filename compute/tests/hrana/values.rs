//! SQL values exactly, in and out.

use serde_json::{Value, json};

use crate::support::*;

/// Sends a value as an argument, stores it, and returns what SQLite says about it and what comes back.
#[track_caller]
fn stored(database: &Database, value: &Value) -> (Value, Value) {
    let results = database.pipeline(json!([
        execute("CREATE TABLE IF NOT EXISTS v(x)"),
        execute("DELETE FROM v"),
        execute_with("INSERT INTO v VALUES (?)", json!([value])),
        execute("SELECT x, typeof(x) FROM v"),
    ]));
    let row = &results[3]["response"]["result"]["rows"][0];
    (row[0].clone(), plain(&row[1]))
}

#[test]
fn every_value_comes_back_as_it_was_sent() {
    let server = Server::dev();
    let database = server.database("app");
    let integer = |value: &str| (json!({ "type": "integer", "value": value }), "integer");
    let float = |value: f64| (json!({ "type": "float", "value": value }), "real");
    let text = |value: &str| (json!({ "type": "text", "value": value }), "text");
    for (value, kind) in [
        (json!({ "type": "null" }), "null"),
        integer("0"),
        integer("-1"),
        integer("9007199254740993"),
        integer("-9007199254740993"),
        integer("9223372036854775807"),
        integer("-9223372036854775808"),
        float(0.5),
        float(1.0),
        float(0.1 + 0.2),
        float(f64::MAX),
        float(f64::MIN_POSITIVE),
        float(5e-324),
        float(9_007_199_254_740_993.0),
        text(""),
        text("a\u{0}b\u{0}"),
        text("\u{1F41F} schöne Grüße \u{200d}\u{feff} \u{10ffff}"),
        text("\"\\\n\r\t\u{7f}\u{1}"),
        (json!({ "type": "blob", "base64": "" }), "blob"),
        (json!({ "type": "blob", "base64": "AA" }), "blob"),
        (json!({ "type": "blob", "base64": "AP+A" }), "blob"),
    ] {
        assert_eq!(stored(&database, &value), (value.clone(), json!(kind)), "{value}");
    }
}

#[test]
fn the_sign_of_a_zero_survives_both_ways() {
    let server = Server::dev();
    let results = server.database("app").pipeline(json!([
        execute_with("SELECT ?, printf('%g', ?1)", json!([{ "type": "float", "value": -0.0 }])),
        execute("SELECT -0.0"),
    ]));
    for result in &results {
        let zero = result["response"]["result"]["rows"][0][0]["value"].as_f64().expect("a float");
        assert!(zero == 0.0 && zero.is_sign_negative(), "{zero:?}");
    }
}

#[test]
fn blobs_hold_every_byte_padded_or_not() {
    let server = Server::dev();
    let database = server.database("app");
    let hex: String = (0..=255u8).map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(database.rows(&format!("SELECT hex(x'{hex}'), length(x'{hex}')")), [json!([hex, 256])]);
    for (base64, hex) in [("AAE=", "0001"), ("AAE", "0001"), ("/+8=", "FFEF"), ("", "")] {
        let args = json!([{ "type": "blob", "base64": base64 }]);
        let results = database.pipeline(json!([execute_with("SELECT hex(?), typeof(?1)", args)]));
        assert_eq!(rows_of(&results[0]["response"]["result"]), [json!([hex, "blob"])]);
    }
}

#[test]
fn infinities_are_numbers_that_round_to_them_and_nan_is_null() {
    let server = Server::dev();
    let body = json!({ "requests": [execute("SELECT 9e999, -9e999, 9e999 - 9e999")] });
    let answer = server.database("app").post("v3/pipeline", body.to_string());
    let row = r#"[{"type":"float","value":1e999},{"type":"float","value":-1e999},{"type":"null"}]"#;
    assert!(answer.text.contains(row), "{}", answer.text);
    assert_eq!("1e999".parse(), Ok(f64::INFINITY));
}

#[test]
fn text_that_is_not_utf_8_is_repaired_on_its_way_out_only() {
    let server = Server::dev();
    let rows = server.database("app").rows("SELECT CAST(x'61FF62' AS TEXT), hex(CAST(x'61FF62' AS TEXT))");
    assert_eq!(rows, [json!(["a\u{fffd}b", "61FF62"])]);
}

#[test]
fn a_json_number_for_an_integer_is_refused_because_it_may_be_rounded_already() {
    let server = Server::dev();
    let stream = server.database("app").stream();
    for (value, phrase) in [
        (json!({ "type": "integer", "value": 5 }), "decimal number in a string"),
        (json!({ "type": "integer", "value": "9223372036854775808" }), "64 bits"),
        (json!({ "type": "integer", "value": "1.0" }), "64 bits"),
        (json!({ "type": "float", "value": "0.5" }), "finite JSON number"),
        (json!({ "type": "float", "value": null }), "finite JSON number"),
        (json!({ "type": "text", "value": 5 }), "string"),
        (json!({ "type": "blob", "base64": "*" }), "base64"),
        (json!({ "type": "blob", "value": "AA" }), "base64"),
        (json!({ "type": "date", "value": "2026-01-01" }), "date"),
    ] {
        let answer = stream.post(&json!([execute_with("SELECT ?", json!([value]))]));
        answer.assert_refused(400, "HRANA_PROTOCOL_ERROR", &["Cannot deserialize client message from JSON", phrase]);
    }
}
