//! A server's administration interface, from the client's side.
//!
//! Errors come as a status with `{"error":"…"}`. *Namespace* is libSQL's word for a database's name.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::client::{ClientError, agent_for, read_body, refusal, transport_error};
use super::limits::NAMESPACES_PER_PAGE;

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("a database's name can't be empty")]
    NoName,
    #[error("`{0}` is not the URL of a server: write --admin-url http://127.0.0.1:8081")]
    NotAUrl(String),
    #[error(
        "{url} is no administration interface of Shoal ({detail}): is --admin-url the address \
         of --admin-listen-addr?"
    )]
    NotAdmin { url: String, detail: String },
}

/// A server's administration interface.
pub struct Admin {
    pub(super) agent: Agent,
    /// Without a slash at the end.
    base: String,
}

/// What a deletion answers.
#[derive(Debug, Deserialize)]
pub(super) struct Deleted {
    /// Of the last state; none, if the database kept no history.
    pub(super) bookmark: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub(super) namespaces: Vec<Namespace>,
    pub(super) next: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Namespace {
    pub(super) name: String,
}

impl Admin {
    pub(super) fn new(url: &str) -> Result<Admin, AdminError> {
        let base = url.trim().trim_end_matches('/').to_owned();
        let is_http = base.starts_with("http://") || base.starts_with("https://");
        if !is_http || base.contains(['?', '#', '@']) || base.parse::<http::Uri>().is_err() {
            return Err(AdminError::NotAUrl(url.into()));
        }
        Ok(Admin { agent: agent_for(&base), base })
    }

    pub(super) fn create(&self, name: &str) -> Result<(), AdminError> {
        let url = format!("{}/create", self.namespace_url(name)?);
        let request = self.agent.post(&url).header("content-type", "application/json");
        self.read(request.send("{}"), &url).map(drop)
    }

    pub(super) fn release(&self, name: &str) -> Result<(), AdminError> {
        let url = format!("{}/release", self.namespace_url(name)?);
        self.read(self.agent.post(&url).send_empty(), &url).map(drop)
    }

    /// The answer to a GET of something about a database, as JSON text. `what` may have a query.
    pub(super) fn get(&self, name: &str, what: &str) -> Result<String, AdminError> {
        let url = format!("{}/{what}", self.namespace_url(name)?);
        self.read(self.agent.get(&url).call(), &url)
    }

    /// The answer to a POST to the path `parts` of a database, as JSON text.
    pub(super) fn post(&self, name: &str, parts: &[&str], body: &Value) -> Result<String, AdminError> {
        let mut url = self.namespace_url(name)?;
        for part in parts {
            if part.is_empty() {
                return Err(AdminError::NoName);
            }
            url.push('/');
            url.push_str(&percent_encoded(part));
        }
        let request = self.agent.post(&url).header("content-type", "application/json");
        self.read(request.send(body.to_string()), &url)
    }

    pub(super) fn delete(&self, name: &str) -> Result<Deleted, AdminError> {
        let url = self.namespace_url(name)?;
        let answer = self.read(self.agent.delete(&url).call(), &url)?;
        serde_json::from_str(&answer).map_err(|error| self.not_admin(&error.to_string()))
    }

    pub(super) fn page(&self, prefix: &str, after: &str) -> Result<Page, AdminError> {
        let (prefix, after) = (percent_encoded(prefix), percent_encoded(after));
        let query = format!("prefix={prefix}&after={after}&limit={NAMESPACES_PER_PAGE}");
        let url = format!("{}/v1/namespaces?{query}", self.base);
        let body = self.read(self.agent.get(&url).call(), &url)?;
        serde_json::from_str(&body).map_err(|error| self.not_admin(&error.to_string()))
    }

    /// The body of an answer that isn't a refusal.
    pub(super) fn read(&self, answer: Result<Response<Body>, ureq::Error>, url: &str) -> Result<String, AdminError> {
        let answer = answer.map_err(|error| transport_error(url, error))?;
        let is_json = answer.body().mime_type() == Some("application/json");
        match answer.status() {
            status if status.is_success() => Ok(read_body(answer)?),
            // Ours explains every refusal in JSON, so this is something else.
            status if !is_json => Err(self.not_admin(&format!("it answered {}", status.as_u16()))),
            _ => Err(refusal(answer).into()),
        }
    }

    pub(super) fn namespace_url(&self, name: &str) -> Result<String, AdminError> {
        if name.is_empty() {
            return Err(AdminError::NoName);
        }
        Ok(format!("{}/v1/namespaces/{}", self.base, percent_encoded(name)))
    }

    pub(super) fn not_admin(&self, detail: &str) -> AdminError {
        AdminError::NotAdmin { url: self.base.clone(), detail: detail.into() }
    }
}

/// Encodes everything that could end a path segment or a parameter, and whole names of dots, which
/// would be taken for steps in a path. Whether it is a good name is the server's to say.
fn percent_encoded(text: &str) -> String {
    let only_dots = text.bytes().all(|byte| byte == b'.');
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'.' if only_dots => encoded.push_str("%2E"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            byte => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
