//! SQL values and their JSON, exactly.
//!
//! | SQL | JSON |
//! |---|---|
//! | NULL | `{"type":"null"}` |
//! | INTEGER | `{"type":"integer","value":"-9223372036854775808"}`: a decimal *string*, both ways |
//! | REAL | `{"type":"float","value":0.5}`: a JSON number, written or read with or without a point |
//! | TEXT | `{"type":"text","value":"…"}` |
//! | BLOB | `{"type":"blob","base64":"…"}`: standard alphabet, unpadded out, padded or not in |
//!
//! A JSON number for an integer is refused: by the time it arrives, whoever wrote it may have
//! rounded it. SQLite has no NaN to send (it stores NULL). Text that is not UTF-8 can be stored in
//! SQLite through casts but has no JSON: each invalid sequence goes out as U+FFFD.
//!
//! Infinities go out as `1e999` and `-1e999`, JSON numbers that JavaScript (and most parsers) read as the
//! infinities that they are. libSQL's server sends `null`, which the protocol does not know for a float:
//! its JavaScript, Rust and Python clients refuse the whole answer for it, and others take it for NULL.
//! Clients whose parser refuses numbers beyond a double's range (Rust's, and Python's, which is built on it)
//! refuse ours too. Infinities can't come in as values; `9e999` in the SQL can.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD_INDIFFERENT as BASE64;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};

use super::error::shorten;
use super::json::{InString, WriteJson};
use super::limits::ECHO_CHARS_MAX;

/// A value that came from a client, or is kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Integer(i64),
    Float(f64),
    Text(String),
    Blob(Bytes),
}

/// A value on its way to a client, still in SQLite's memory. Text is bytes here, because SQLite
/// doesn't promise that it is UTF-8.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueRef<'v> {
    Null,
    Integer(i64),
    Float(f64),
    Text(&'v [u8]),
    Blob(&'v [u8]),
}

impl Value {
    pub fn as_value_ref(&self) -> ValueRef<'_> {
        match self {
            Value::Null => ValueRef::Null,
            Value::Integer(integer) => ValueRef::Integer(*integer),
            Value::Float(float) => ValueRef::Float(*float),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(blob) => ValueRef::Blob(blob),
        }
    }
}

impl WriteJson for Value {
    fn write_json(&self, out: &mut Vec<u8>) {
        self.as_value_ref().write_json(out);
    }
}

impl WriteJson for ValueRef<'_> {
    fn write_json(&self, out: &mut Vec<u8>) {
        match *self {
            ValueRef::Null => out.extend_from_slice(br#"{"type":"null""#),
            ValueRef::Integer(integer) => {
                out.extend_from_slice(br#"{"type":"integer","value":"#);
                InString(integer).write_json(out);
            }
            ValueRef::Float(float) => {
                out.extend_from_slice(br#"{"type":"float","value":"#);
                float.write_json(out);
            }
            ValueRef::Text(text) => {
                out.extend_from_slice(br#"{"type":"text","value":"#);
                String::from_utf8_lossy(text).write_json(out);
            }
            ValueRef::Blob(blob) => {
                out.extend_from_slice(br#"{"type":"blob","base64":""#);
                write_base64(out, blob);
                out.push(b'"');
            }
        }
        out.push(b'}');
    }
}

fn write_base64(out: &mut Vec<u8>, blob: &[u8]) {
    let start = out.len();
    out.resize(start + blob.len().div_ceil(3) * 4, 0);
    let written = BASE64.encode_slice(blob, &mut out[start..]).expect("BUG: room for 4 per 3 bytes");
    out.truncate(start + written);
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        let unchecked = UncheckedValue::deserialize(deserializer)?;
        unchecked.check().map_err(D::Error::custom)
    }
}

/// A value's JSON before its fields are matched against its type, since they may come in any
/// order.
#[derive(serde::Deserialize)]
#[serde(expecting = "a value such as {\"type\":\"null\"}")]
struct UncheckedValue<'b> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'b, str>,
    #[serde(default, borrow)]
    value: Option<Scalar<'b>>,
    #[serde(default, borrow)]
    base64: Option<Scalar<'b>>,
}

/// What stands after `"value":` or `"base64":`. Borrowed from the request's bytes where these
/// hold the text as it is, so that text is copied once and base64 never.
enum Scalar<'de> {
    Bool(bool),
    /// A JSON number without point or exponent.
    Whole(i128),
    Float(f64),
    Text(Cow<'de, str>),
}

impl UncheckedValue<'_> {
    fn check(self) -> Result<Value, String> {
        match self.kind.as_ref() {
            "null" => Ok(Value::Null),
            "integer" => check_integer(self.value),
            "float" => check_float(self.value),
            "text" => match self.value {
                Some(Scalar::Text(text)) => Ok(Value::Text(text.into_owned())),
                other => Err(mismatch("text", "a string", other)),
            },
            "blob" => check_blob(self.base64),
            other => Err(format!(
                "unknown value type `{}`, expected null, integer, float, text or blob",
                shorten(other, ECHO_CHARS_MAX)
            )),
        }
    }
}

fn check_integer(value: Option<Scalar<'_>>) -> Result<Value, String> {
    match value {
        Some(Scalar::Text(text)) => text.parse().map(Value::Integer).map_err(|_| {
            let text = shorten(&text, ECHO_CHARS_MAX);
            format!("`{text}` is not a decimal integer of 64 bits with sign")
        }),
        other => Err(mismatch("integer", "a decimal number in a string, such as \"42\"", other)),
    }
}

fn check_float(value: Option<Scalar<'_>>) -> Result<Value, String> {
    match value {
        Some(Scalar::Float(float)) => Ok(Value::Float(float)),
        // Rounds to the nearest double, as reading it as a float would have.
        Some(Scalar::Whole(whole)) => Ok(Value::Float(whole as f64)),
        other => Err(mismatch("float", "a finite JSON number", other)),
    }
}

fn check_blob(base64: Option<Scalar<'_>>) -> Result<Value, String> {
    let Some(Scalar::Text(base64)) = base64 else {
        return Err("a value of type blob needs the field `base64` with a string".to_owned());
    };
    match BASE64.decode(base64.as_bytes()) {
        Ok(blob) => Ok(Value::Blob(Bytes::from(blob))),
        Err(error) => Err(format!("the field `base64` is not base64 of the standard alphabet: {error}")),
    }
}

fn mismatch(kind: &str, expected: &str, found: Option<Scalar<'_>>) -> String {
    let found = match found {
        None => "it is missing or null".to_owned(),
        Some(Scalar::Bool(bool)) => format!("it is {bool}"),
        Some(Scalar::Whole(whole)) => format!("it is the JSON number {whole}"),
        Some(Scalar::Float(float)) => format!("it is the JSON number {float}"),
        Some(Scalar::Text(text)) => format!("it is the string `{}`", shorten(&text, ECHO_CHARS_MAX)),
    };
    format!("the `value` of type {kind} must be {expected}, but {found}")
}

impl<'de: 'b, 'b> Deserialize<'de> for Scalar<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar<'b>, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a number")
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Bool(bool))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Whole(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Whole(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Float(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text)))
    }
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
