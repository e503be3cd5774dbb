//! `GET` and `POST /v1/namespaces/<name>/retention`: how long a database keeps its history, and whether it ends by itself.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tenant::name::Name;
use tenant::settings::Settings;
use tokio::sync::oneshot;

use super::bodies::{invalid, read_json};
use super::found::{explained, living};
use super::{parse, refusal};
use crate::cli::units::Span;
use crate::core::{Configure, Message};
use crate::http::{going_down, json as json_answer};
use crate::limits::RETENTION_SECS_MAX;
use crate::moment::{parse_end, time_text};
use crate::node::NodeHandle;

pub(super) async fn show(State(node): State<Arc<NodeHandle>>, Path(name): Path<String>) -> Response {
    answer(read(&node, &name).await)
}

async fn read(node: &NodeHandle, name: &str) -> Result<Settings, Box<Response>> {
    let name = parse(name)?;
    Ok(living(&node.context, &name).await?.settings)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetBody {
    /// A duration, or 0.
    retention: Option<Value>,
    /// A duration, a time, or `never`.
    expires: Option<String>,
}

pub(super) async fn set(State(node): State<Arc<NodeHandle>>, Path(name): Path<String>, body: Body) -> Response {
    let configure = match read_json(body).await {
        Ok(body) => parse(&name).and_then(|name| Ok((name, configure(&body, node.context.now_micros())?))),
        Err(response) => Err(response),
    };
    match configure {
        Ok((name, configure)) => answer(send(&node, name, configure).await),
        Err(response) => *response,
    }
}

fn configure(body: &SetBody, now_micros: u64) -> Result<Configure, Box<Response>> {
    let retention = body.retention.as_ref().map(retention_secs).transpose()?;
    let expires = body.expires.as_deref().map(|text| match text {
        "never" => Ok(0),
        text => parse_end(text, now_micros).map_err(|error| invalid(&error)),
    });
    Ok(Configure { retention_secs: retention, expires_micros: expires.transpose()? })
}

/// What a retention says, in whole seconds.
fn retention_secs(value: &Value) -> Result<u32, Box<Response>> {
    let span: Option<Span> = match value {
        Value::Number(number) if number.as_u64() == Some(0) => Some(Span::secs(0)),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let whole = span.map(Span::as_duration).filter(|span| span.subsec_nanos() == 0);
    let secs = whole.and_then(|span| u32::try_from(span.as_secs()).ok()).filter(|secs| *secs <= RETENTION_SECS_MAX);
    secs.ok_or_else(|| invalid("a retention is whole seconds, at most 36500d: \"7d\", \"12h\", \"90s\", or 0 for none"))
}

async fn send(node: &NodeHandle, name: Name, configure: Configure) -> Result<Settings, Box<Response>> {
    let (reply, answer) = oneshot::channel();
    node.send(&name, Message::Configure { name: name.clone(), configure, reply }).map_err(|stopped| refusal(stopped.into()))?;
    match answer.await {
        Ok(Ok(settings)) => Ok(settings),
        Ok(Err(error)) => Err(explained(&node.context, error).await),
        Err(_) => Err(refusal(going_down().into())),
    }
}

fn answer(settings: Result<Settings, Box<Response>>) -> Response {
    match settings {
        Err(response) => *response,
        Ok(settings) => {
            let expires = Some(settings.expires_micros).filter(|micros| *micros > 0).map(time_text);
            let retention = Span::secs(settings.retention_secs.into()).in_large_units();
            json_answer(StatusCode::OK, json!({"retention": retention, "expires": expires}).to_string())
        }
    }
}
