//! A client of libSQL's protocol over HTTP that holds one stream.
//!
//! A *stream* is a connection's state on the server, such as an open transaction. The server names
//! it by a baton, new in each answer; a `null` baton means that it holds nothing for us, and the
//! next request begins a stream of its own. After a failed request the state of the stream is not
//! known, so it is given up: the server rolls its transaction back by itself.
//!
//! Statements in numbers travel as one `batch`, each on the condition that the one before it went
//! well, because a pipeline's requests run on after an error. Rows in numbers come through a
//! cursor, which has no limit on its length.

use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Response;

use super::limits::{QUOTED_CHARS_MAX, RESPONSE_BYTES_MAX};
use super::url::{DatabaseUrl, is_loopback};
use super::wire::{self, Cell, CursorEntry, CursorStart, NotHrana, PipelineAnswer, SqlError, Step};

/// A server that is there answers a connection attempt within this; statements may take longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of a refusal's body is read.
const REFUSAL_BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{url} can't be reached: {cause}. Is the server running? (`shoal dev` starts one)")]
    Unreachable { url: String, cause: String },
    #[error("the connection broke: {0}. Whether what was sent has been carried out is not known")]
    Indefinite(String),
    #[error("the server answered {status}: {error}")]
    Refused { status: u16, error: SqlError },
    #[error("{url} doesn't answer as a libSQL server does: {detail}")]
    NotHrana { url: String, detail: String },
    #[error("{0}")]
    Sql(#[from] SqlError),
    #[error("{0}. A transaction that was open here is rolled back")]
    StreamLost(#[source] Box<ClientError>),
    #[error("there is no dump of this: {0}")]
    NoDump(String),
    #[error("printing the result failed: {0}")]
    Output(#[source] io::Error),
}

/// Takes a statement's result as it arrives.
pub trait RowSink {
    /// Called once per statement, before its rows; a statement without a result has no columns.
    fn columns(&mut self, names: Vec<String>) -> io::Result<()>;
    fn row(&mut self, cells: Vec<Cell>) -> io::Result<()>;
}

pub struct Client {
    agent: Agent,
    base: String,
    auth_token: Option<String>,
    stream: Option<Stream>,
}

struct Stream {
    baton: String,
    /// Where the server wants this stream's next request, if not where the first one went.
    base_url: Option<String>,
}

/// An HTTP agent for `url` that leaves the judgement of statuses to its caller.
pub fn agent_for(url: &str) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .user_agent(concat!("shoal/", env!("CARGO_PKG_VERSION")));
    // A proxy from the environment can't reach this machine's loopback.
    let config = if is_loopback(url) { config.proxy(None) } else { config };
    config.build().new_agent()
}

impl Client {
    /// Nothing is sent yet. `auth_token` goes before the URL's own.
    pub fn new(url: &DatabaseUrl, auth_token: Option<String>) -> Client {
        Client {
            agent: agent_for(url.base()),
            base: url.base().to_owned(),
            auth_token: auth_token.or_else(|| url.auth_token().map(str::to_owned)),
            stream: None,
        }
    }

    /// The database's URL, for messages.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Runs statements one after another until one fails, in one round trip. Each that is outside
    /// a transaction is a commit of its own.
    pub fn batch(&mut self, statements: &[&str]) -> Result<Vec<Step>, ClientError> {
        let steps: Vec<Value> = statements.iter().enumerate().map(chained_step).collect();
        let response = self.request(json!({"type": "batch", "batch": {"steps": steps}}))?;
        wire::read_batch(&response, statements.len()).map_err(|error| self.not_hrana(error))
    }

    /// Runs one statement and hands its rows on as they arrive.
    pub fn stream_rows(&mut self, sql: &str, sink: &mut dyn RowSink) -> Result<(), ClientError> {
        let batch = json!({"steps": [{"stmt": {"sql": sql, "want_rows": true}}]});
        let body = json!({"baton": self.baton(), "batch": batch});
        let had_stream = self.stream.is_some();
        let outcome = self.post("v3/cursor", &body).and_then(|answer| {
            let mut lines = Lines { reader: BufReader::new(answer.into_body().into_reader()) };
            self.read_cursor(&mut lines, sink)
        });
        self.settle(had_stream, outcome)
    }

    /// Whether a transaction is open. Costs a round trip only if the server holds a stream for us.
    pub fn in_transaction(&mut self) -> Result<bool, ClientError> {
        if self.stream.is_none() {
            return Ok(false);
        }
        let response = self.request(json!({"type": "get_autocommit"}))?;
        let is_autocommit = wire::read_autocommit(&response).map_err(|error| self.not_hrana(error))?;
        Ok(!is_autocommit)
    }

    /// Gives the stream up, and with it a transaction that is open. Its outcome changes nothing: a
    /// stream that can't be closed runs out by itself.
    pub fn close(&mut self) {
        if self.stream.is_some() {
            let _ = self.request(json!({"type": "close"}));
            self.stream = None;
        }
    }

    /// Sends one request of a pipeline; the response's JSON.
    fn request(&mut self, request: Value) -> Result<String, ClientError> {
        let body = json!({"baton": self.baton(), "requests": [request]});
        let had_stream = self.stream.is_some();
        let outcome = self.post("v3/pipeline", &body).and_then(|answer| self.read_pipeline(answer));
        self.settle(had_stream, outcome)
    }

    /// Gives the stream up if the request as a whole failed, and says so.
    fn settle<T>(&mut self, had_stream: bool, outcome: Result<T, ClientError>) -> Result<T, ClientError> {
        match outcome {
            Ok(done) => Ok(done),
            Err(error @ ClientError::Sql(_)) => Err(error),
            Err(error) => {
                self.stream = None;
                Err(if had_stream { ClientError::StreamLost(Box::new(error)) } else { error })
            }
        }
    }

    fn baton(&self) -> Option<&str> {
        self.stream.as_ref().map(|stream| stream.baton.as_str())
    }

    fn keep_stream(&mut self, baton: Option<String>, base_url: Option<String>) {
        let known = self.stream.take().and_then(|stream| stream.base_url);
        self.stream = baton.map(|baton| Stream { baton, base_url: base_url.or(known) });
    }

    fn read_pipeline(&mut self, answer: Response<ureq::Body>) -> Result<String, ClientError> {
        let body = read_body(answer)?;
        let answer: PipelineAnswer = serde_json::from_str(&body).map_err(|error| self.not_hrana(error))?;
        self.keep_stream(answer.baton, answer.base_url);
        let mut results = answer.results;
        match (results.pop(), results.is_empty()) {
            (Some(result), true) => {
                let response = result.outcome().map_err(|error| self.not_hrana(error))??;
                Ok(response.to_owned())
            }
            _ => Err(self.not_hrana(NotHrana("one request was sent, not one answered".into()))),
        }
    }

    fn read_cursor(&mut self, lines: &mut Lines, sink: &mut dyn RowSink) -> Result<(), ClientError> {
        let first = lines.next()?.unwrap_or_default();
        let start: CursorStart = serde_json::from_str(&first).map_err(|error| self.not_hrana(error))?;
        self.keep_stream(start.baton, start.base_url);
        let mut outcome = None;
        while let Some(line) = lines.next()? {
            match wire::read_cursor_entry(&line).map_err(|error| self.not_hrana(error))? {
                CursorEntry::Columns(names) => sink.columns(names).map_err(ClientError::Output)?,
                CursorEntry::Row(cells) => sink.row(cells).map_err(ClientError::Output)?,
                CursorEntry::End => outcome = outcome.or(Some(Ok(()))),
                CursorEntry::Failed(error) => outcome = Some(Err(ClientError::Sql(error))),
                CursorEntry::Other => {}
            }
        }
        outcome.unwrap_or_else(|| Err(ClientError::Indefinite("the answer ended early".into())))
    }

    fn post(&self, path: &str, body: &Value) -> Result<Response<ureq::Body>, ClientError> {
        let base = self.stream.as_ref().and_then(|stream| stream.base_url.as_deref()).unwrap_or(&self.base);
        let url = format!("{}/{path}", base.trim_end_matches('/'));
        let mut request = self.agent.post(&url).header("content-type", "application/json");
        if let Some(token) = &self.auth_token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = request.send(body.to_string()).map_err(|error| transport_error(&url, error))?;
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer)) }
    }

    fn not_hrana(&self, error: impl Into<NotHrana>) -> ClientError {
        ClientError::NotHrana { url: self.base.clone(), detail: error.into().to_string() }
    }
}

fn chained_step((index, sql): (usize, &&str)) -> Value {
    let stmt = json!({"sql": sql, "want_rows": true});
    match index.checked_sub(1) {
        None => json!({"stmt": stmt}),
        Some(before) => json!({"stmt": stmt, "condition": {"type": "ok", "step": before}}),
    }
}

/// Sorts errors of the transport by whether the request can have reached the server.
pub fn transport_error(url: &str, error: ureq::Error) -> ClientError {
    let never_sent = match &error {
        ureq::Error::Io(io) => matches!(
            io.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::AddrNotAvailable
        ),
        ureq::Error::Timeout(timeout) => matches!(timeout, ureq::Timeout::Connect | ureq::Timeout::Resolve),
        ureq::Error::Http(_)
        | ureq::Error::BadUri(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::InvalidProxyUrl
        | ureq::Error::ConnectProxyFailed(_)
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_)
        | ureq::Error::TlsRequired => true,
        _ => false,
    };
    let cause = match error {
        ureq::Error::Io(io) => io.to_string(),
        other => other.to_string(),
    };
    match never_sent {
        true => ClientError::Unreachable { url: url.to_owned(), cause },
        false => ClientError::Indefinite(cause),
    }
}

/// Reads the error out of an answer whose status is one.
pub fn refusal(answer: Response<ureq::Body>) -> ClientError {
    let status = answer.status().as_u16();
    let mut body = Vec::new();
    let reader = answer.into_body().into_reader();
    // What can't be read of an explanation is left out; the status stands on its own.
    let _ = reader.take(REFUSAL_BYTES_MAX).read_to_end(&mut body);
    let mut error = wire::read_refusal(&String::from_utf8_lossy(&body));
    error.message = error.message.chars().take(QUOTED_CHARS_MAX).collect();
    if error.message.is_empty() {
        error.message = "no explanation; is this the URL of a database, http://…/db/<name>/ ?".into();
    }
    ClientError::Refused { status, error }
}

/// The whole body as text. Its break-off leaves the request's outcome unknown.
pub fn read_body(answer: Response<ureq::Body>) -> Result<String, ClientError> {
    let limited = answer.into_body().into_with_config().limit(RESPONSE_BYTES_MAX);
    limited.read_to_string().map_err(|error| ClientError::Indefinite(error.to_string()))
}

/// The lines of a streamed answer.
struct Lines {
    reader: BufReader<ureq::BodyReader<'static>>,
}

impl Lines {
    /// The next line that isn't empty.
    fn next(&mut self) -> Result<Option<String>, ClientError> {
        let indefinite = |error: io::Error| ClientError::Indefinite(error.to_string());
        loop {
            let mut line = String::new();
            let mut limited = (&mut self.reader).take(RESPONSE_BYTES_MAX);
            match limited.read_line(&mut line).map_err(indefinite)? {
                0 => return Ok(None),
                _ if line.trim().is_empty() => continue,
                _ => return Ok(Some(line)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
