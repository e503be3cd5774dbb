//! The scripted application in Rust: `libsql-application <url> <script>`.
//!
//! Carries out the steps of the script (see ../../script.rs) with the unmodified `libsql` crate and prints one
//! line of JSON for each (see ../../outcome.rs).

use std::fmt::Write as _;

use libsql::params::Params;
use libsql::{Builder, Connection, Database, TransactionBehavior, Value};
use serde_json::{Value as Json, json};

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(script)) = (arguments.next(), arguments.next()) else {
        return Err("usage: libsql-application <url> <script>".into());
    };
    let builder = Builder::new_remote(url, String::new());
    let database = builder.connector(hyper::client::HttpConnector::new()).build().await?;
    let connection = database.connect()?;
    let steps: Vec<Json> = serde_json::from_str(&std::fs::read_to_string(script)?)?;
    for step in &steps {
        let outcomes = run(&database, &connection, step).await?;
        println!("{}", json!({ "name": step["name"], "outcomes": outcomes }));
    }
    Ok(())
}

async fn run(database: &Database, connection: &Connection, step: &Json) -> Result<Vec<Json>, Failure> {
    match text(&step["kind"]) {
        "execute" => {
            let mut outcomes = Vec::new();
            for statement in list(&step["statements"]) {
                outcomes.push(execute(connection, statement).await);
            }
            Ok(outcomes)
        }
        "transaction" => {
            let behavior = match text(&step["mode"]) {
                "write" => TransactionBehavior::Immediate,
                "read" => TransactionBehavior::ReadOnly,
                _ => TransactionBehavior::Deferred,
            };
            let commits = step["end"] == "commit";
            Ok(transaction(connection, behavior, list(&step["statements"]), commits).await?)
        }
        "batch" => {
            let texts: Vec<&str> = list(&step["texts"]).iter().map(text).collect();
            let result = connection.execute_transactional_batch(&texts.join(";")).await;
            Ok(vec![done(result.map(drop))])
        }
        "script" => Ok(vec![done(connection.execute_batch(text(&step["text"])).await.map(drop))]),
        "together" => together(database, list(&step["transactions"])).await,
        other => Err(format!("unknown kind of step: {other}").into()),
    }
}

async fn transaction(
    connection: &Connection,
    behavior: TransactionBehavior,
    statements: &[Json],
    commits: bool,
) -> libsql::Result<Vec<Json>> {
    let transaction = connection.transaction_with_behavior(behavior).await?;
    let mut outcomes = Vec::new();
    for statement in statements {
        outcomes.push(execute(&transaction, statement).await);
    }
    outcomes.push(done(if commits { transaction.commit().await } else { transaction.rollback().await }));
    Ok(outcomes)
}

async fn together(database: &Database, transactions: &[Json]) -> Result<Vec<Json>, Failure> {
    let mut tasks = Vec::new();
    for statements in transactions {
        let (connection, statements) = (database.connect()?, list(statements).to_vec());
        tasks.push(tokio::spawn(async move {
            transaction(&connection, TransactionBehavior::Immediate, &statements, true).await
        }));
    }
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.extend(task.await??);
    }
    Ok(outcomes)
}

async fn execute(connection: &Connection, statement: &Json) -> Json {
    let result = if statement["has_rows"] == true {
        query(connection, statement).await
    } else {
        count(connection, statement).await
    };
    result.unwrap_or_else(|error| failed(&error))
}

async fn query(connection: &Connection, statement: &Json) -> libsql::Result<Json> {
    let mut found = connection.query(text(&statement["sql"]), params(statement)).await?;
    let columns: Vec<String> =
        (0..found.column_count()).map(|index| found.column_name(index).unwrap_or_default().to_owned()).collect();
    let mut rows = Vec::new();
    while let Some(row) = found.next().await? {
        let values: libsql::Result<Vec<Json>> =
            (0..row.column_count()).map(|index| row.get_value(index).map(from_driver)).collect();
        rows.push(values?);
    }
    Ok(json!({ "columns": columns, "rows": rows }))
}

async fn count(connection: &Connection, statement: &Json) -> libsql::Result<Json> {
    let sql = text(&statement["sql"]);
    let affected = connection.execute(sql, params(statement)).await?;
    let rowid = sql.starts_with("INSERT").then(|| connection.last_insert_rowid().to_string());
    Ok(json!({ "affected": affected, "rowid": rowid }))
}

fn done(result: libsql::Result<()>) -> Json {
    result.map_or_else(|error| failed(&error), |()| json!({ "done": true }))
}

/// The driver's errors have no field for a code; it is in the text.
fn failed(error: &libsql::Error) -> Json {
    json!({ "error": error.to_string(), "code": null })
}

fn params(statement: &Json) -> Params {
    match statement["named"].as_array() {
        Some(named) => {
            Params::Named(named.iter().map(|pair| (text(&pair[0]).to_owned(), to_driver(&pair[1]))).collect())
        }
        None => Params::Positional(list(&statement["args"]).iter().map(to_driver).collect()),
    }
}

fn to_driver(value: &Json) -> Value {
    let field = |name: &str| value[name].as_str();
    if let Some(integer) = field("integer") {
        Value::Integer(integer.parse().expect("64 bits"))
    } else if let Some(bits) = field("real") {
        Value::Real(f64::from_bits(u64::from_str_radix(bits, 16).expect("64 bits")))
    } else if let Some(text) = field("text") {
        Value::Text(text.to_owned())
    } else if let Some(hex) = field("blob") {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
        Value::Blob((0..hex.len()).step_by(2).map(byte).collect())
    } else {
        Value::Null
    }
}

fn from_driver(value: Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(integer) => json!({ "integer": integer.to_string() }),
        Value::Real(real) => json!({ "real": format!("{:016x}", real.to_bits()) }),
        Value::Text(text) => json!({ "text": text }),
        Value::Blob(blob) => {
            let mut hex = String::new();
            for byte in blob {
                write!(hex, "{byte:02x}").expect("memory");
            }
            json!({ "blob": hex })
        }
    }
}

fn text(json: &Json) -> &str {
    json.as_str().expect("a string")
}

fn list(json: &Json) -> &[Json] {
    json.as_array().expect("a list")
}
