//! `/-/…`: reading the counters and switching faults from another process, without credentials.
//!
//! `-` is no valid bucket name, so these paths cannot collide with S3's. Their requests are not counted and
//! no fault strikes them.

use std::collections::BTreeMap;

use http::{HeaderValue, Method, StatusCode, header};
use s3s::{Body, HttpResponse};
use serde_json::{Value, json};

use crate::class::Operation;
use crate::faults::Outage;
use crate::server::Core;

pub(crate) const PREFIX: &str = "/-/";

const USAGE: &str = "\
GET    /-/counters                           requests and bytes by operation and class, faults that struck
DELETE /-/counters                           start counting anew
PUT    /-/journal                            begin a journal of all requests
DELETE /-/journal                            end it: what was answered since, with times in microseconds
PUT    /-/profile/<local|s3std|express|fixed:MS>
PUT    /-/outage/<none|unavailable|hang>
PUT    /-/deny/<on|off>                      answer 403 to everything
PUT    /-/ignore-conditions/<on|off>         ignore If-None-Match and If-Match
PUT    /-/drop-put/<N>                       lose the answer of the N-th PUT from now
";

pub(crate) fn answer(core: &Core, method: &Method, path: &str) -> HttpResponse {
    let words: Vec<_> = path[PREFIX.len()..].split('/').collect();
    match (method, words.as_slice()) {
        (&Method::GET, ["counters"]) => counters(core),
        (&Method::DELETE, ["counters"]) => {
            core.tally.reset();
            text(StatusCode::OK, "counting anew\n".to_owned())
        }
        (&Method::PUT, ["journal"]) => {
            core.journal.begin();
            text(StatusCode::OK, "journal: begun\n".to_owned())
        }
        (&Method::DELETE, ["journal"]) => journal(core),
        (&Method::PUT, [switch, value]) if set(core, switch, value).is_some() => {
            text(StatusCode::OK, format!("{switch}: {value}\n"))
        }
        _ => text(StatusCode::NOT_FOUND, USAGE.to_owned()),
    }
}

/// Turns a switch; `None` if there is no such switch or value.
fn set(core: &Core, switch: &str, value: &str) -> Option<()> {
    let on = match value {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    };
    match switch {
        "profile" => core.set_profile(value.parse().ok()?),
        "deny" => core.faults.deny(on?),
        "ignore-conditions" => core.faults.ignore_conditions(on?),
        "drop-put" => core.faults.drop_put_answer(value.parse().ok().filter(|n| *n > 0)?),
        "outage" => core.faults.outage(match value {
            "none" => Outage::None,
            "unavailable" => Outage::Unavailable,
            "hang" => Outage::Hang,
            _ => return None,
        }),
        _ => return None,
    }
    Some(())
}

fn counters(core: &Core) -> HttpResponse {
    let counters = core.tally.read();
    let rows = counters.iter().map(|(operation, class, counter)| {
        json!({
            "operation": operation.name(),
            "class": class.as_str(),
            "requests": counter.requests,
            "bytes": counter.bytes,
        })
    });
    let in_flight_max: BTreeMap<_, _> = Operation::ALL
        .into_iter()
        .map(|operation| (operation.name(), core.tally.in_flight_max(operation)))
        .collect();
    let hits: BTreeMap<_, _> =
        core.faults.hits().into_iter().map(|(fault, hits)| (format!("{fault:?}"), hits)).collect();
    let body = json!({
        "counters": rows.collect::<Vec<Value>>(),
        "in_flight_max": in_flight_max,
        "faults": hits,
    });
    as_json(&body)
}

/// Ends the journal and hands it over.
fn journal(core: &Core) -> HttpResponse {
    let entries = core.journal.end();
    let rows = entries.iter().map(|entry| {
        json!({
            "operation": entry.operation.name(),
            "class": entry.class.as_str(),
            "key": entry.key,
            "began_micros": entry.began.as_micros() as u64,
            "ended_micros": entry.ended.as_micros() as u64,
            "status": entry.status,
        })
    });
    as_json(&Value::Array(rows.collect()))
}

fn as_json(body: &Value) -> HttpResponse {
    let mut response = text(StatusCode::OK, format!("{body:#}\n"));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn text(status: StatusCode, body: String) -> HttpResponse {
    let mut response = HttpResponse::new(Body::from(body));
    *response.status_mut() = status;
    response
}
