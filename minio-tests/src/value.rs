//! SQLite's values on the wire, compared bit for bit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde_json::{Value as Json, json};

#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

/// An integer never equals a float, and floats are equal if their bits are.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Integer(one), Self::Integer(other)) => one == other,
            (Self::Real(one), Self::Real(other)) => one.to_bits() == other.to_bits(),
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Blob(one), Self::Blob(other)) => one == other,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl Value {
    pub fn to_json(&self) -> Json {
        match self {
            Self::Null => json!({ "type": "null" }),
            Self::Integer(integer) => json!({ "type": "integer", "value": integer.to_string() }),
            Self::Real(real) => json!({ "type": "float", "value": real }),
            Self::Text(text) => json!({ "type": "text", "value": text }),
            Self::Blob(blob) => json!({ "type": "blob", "base64": BASE64.encode(blob) }),
        }
    }

    /// `None` if it is not exactly what Hrana says a value is.
    pub fn from_json(json: &Json) -> Option<Self> {
        let value = json.get("value");
        Some(match json.get("type")?.as_str()? {
            "null" => Self::Null,
            "integer" => Self::Integer(value?.as_str()?.parse().ok()?),
            "float" if value?.is_number() => Self::Real(value?.as_f64()?),
            "text" => Self::Text(value?.as_str()?.to_owned()),
            "blob" => Self::Blob(BASE64.decode(json.get("base64")?.as_str()?).ok()?),
            _ => return None,
        })
    }

    /// The integer that this is.
    ///
    /// # Panics
    /// If it is another type.
    pub fn integer(&self) -> i64 {
        match self {
            Self::Integer(integer) => *integer,
            other => panic!("an integer was expected, not {other:?}"),
        }
    }
}

impl From<i64> for Value {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<u8>> for Value {
    fn from(blob: Vec<u8>) -> Self {
        Self::Blob(blob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_from_json_as_they_were() {
        let reals = [0.1, -0.0, 1.0, 5e-324, 1.797_693_134_862_315_7e308, 9_007_199_254_740_993.0, 0.99];
        let mut values = vec![Value::Null, i64::MIN.into(), i64::MAX.into(), "é\0\"".into(), vec![0, 255].into()];
        values.extend(reals.map(Value::Real));
        for value in values {
            let text = value.to_json().to_string();
            let read = Value::from_json(&serde_json::from_str(&text).unwrap());
            assert_eq!(read.as_ref(), Some(&value), "{text}");
        }
    }

    #[test]
    fn types_are_never_taken_for_each_other() {
        assert_ne!(Value::Integer(1), Value::Real(1.0));
        assert_ne!(Value::Real(0.0), Value::Real(-0.0));
        assert_ne!(Value::from("a"), Value::Blob(b"a".to_vec()));
        for wrong in [
            json!({ "type": "integer", "value": 1 }),
            json!({ "type": "float", "value": "1.5" }),
            json!({ "type": "text" }),
            json!({ "type": "blob", "base64": "a" }),
            json!({ "type": "number", "value": "1" }),
            json!("1"),
        ] {
            assert_eq!(Value::from_json(&wrong), None, "{wrong}");
        }
    }
}
