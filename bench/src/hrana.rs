//! A client of one database over HTTP: Hrana pipelines on one kept connection.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value as Json, json};

const TIMEOUT: Duration = Duration::from_secs(300);

pub struct Client {
    agent: ureq::Agent,
    url: String,
}

/// An agent that keeps its connection and asks no proxy.
pub fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).timeout_global(Some(TIMEOUT));
    config.build().new_agent()
}

impl Client {
    /// `url` ends in a slash.
    pub fn new(url: impl Into<String>) -> Self {
        Self::with(agent(), url)
    }

    /// Shares the agent's connections.
    pub fn with(agent: ureq::Agent, url: impl Into<String>) -> Self {
        Self { agent, url: url.into() }
    }

    /// Runs one statement in a stream of its own.
    pub fn run(&self, sql: &str) -> anyhow::Result<()> {
        self.post(&[json!({ "type": "execute", "stmt": { "sql": sql } }), json!({ "type": "close" })]).map(drop)
    }

    /// Runs one statement that commits, and tells its LSN.
    pub fn commit(&self, sql: &str) -> anyhow::Result<u64> {
        let requests = [json!({ "type": "execute", "stmt": { "sql": sql } }), json!({ "type": "close" })];
        self.ask(&requests)?.1.context("no commit is named in the answer")
    }

    /// The one integer that a query comes to.
    pub fn number(&self, sql: &str) -> anyhow::Result<i64> {
        let answer =
            self.post(&[json!({ "type": "execute", "stmt": { "sql": sql } }), json!({ "type": "close" })])?;
        let number = answer.pointer("/results/0/response/result/rows/0/0/value").and_then(Json::as_str);
        number.and_then(|number| number.parse().ok()).context("not a number")
    }

    /// Runs statements as one transaction.
    pub fn transaction(&self, statements: &[&str]) -> anyhow::Result<()> {
        let statements = [&["BEGIN IMMEDIATE"], statements, &["COMMIT"]].concat();
        let steps = statements.iter().enumerate().map(|(index, sql)| match index.checked_sub(1) {
            None => json!({ "stmt": { "sql": sql } }),
            Some(before) => json!({ "stmt": { "sql": sql }, "condition": { "type": "ok", "step": before } }),
        });
        let batch = json!({ "steps": steps.collect::<Vec<_>>() });
        self.post(&[json!({ "type": "batch", "batch": batch }), json!({ "type": "close" })]).map(drop)
    }

    fn post(&self, requests: &[Json]) -> anyhow::Result<Json> {
        self.ask(requests).map(|(answer, _)| answer)
    }

    /// The answer, and the last commit that it saw.
    fn ask(&self, requests: &[Json]) -> anyhow::Result<(Json, Option<u64>)> {
        let body = json!({ "requests": requests }).to_string();
        let url = format!("{}v2/pipeline", self.url);
        let mut answer = self.agent.post(&url).header("content-type", "application/json").send(body)?;
        let lsn = answer.headers().get("shoal-lsn").and_then(|lsn| lsn.to_str().ok()?.parse().ok());
        let text = answer.body_mut().read_to_string()?;
        if !answer.status().is_success() {
            bail!("{}: {text}", answer.status());
        }
        let answer: Json = serde_json::from_str(&text).context("not an answer of Hrana")?;
        let results = answer["results"].as_array().context("no results")?;
        for result in results {
            let steps = result.pointer("/response/result/step_errors").and_then(Json::as_array);
            let failed = steps.is_some_and(|errors| errors.iter().any(|error| !error.is_null()));
            if result["type"] != "ok" || failed {
                bail!("{result}");
            }
        }
        Ok((answer, lsn))
    }
}
