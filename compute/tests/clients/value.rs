//! SQL values, and the JSON in which the script and the applications exchange them exactly.
//!
//! | SQL | JSON |
//! |---|---|
//! | NULL | `null` |
//! | INTEGER | `{"integer":"-5"}` |
//! | REAL | `{"real":"8000000000000000"}`: the 64 bits of the double, in hexadecimal |
//! | TEXT | `{"text":"…"}` |
//! | BLOB | `{"blob":"00ff"}`: hexadecimal |

use std::fmt;

use serde_json::json;

#[derive(Clone)]
pub enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

impl Value {
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Integer(integer) => json!({ "integer": integer.to_string() }),
            Value::Real(real) => json!({ "real": format!("{:016x}", real.to_bits()) }),
            Value::Text(text) => json!({ "text": text }),
            Value::Blob(blob) => json!({ "blob": hex(blob) }),
        }
    }

    pub fn from_json(json: &serde_json::Value) -> Value {
        if json.is_null() {
            return Value::Null;
        }
        let field = |name: &str| json[name].as_str();
        let value = field("integer").map(|text| Value::Integer(text.parse().expect("64 bits")));
        let value = value.or_else(|| {
            field("real").map(|text| Value::Real(f64::from_bits(u64::from_str_radix(text, 16).expect("64 bits"))))
        });
        let value = value.or_else(|| field("text").map(|text| Value::Text(text.to_owned())));
        let value = value.or_else(|| field("blob").map(|text| Value::Blob(from_hex(text))));
        value.unwrap_or_else(|| panic!("not a value: {json}"))
    }
}

/// Two values are the same if no application could tell them apart: -0.0 is not 0.0, and 1 is not 1.0.
impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.to_json() == other.to_json()
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("NULL"),
            Value::Integer(integer) => write!(f, "{integer}"),
            Value::Real(real) => write!(f, "{real:?}"),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Blob(blob) => write!(f, "x'{}'", hex(blob)),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("two digits");
    digits.map(byte).collect()
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, ValueRef};
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Integer(integer) => ValueRef::Integer(*integer),
            Value::Real(real) => ValueRef::Real(*real),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(blob) => ValueRef::Blob(blob),
        }))
    }
}

impl From<rusqlite::types::ValueRef<'_>> for Value {
    fn from(value: rusqlite::types::ValueRef<'_>) -> Value {
        use rusqlite::types::ValueRef;
        match value {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(integer) => Value::Integer(integer),
            ValueRef::Real(real) => Value::Real(real),
            ValueRef::Text(text) => Value::Text(String::from_utf8(text.to_vec()).expect("the script's text is UTF-8")),
            ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
        }
    }
}
