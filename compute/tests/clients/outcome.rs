//! What became of a statement, a batch or the end of a transaction, as an application printed it or as SQLite
//! says it should be.
//!
//! An application prints one line per step: `{"name":"…","outcomes":[outcome,…]}`, where an outcome is one of
//! `{"columns":["…"],"rows":[[value,…],…]}`, `{"affected":1,"rowid":"5"}` (`rowid` is null unless the statement
//! is an INSERT), `{"done":true}`, and `{"error":"…","code":"…"}` (`code` is null if the driver has no such
//! thing; the error is the driver's whole text).

use crate::value::Value;

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Rows { columns: Vec<String>, rows: Vec<Vec<Value>> },
    Count { affected: u64, rowid: Option<i64> },
    Done,
    Failed { code: Option<String>, message: String },
}

impl Outcome {
    pub fn from_json(json: &serde_json::Value) -> Outcome {
        let list = |name: &str| json[name].as_array().unwrap_or_else(|| panic!("no {name} in {json}"));
        if json["error"].is_string() {
            let text = |name: &str| json[name].as_str().map(str::to_owned);
            return Outcome::Failed { code: text("code"), message: text("error").expect("just seen") };
        }
        if json["done"] == true {
            return Outcome::Done;
        }
        if let Some(affected) = json["affected"].as_u64() {
            let rowid = json["rowid"].as_str().map(|text| text.parse().expect("64 bits"));
            return Outcome::Count { affected, rowid };
        }
        let columns = list("columns").iter().map(|name| name.as_str().expect("a name").to_owned()).collect();
        let row = |row: &serde_json::Value| row.as_array().expect("a row").iter().map(Value::from_json).collect();
        Outcome::Rows { columns, rows: list("rows").iter().map(row).collect() }
    }

    /// Whether an application that found `self` found what `expected` says. A driver's error holds SQLite's
    /// message among words of its own, perhaps with quotes escaped, and the code in it or beside it.
    pub fn is_as(&self, expected: &Outcome) -> bool {
        match (self, expected) {
            (Outcome::Failed { code, message }, Outcome::Failed { code: wanted, message: words }) => {
                let text = message.replace("\\\"", "\"");
                let has_code =
                    |wanted: &String| code.as_ref().is_some_and(|code| code == wanted) || text.contains(wanted);
                text.contains(words) && wanted.as_ref().is_none_or(has_code)
            }
            _ => self == expected,
        }
    }

    pub fn has_infinity(&self) -> bool {
        let infinite = |value: &Value| matches!(value, Value::Real(real) if real.is_infinite());
        matches!(self, Outcome::Rows { rows, .. } if rows.iter().flatten().any(infinite))
    }
}
