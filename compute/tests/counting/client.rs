//! A client of one database: Hrana pipelines and cursors over one kept connection.

use std::io::{BufRead, BufReader};

use serde_json::{Value as Json, json};

use crate::clock::PATIENCE;

/// The first column of each row, as the protocol's text: enough for what these tests ask.
pub type Column = Vec<String>;

pub struct Client {
    agent: ureq::Agent,
    url: String,
}

/// The answer to a pipeline whose statements all succeeded.
pub struct Answer {
    pub baton: Option<String>,
    pub columns: Vec<Column>,
}

impl Client {
    pub fn new(address: &str, database: &str) -> Self {
        let config =
            ureq::Agent::config_builder().http_status_as_error(false).proxy(None).timeout_global(Some(PATIENCE));
        Self { agent: config.build().new_agent(), url: format!("http://{address}/db/{database}/") }
    }

    /// Runs one statement in a stream of its own.
    pub fn run(&self, sql: &str) -> Column {
        self.run_all(&[sql]).pop().expect("one statement has one result")
    }

    /// Runs one statement, or tells what it fails with.
    pub fn attempt(&self, sql: &str) -> Result<(), String> {
        self.attempt_with(sql, &[])
    }

    /// The same with arguments, as the protocol has them.
    pub fn attempt_with(&self, sql: &str, arguments: &[Json]) -> Result<(), String> {
        let stmt = json!({ "sql": sql, "args": arguments });
        let body = json!({ "requests": [{ "type": "execute", "stmt": stmt }] });
        let text = self.send("v3/pipeline", &body).body_mut().read_to_string().expect("a whole answer");
        let answer: Json = serde_json::from_str(&text).expect("JSON");
        // Of the statement, or of the whole request.
        let message = answer.pointer("/results/0/error/message").or_else(|| answer.get("message"));
        message.map_or(Ok(()), |message| Err(text_of(&json!({ "value": message }))))
    }

    /// Runs statements in one request and one stream.
    pub fn run_all(&self, statements: &[&str]) -> Vec<Column> {
        self.pipeline(None, statements).columns
    }

    /// Runs statements in one request of the stream that the baton names, or of a new one.
    ///
    /// # Panics
    /// If one of them fails.
    pub fn pipeline(&self, baton: Option<&str>, statements: &[&str]) -> Answer {
        let execute = |sql: &&str| json!({ "type": "execute", "stmt": { "sql": sql } });
        let requests: Vec<Json> = statements.iter().map(execute).collect();
        let mut answer = self.post("v3/pipeline", &json!({ "baton": baton, "requests": requests }));
        let text = answer.body_mut().read_to_string().expect("a whole answer");
        let answer: Json = serde_json::from_str(&text).expect("JSON");
        let results = answer["results"].as_array().expect("results");
        let columns = results.iter().zip(statements).map(|(result, sql)| {
            let rows = result.pointer("/response/result/rows").and_then(Json::as_array);
            let rows = rows.unwrap_or_else(|| panic!("{sql}: {result}"));
            rows.iter().map(|row| text_of(&row[0])).collect()
        });
        Answer { baton: answer["baton"].as_str().map(str::to_owned), columns: columns.collect() }
    }

    /// Starts a batch whose answer comes line by line.
    pub fn cursor(&self, statements: &[&str]) -> impl Iterator<Item = Json> + Send + use<> {
        let steps: Vec<Json> = statements.iter().map(|sql| json!({ "stmt": { "sql": sql } })).collect();
        let answer = self.post("v3/cursor", &json!({ "batch": { "steps": steps } }));
        let lines = BufReader::new(answer.into_body().into_reader()).lines();
        lines.map(|line| serde_json::from_str(&line.expect("a whole line")).expect("JSON"))
    }

    fn post(&self, path: &str, body: &Json) -> ureq::http::Response<ureq::Body> {
        let mut answer = self.send(path, body);
        let (url, status) = (&self.url, answer.status());
        assert!(status.is_success(), "{url}{path}: {status}: {}", answer.body_mut().read_to_string().unwrap_or_default());
        answer
    }

    fn send(&self, path: &str, body: &Json) -> ureq::http::Response<ureq::Body> {
        let url = format!("{}{path}", self.url);
        let sent = self.agent.post(&url).header("content-type", "application/json").send(body.to_string());
        sent.unwrap_or_else(|error| panic!("{url}: {error}"))
    }
}

fn text_of(value: &Json) -> String {
    match &value["value"] {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}
