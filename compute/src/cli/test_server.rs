//! Servers for the tests of the client side: a listener that answers as a closure says, and on top
//! of it the least of libSQL's protocol over a real SQLite in memory.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::{Value, json};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method and path.
    pub line: String,
    pub headers: String,
    pub body: String,
}

#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Answer {
    pub fn json(status: u16, body: impl Into<String>) -> Answer {
        Answer { status, content_type: "application/json", body: body.into() }
    }

    pub fn text(status: u16, body: impl Into<String>) -> Answer {
        Answer { status, content_type: "text/html", body: body.into() }
    }
}

/// A server that runs until the test process ends.
pub struct Server {
    /// Without a slash at the end.
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// What has been asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("the requests").clone()
    }
}

/// Answers every request as `answer` says.
pub fn serve(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (answer, seen) = (Arc::new(answer), Arc::clone(&requests));
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
            std::thread::spawn(move || serve_connection(connection, &*answer, &seen));
        }
    });
    Server { url, requests }
}

fn serve_connection(
    connection: TcpStream,
    answer: &dyn Fn(&Request) -> Answer,
    seen: &Mutex<Vec<Request>>,
) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let mut writer = connection;
    loop {
        let request = read_request(&mut reader)?;
        seen.lock().expect("the requests").push(request.clone());
        let Answer { status, content_type, body } = answer(&request);
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n");
        writer.write_all((head + &body).as_bytes()).ok()?;
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|length| *length > 0)?;
    let line = first.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let mut headers = String::new();
    while !headers.ends_with("\r\n\r\n") && headers != "\r\n" {
        reader.read_line(&mut headers).ok()?;
    }
    let headers = headers.to_ascii_lowercase();
    let length = headers.lines().find_map(|header| header.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
    reader.read_exact(&mut body).ok()?;
    Some(Request { line, headers, body: String::from_utf8(body).expect("a body of text") })
}

/// A libSQL server with one SQLite database in memory. As Shoal does, it gives a baton only while a
/// transaction is open.
pub fn serve_sqlite() -> Server {
    let database = Mutex::new((Connection::open_in_memory().expect("SQLite in memory"), 0_u32));
    serve(move |request| {
        let (connection, baton) = &mut *database.lock().expect("the database");
        let body: Value = serde_json::from_str(&request.body).expect("a JSON body");
        let held = if *baton > 0 { json!(baton.to_string()) } else { Value::Null };
        if body["baton"] != held {
            return Answer::json(400, r#"{"message":"Received an invalid baton","code":"X"}"#);
        }
        let answers = match request.line.as_str() {
            "POST /db/x/v3/pipeline" => pipeline(connection, &body["requests"]),
            "POST /db/x/v3/cursor" => cursor(connection, &body["batch"]["steps"]),
            other => return Answer::json(404, json!({"error": other}).to_string()),
        };
        *baton = if connection.is_autocommit() { 0 } else { *baton + 1 };
        let next = (*baton > 0).then(|| baton.to_string());
        Answer::json(200, answers(next))
    })
}

/// What is answered once the next baton is known.
type Answers = Box<dyn FnOnce(Option<String>) -> String>;

fn pipeline(connection: &Connection, requests: &Value) -> Answers {
    let requests = requests.as_array().expect("requests").iter();
    let results: Vec<Value> = requests.map(|request| answer_request(connection, request)).collect();
    Box::new(move |baton| json!({"baton": baton, "base_url": null, "results": results}).to_string())
}

fn answer_request(connection: &Connection, request: &Value) -> Value {
    let response = match request["type"].as_str() {
        Some("batch") => {
            let steps = run_steps(connection, &request["batch"]["steps"]);
            let results: Vec<_> = steps.iter().map(|step| step.as_ref().and_then(|s| s.clone().ok())).collect();
            let errors: Vec<_> = steps.iter().map(|step| step.as_ref().and_then(|s| s.clone().err())).collect();
            json!({"type": "batch", "result": {"step_results": results, "step_errors": errors}})
        }
        Some("get_autocommit") => {
            json!({"type": "get_autocommit", "is_autocommit": connection.is_autocommit()})
        }
        Some("close") => {
            if !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK").expect("a rollback");
            }
            json!({"type": "close"})
        }
        _ => return json!({"type": "error", "error": {"message": "unknown request", "code": "X"}}),
    };
    json!({"type": "ok", "response": response})
}

fn cursor(connection: &Connection, steps: &Value) -> Answers {
    let mut lines = Vec::new();
    for (index, step) in run_steps(connection, steps).into_iter().enumerate() {
        match step {
            Some(Ok(result)) => {
                lines.push(json!({"type": "step_begin", "step": index, "cols": result["cols"]}));
                let rows = result["rows"].as_array().expect("rows").iter();
                lines.extend(rows.map(|row| json!({"type": "row", "row": row})));
                lines.push(json!({"type": "step_end", "affected_row_count": 0, "last_insert_rowid": 1}));
            }
            Some(Err(error)) => lines.push(json!({"type": "step_error", "step": index, "error": error})),
            None => {}
        }
    }
    lines.push(json!({"type": "replication_index", "replication_index": 7}));
    Box::new(move |baton| {
        lines.insert(0, json!({"baton": baton, "base_url": null}));
        lines.iter().map(|line| format!("{line}\n")).collect()
    })
}

/// Runs steps whose conditions are `ok` of the one before.
fn run_steps(connection: &Connection, steps: &Value) -> Vec<Option<Result<Value, Value>>> {
    let mut outcomes: Vec<Option<Result<Value, Value>>> = Vec::new();
    for step in steps.as_array().expect("steps") {
        let condition = &step["condition"];
        let holds = condition.is_null() || {
            let index = condition["step"].as_u64().expect("a step") as usize;
            assert_eq!(condition["type"], "ok");
            matches!(outcomes[index], Some(Ok(_)))
        };
        let sql = step["stmt"]["sql"].as_str().expect("SQL");
        outcomes.push(holds.then(|| {
            run_sql(connection, sql).map_err(|error| {
                json!({
                    "message": format!("SQLite error: {error}"), "code": "SQLITE_ERROR"
                })
            })
        }));
    }
    outcomes
}

fn run_sql(connection: &Connection, sql: &str) -> rusqlite::Result<Value> {
    let mut statement = connection.prepare(sql)?;
    let cols: Vec<Value> = statement.column_names().map(|name| json!({"name": name})).collect();
    let mut cursor = statement.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = cursor.next()? {
        let cells = (0..cols.len()).map(|index| row.get_ref(index).map(wire_value));
        rows.push(cells.collect::<rusqlite::Result<Vec<Value>>>()?);
    }
    Ok(json!({"cols": cols, "rows": rows}))
}

fn wire_value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => json!({"type": "null"}),
        ValueRef::Integer(integer) => json!({"type": "integer", "value": integer.to_string()}),
        ValueRef::Real(real) => json!({"type": "float", "value": real}),
        ValueRef::Text(text) => json!({"type": "text", "value": String::from_utf8_lossy(text)}),
        ValueRef::Blob(blob) => json!({"type": "blob", "base64": STANDARD_NO_PAD.encode(blob)}),
    }
}
