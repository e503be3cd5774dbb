//! A client of the data plane that hides nothing: it never retries, and of every failure it tells what the
//! server said and what may be concluded from it.

use std::io::{BufRead, BufReader, ErrorKind};

use serde_json::{Value as Json, json};
use ureq::Agent;
use ureq::http::{HeaderMap, Response};

use crate::clock;
use crate::limits::{RECOVERY, REQUEST};
use crate::value::Value;

/// One row of a result.
pub type Row = Vec<Value>;

/// The largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// One database of a server.
#[derive(Clone)]
pub struct Database {
    agent: Agent,
    url: String,
}

/// Why a request, or a statement of it, has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    #[error("HTTP {status}, {code}: {message}")]
    Status { status: u16, code: String, message: String, retry_after: Option<String> },
    /// The request was answered, and in it this statement with an error.
    #[error("{code}: {message}")]
    Statement { code: String, message: String },
    #[error("nothing was sent: {0}")]
    Unreachable(String),
    #[error("the answer is missing or not whole: {0}")]
    NoAnswer(String),
}

/// What a client may conclude about a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged,
    /// The server said that it did not happen, or it was never sent.
    Refused(String),
    Unknown(String),
}

/// The code of a write whose outcome the server does not know.
pub const OUTCOME_UNKNOWN: &str = "SHOAL_OUTCOME_UNKNOWN";
/// The code of a request that may be sent again as it is.
pub const UNAVAILABLE: &str = "SHOAL_UNAVAILABLE";

impl Failure {
    pub fn code(&self) -> &str {
        match self {
            Self::Status { code, .. } | Self::Statement { code, .. } => code,
            Self::Unreachable(_) | Self::NoAnswer(_) => "",
        }
    }

    /// What this says about the write that failed with it. Every code but one claims that nothing was done;
    /// an error without a code claims nothing.
    pub fn outcome(&self) -> Outcome {
        let text = self.to_string();
        match self {
            Self::NoAnswer(_) => Outcome::Unknown(text),
            Self::Unreachable(_) => Outcome::Refused(text),
            Self::Status { code, .. } | Self::Statement { code, .. } => match code.as_str() {
                "" | OUTCOME_UNKNOWN => Outcome::Unknown(text),
                _ => Outcome::Refused(text),
            },
        }
    }

    /// Whether nobody answered: the server is gone, or the connection to it.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::NoAnswer(_))
    }

    /// Whether the same request is worth another try.
    pub fn is_unavailable(&self) -> bool {
        self.code() == UNAVAILABLE
    }
}

impl Outcome {
    pub fn of<T>(result: &Result<T, Failure>) -> Self {
        match result {
            Ok(_) => Self::Acknowledged,
            Err(failure) => failure.outcome(),
        }
    }
}

/// The answer to a pipeline: each statement's rows or error, and the baton to go on with.
pub struct Answer {
    pub baton: Option<String>,
    pub results: Vec<Result<Vec<Row>, Failure>>,
}

pub(crate) fn execute_request(sql: &str, args: &[Value]) -> Json {
    let args: Vec<Json> = args.iter().map(Value::to_json).collect();
    json!({ "type": "execute", "stmt": { "sql": sql, "args": args } })
}

pub(crate) fn close_request() -> Json {
    json!({ "type": "close" })
}

impl Database {
    /// The database at `url`, which ends in a slash.
    pub fn at(url: String) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).proxy(None).timeout_global(Some(REQUEST));
        Self { agent: config.build().new_agent(), url }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs one statement in a stream of its own.
    pub fn execute(&self, sql: &str, args: &[Value]) -> Result<Vec<Row>, Failure> {
        let answer = self.pipeline(None, &[execute_request(sql, args), close_request()])?;
        answer.results.into_iter().next().expect("checked: as many results as requests")
    }

    /// Runs one statement until the server is able to. For reads, and writes that do no harm twice.
    ///
    /// # Panics
    /// On any other failure, or when the server does not recover.
    pub fn execute_when_available(&self, sql: &str, args: &[Value]) -> Vec<Row> {
        let rows = clock::poll(RECOVERY, || match self.execute(sql, args) {
            Err(failure) if failure.is_unavailable() => None,
            result => Some(result.unwrap_or_else(|failure| panic!("{}: {sql}: {failure}", self.url))),
        });
        rows.unwrap_or_else(|| panic!("{}: unavailable for {RECOVERY:?}: {sql}", self.url))
    }

    /// Runs one statement through a cursor, whose rows have no limit.
    pub fn cursor(&self, sql: &str, args: &[Value]) -> Result<Vec<Row>, Failure> {
        let step = json!({ "stmt": execute_request(sql, args)["stmt"] });
        let answer = self.post("v3/cursor", &json!({ "batch": { "steps": [step] } }))?;
        let lines = BufReader::new(answer.into_body().into_with_config().limit(ANSWER_BYTES_MAX).reader()).lines();
        // The first line carries the baton, which this stream has no use for.
        let entries = lines.skip(1).map(|line| {
            let line = line.map_err(|error| Failure::NoAnswer(error.to_string()))?;
            serde_json::from_str::<Json>(&line).map_err(|error| Failure::NoAnswer(error.to_string()))
        });
        let mut rows = Vec::new();
        for entry in entries {
            let entry = entry?;
            match entry["type"].as_str() {
                Some("row") => rows.push(read_row(&entry["row"])?),
                Some("replication_index") => return Ok(rows),
                Some("error" | "step_error") => return Err(statement_failure(&entry["error"])),
                _ => {}
            }
        }
        Err(Failure::NoAnswer("the cursor was cut off".to_owned()))
    }

    pub fn pipeline(&self, baton: Option<&str>, requests: &[Json]) -> Result<Answer, Failure> {
        let answer = self.post("v2/pipeline", &json!({ "baton": baton, "requests": requests }))?;
        let mut body = answer.into_body();
        let body = body.with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let body = body.map_err(|error| Failure::NoAnswer(error.to_string()))?;
        let body: Json = serde_json::from_str(&body).map_err(|error| Failure::NoAnswer(error.to_string()))?;
        let results = body["results"].as_array().filter(|results| results.len() == requests.len());
        let results = results.ok_or_else(|| Failure::NoAnswer(format!("{} requests, but: {body}", requests.len())))?;
        let results = results.iter().map(read_result).collect();
        Ok(Answer { baton: body["baton"].as_str().map(str::to_owned), results })
    }

    fn post(&self, path: &str, body: &Json) -> Result<Response<ureq::Body>, Failure> {
        let answer = self.agent.post(format!("{}{path}", self.url)).send(body.to_string());
        let answer = answer.map_err(|error| match error {
            ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
                Failure::Unreachable(error.to_string())
            }
            error => Failure::NoAnswer(error.to_string()),
        })?;
        if answer.status().is_success() { Ok(answer) } else { Err(read_status(answer)) }
    }
}

fn read_status(answer: Response<ureq::Body>) -> Failure {
    let status = answer.status().as_u16();
    let header = |headers: &HeaderMap| headers.get("retry-after")?.to_str().ok().map(str::to_owned);
    let retry_after = header(answer.headers());
    let text = answer.into_body().read_to_string().unwrap_or_default();
    let body: Json = serde_json::from_str(&text).unwrap_or_default();
    let field = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let message = if body.is_object() { field("message") } else { text };
    Failure::Status { status, code: field("code"), message, retry_after }
}

fn statement_failure(error: &Json) -> Failure {
    let field = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    Failure::Statement { code: field("code"), message: field("message") }
}

fn read_result(result: &Json) -> Result<Vec<Row>, Failure> {
    if result["type"] != "ok" {
        return Err(statement_failure(&result["error"]));
    }
    let rows = result["response"]["result"]["rows"].as_array();
    rows.into_iter().flatten().map(read_row).collect()
}

fn read_row(row: &Json) -> Result<Row, Failure> {
    let not_a_row = || Failure::NoAnswer(format!("not a row: {row}"));
    let values = row.as_array().ok_or_else(not_a_row)?;
    values.iter().map(|value| Value::from_json(value).ok_or_else(not_a_row)).collect()
}
