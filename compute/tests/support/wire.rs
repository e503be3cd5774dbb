//! Hrana over HTTP as a client writes and reads it, without any of the server's own code.

use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value, json};

/// Nothing here takes so long unless it hangs.
const TIMEOUT: Duration = Duration::from_secs(120);
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// An HTTP answer of any status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// `code` and `message` of an error's body.
    pub fn error(&self) -> (String, String) {
        let json = self.json();
        let field = |name: &str| json[name].as_str().unwrap_or_else(|| panic!("no {name} in {self:?}")).to_owned();
        assert_eq!(json["error"], json["message"], "tools around libSQL's server read `error`");
        (field("code"), field("message"))
    }

    /// Asserts that the request failed so, with a message that contains each of `phrases`.
    #[track_caller]
    pub fn assert_refused(&self, status: u16, code: &str, phrases: &[&str]) {
        assert_eq!(self.status, status, "{self:?}");
        let (found, message) = self.error();
        assert_eq!(found, code, "{message}");
        for phrase in phrases {
            assert!(message.contains(phrase), "`{phrase}` is not in: {message}");
        }
        assert!(message.len() < 1_100, "a message of {} bytes", message.len());
    }
}

pub fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, ureq::Error> {
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT));
    let agent = ureq::Agent::new_with_config(config.allow_non_standard_methods(true).build());
    let mut response = agent.run(request.body(body)?)?;
    let bytes = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
    let text = String::from_utf8(bytes).expect("answers are UTF-8");
    Ok(Answer { status: response.status().as_u16(), headers: response.headers().clone(), text })
}

pub fn get_from(url: &str) -> Result<Answer, ureq::Error> {
    request("GET", url, &[], b"")
}

#[track_caller]
pub fn post_to(url: &str, body: impl AsRef<[u8]>) -> Answer {
    request("POST", url, &[], body.as_ref()).unwrap_or_else(|error| panic!("no answer from {url}: {error}"))
}

/// A database by its URL, which ends with a slash.
#[derive(Clone)]
pub struct Database {
    pub url: String,
}

impl Database {
    pub fn at(url: String) -> Self {
        Self { url }
    }

    #[track_caller]
    pub fn post(&self, endpoint: &str, body: impl AsRef<[u8]>) -> Answer {
        post_to(&format!("{}{endpoint}", self.url), body)
    }

    /// The results of a pipeline that must leave nothing open.
    #[track_caller]
    pub fn pipeline(&self, requests: Value) -> Vec<Value> {
        let mut stream = self.stream();
        let results = stream.send(requests);
        assert_eq!(stream.baton, None, "the stream holds state");
        results
    }

    #[track_caller]
    pub fn run(&self, sql: &str) -> Value {
        let result = self.pipeline(json!([execute(sql)])).remove(0);
        assert_eq!(result["type"], "ok", "{sql}: {result}");
        result["response"]["result"].clone()
    }

    /// Rows of [`plain`] values.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Value> {
        rows_of(&self.run(sql))
    }

    /// `code` and `message` of a statement that must fail.
    #[track_caller]
    pub fn fails(&self, sql: &str) -> (String, String) {
        error_of(&self.pipeline(json!([execute(sql)]))[0])
    }

    /// The lines of a cursor's answer.
    #[track_caller]
    pub fn cursor(&self, batch: &Value) -> Vec<Value> {
        let answer = self.post("v3/cursor", json!({ "batch": batch }).to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }

    pub fn stream(&self) -> Stream {
        Stream { database: self.clone(), baton: None, version: "v3" }
    }

    pub fn stream_v2(&self) -> Stream {
        Stream { version: "v2", ..self.stream() }
    }
}

/// A stream that goes on over several requests.
pub struct Stream {
    pub database: Database,
    pub baton: Option<String>,
    pub version: &'static str,
}

impl Stream {
    /// The whole HTTP answer. The baton is not taken from it.
    #[track_caller]
    pub fn post(&self, requests: &Value) -> Answer {
        let body = json!({ "baton": self.baton, "requests": requests });
        self.database.post(&format!("{}/pipeline", self.version), body.to_string())
    }

    #[track_caller]
    pub fn send(&mut self, requests: Value) -> Vec<Value> {
        let answer = self.post(&requests);
        assert_eq!(answer.status, 200, "{answer:?}");
        let body = answer.json();
        self.baton = body["baton"].as_str().map(str::to_owned);
        let results = body["results"].as_array().expect("results").clone();
        assert_eq!(results.len(), requests.as_array().expect("a list").len(), "each request has one result");
        results
    }

    #[track_caller]
    pub fn run(&mut self, sql: &str) -> Value {
        let result = self.send(json!([execute(sql)])).remove(0);
        assert_eq!(result["type"], "ok", "{sql}: {result}");
        result["response"]["result"].clone()
    }

    #[track_caller]
    pub fn rows(&mut self, sql: &str) -> Vec<Value> {
        rows_of(&self.run(sql))
    }

    #[track_caller]
    pub fn fails(&mut self, sql: &str) -> (String, String) {
        error_of(&self.send(json!([execute(sql)]))[0])
    }
}

pub fn execute(sql: &str) -> Value {
    json!({ "type": "execute", "stmt": { "sql": sql } })
}

/// With positional arguments, as the protocol writes values.
pub fn execute_with(sql: &str, args: Value) -> Value {
    json!({ "type": "execute", "stmt": { "sql": sql, "args": args } })
}

pub fn sequence(sql: &str) -> Value {
    json!({ "type": "sequence", "sql": sql })
}

pub fn get_autocommit() -> Value {
    json!({ "type": "get_autocommit" })
}

pub fn close() -> Value {
    json!({ "type": "close" })
}

pub fn step(sql: &str) -> Value {
    json!({ "stmt": { "sql": sql } })
}

pub fn step_if(condition: Value, sql: &str) -> Value {
    json!({ "condition": condition, "stmt": { "sql": sql } })
}

pub fn batch(steps: Value) -> Value {
    json!({ "steps": steps })
}

/// The rows of a statement's result, each a list of [`plain`] values.
#[track_caller]
pub fn rows_of(result: &Value) -> Vec<Value> {
    let rows = result["rows"].as_array().unwrap_or_else(|| panic!("no rows in {result}"));
    rows.iter().map(|row| row.as_array().expect("a row is a list").iter().map(plain).collect()).collect()
}

/// A value in short: `1`, `0.5`, `"text"`, `null`, and `{"blob":"base64"}`.
#[track_caller]
pub fn plain(value: &Value) -> Value {
    match value["type"].as_str().expect("a value has a type") {
        "null" => Value::Null,
        "integer" => json!(value["value"].as_str().expect("a string").parse::<i64>().expect("64 bits")),
        "float" => json!(value["value"].as_f64().expect("a number")),
        "text" => value["value"].clone(),
        "blob" => json!({ "blob": value["base64"] }),
        other => panic!("a value of type {other}"),
    }
}

/// `code` and `message` of a request or step that must have failed.
#[track_caller]
pub fn error_of(result: &Value) -> (String, String) {
    assert_eq!(result["type"], "error", "it should have failed: {result}");
    let field =
        |name: &str| result["error"][name].as_str().unwrap_or_else(|| panic!("no {name} in {result}")).to_owned();
    (field("code"), field("message"))
}
