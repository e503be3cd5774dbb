//! Which database and which endpoint a request means, from its method, path and headers alone.
//!
//! | form | example |
//! |---|---|
//! | `/db/<name>/…` | `POST /db/app/v2/pipeline`: the form that we print |
//! | `/dev/<name>/…` | the same, as libSQL's server spells it |
//! | `/<name>/…` | `POST /app/v3/cursor`: short, and therefore not for [reserved](tenant::name::is_reserved) words |
//! | `/…` | the database of the header `x-namespace`, or else the configured default |
//!
//! Wherever a name stands, `<name>@<moment>` may stand: the database as it was at that [moment](crate::moment), which
//! only reads. Clients encode such a part of a path in various ways (`app%402026-11-21T20%3A15%3A00Z`), so it is decoded.
//!
//! Doubled slashes count as one, since clients join URLs carelessly. A path and a header that
//! name different databases are refused, never ranked: one of the two is a mistake, and only the
//! caller knows which.
//!
//! The commonest mistake is a database URL without its trailing slash. Clients resolve `v2/pipeline`
//! against it as a browser would, which replaces the last part: `http://host/db/app` becomes
//! `/db/v2/pipeline`. No database can be called `v2`, so this is recognised, and the error says
//! what to write. In the short form `http://host/app` becomes `/v2/pipeline`, which is the bare URL;
//! where no default database is configured its error says the same.
//!
//! Nothing here looks at whether a database exists, nor at who asks.

use std::fmt;

use http::{HeaderMap, Method, StatusCode};
use tenant::name::{Name, NameError, is_reserved, is_version_word};

use crate::error::error_body;
use crate::hrana::HranaVersion;
use crate::hrana::error::shorten;
use crate::hrana::limits::ECHO_CHARS_MAX;
use crate::moment::{Moment, MomentError};

/// The header by which a client that can't put a database into its URL may name one.
pub const NAMESPACE_HEADER: &str = "x-namespace";

/// A request that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `GET /health`: the process is alive.
    Health,
    /// `GET /version`.
    Version,
    /// `GET …/v2` and `…/v3`: clients ask which protocols are spoken, before and without a database.
    Probe(HranaVersion),
    /// A request to a database.
    Database { target: Target, endpoint: Endpoint },
}

/// A database, or what it was at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub name: Name,
    pub at: Option<Moment>,
}

impl From<Name> for Target {
    fn from(name: Name) -> Self {
        Self { name, at: None }
    }
}

/// As a URL has it. Every spelling of a moment has the same text here.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            None => write!(f, "{}", self.name),
            Some(moment) => write!(f, "{}@{moment}", self.name),
        }
    }
}

/// What is asked of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    Pipeline(HranaVersion),
    /// Hrana 3 only.
    Cursor,
    /// The database as SQL.
    Dump,
    /// The database as a SQLite file.
    Export,
}

/// A request that makes none. The message ends with what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RouteError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    /// For the header `Allow`, with status 405.
    pub allow: Option<&'static str>,
}

impl RouteError {
    fn new(status: StatusCode, code: &'static str, message: String) -> RouteError {
        RouteError { status, code, message, allow: None }
    }

    /// The body, to be sent as `application/json`.
    pub fn body(&self) -> Vec<u8> {
        error_body(&self.message, self.code)
    }
}

/// Finds the route of a request. `path` is the URL's path as it was sent, still encoded; `authority` is host and
/// port where the request line has them: in HTTP/2 (`:authority`), where no header `Host` repeats them, and in
/// requests through a proxy. `default_database` serves the bare URL, if one is configured.
pub fn resolve(
    method: &Method,
    path: &str,
    authority: Option<&str>,
    headers: &HeaderMap,
    default_database: Option<&Name>,
) -> Result<Route, RouteError> {
    let base = BaseUrl { authority, headers };
    let located = locate(path, &base)?;
    let action = Action::of(&located, method, &base)?;
    let endpoint = match action {
        Action::Health => return Ok(Route::Health),
        Action::Version => return Ok(Route::Version),
        Action::Probe(version) => return Ok(Route::Probe(version)),
        Action::Serve(endpoint) => endpoint,
    };
    let from_header = target_in_headers(headers, &base)?;
    let target = match (located.target, from_header) {
        (Some(in_path), Some(in_header)) if in_path != in_header => {
            return Err(disagreement(&in_path, &in_header));
        }
        (Some(target), _) | (None, Some(target)) => target,
        (None, None) => default_database.cloned().ok_or_else(|| no_database(&base))?.into(),
    };
    Ok(Route::Database { target, endpoint })
}

/// A path, split into the database that it names and the rest.
struct Located<'p> {
    target: Option<Target>,
    rest: Vec<&'p str>,
}

fn locate<'p>(path: &'p str, base: &BaseUrl<'_>) -> Result<Located<'p>, RouteError> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (name, rest) = match parts.as_slice() {
        ["db" | "dev", word, ..] if is_version_word(word) => return Err(lost_slash(base)),
        ["db" | "dev"] => return Err(no_database(base)),
        ["db" | "dev", name, rest @ ..] => (Some(*name), rest),
        [word, ..] if is_reserved(word) => (None, parts.as_slice()),
        [name, rest @ ..] => (Some(*name), rest),
        [] => (None, parts.as_slice()),
    };
    let target = name.map(|text| parse_target(text, base)).transpose()?;
    Ok(Located { target, rest: rest.to_vec() })
}

/// Reads `<name>` or `<name>@<moment>`.
fn parse_target(text: &str, base: &BaseUrl<'_>) -> Result<Target, RouteError> {
    let (name, moment) = match text.split_once('@').or_else(|| text.split_once("%40")) {
        Some((name, moment)) => (name, Some(moment)),
        None => (text, None),
    };
    let name = Name::parse(name).map_err(|error| bad_name(&error, base))?;
    let at = moment.map(Moment::parse_encoded).transpose().map_err(|error| bad_moment(&name, &error, base))?;
    Ok(Target { name, at })
}

/// What the rest of the path and the method ask for.
enum Action {
    Health,
    Version,
    Probe(HranaVersion),
    Serve(Endpoint),
}

impl Action {
    fn of(located: &Located<'_>, method: &Method, base: &BaseUrl<'_>) -> Result<Action, RouteError> {
        use HranaVersion::{Hrana2, Hrana3};
        let (action, allow) = match (located.rest.as_slice(), &located.target) {
            (["health"], None) => (Action::Health, GET),
            (["version"], None) => (Action::Version, GET),
            (["v2"], _) => (Action::Probe(Hrana2), GET),
            (["v3"], _) => (Action::Probe(Hrana3), GET),
            (["v2", "pipeline"], _) => (Action::Serve(Endpoint::Pipeline(Hrana2)), POST),
            (["v3", "pipeline"], _) => (Action::Serve(Endpoint::Pipeline(Hrana3)), POST),
            (["v3", "cursor"], _) => (Action::Serve(Endpoint::Cursor), POST),
            (["dump"], _) => (Action::Serve(Endpoint::Dump), ONLY_GET),
            (["export"], _) => (Action::Serve(Endpoint::Export), ONLY_GET),
            (["v3-protobuf", ..], _) => return Err(not_spoken("Hrana 3 as Protobuf")),
            (["v1", ..], _) => return Err(not_spoken("version 1 of the HTTP API")),
            (_, Some(target)) => return Err(no_endpoint(target, base)),
            ([], None) => return Err(no_database(base)),
            (_, None) => return Err(no_page(&located.rest)),
        };
        if allow.split(", ").any(|allowed| allowed == method.as_str()) {
            Ok(action)
        } else {
            Err(wrong_method(method, allow))
        }
    }
}

const GET: &str = "GET, HEAD";
/// What takes as long to make as to send.
const ONLY_GET: &str = "GET";
const POST: &str = "POST";

fn target_in_headers(headers: &HeaderMap, base: &BaseUrl<'_>) -> Result<Option<Target>, RouteError> {
    let mut found: Option<Target> = None;
    for header in headers.get_all(NAMESPACE_HEADER) {
        let text = String::from_utf8_lossy(header.as_bytes());
        let target = parse_target(&text, base)?;
        match found {
            Some(first) if first != target => return Err(disagreement(&first, &target)),
            _ => found = Some(target),
        }
    }
    Ok(found)
}

/// How the client reached us, so that an error can spell a whole URL. Headers are whatever the
/// client says; one that doesn't look like an address isn't repeated.
struct BaseUrl<'h> {
    authority: Option<&'h str>,
    headers: &'h HeaderMap,
}

impl BaseUrl<'_> {
    /// The URL that belongs into a client's configuration.
    fn database(&self, name: &str) -> String {
        // The request line's word counts, as the RFCs say.
        let host = self.authority.or_else(|| self.header("host"));
        let host = host.filter(|host| is_address(host)).unwrap_or("<this server>");
        let is_https = self.header("x-forwarded-proto") == Some("https");
        format!("{}://{host}/db/{name}/", if is_https { "https" } else { "http" })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

fn is_address(host: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    (1..=255).contains(&host.len()) && host.bytes().all(is_plain)
}

fn lost_slash(base: &BaseUrl<'_>) -> RouteError {
    let message = format!(
        "the database's name is missing from this URL: without a slash at its end, a database URL \
         loses its last part. Write it with the slash: {}",
        base.database("<name>")
    );
    RouteError::new(StatusCode::BAD_REQUEST, "DATABASE_URL_WITHOUT_SLASH", message)
}

fn no_database(base: &BaseUrl<'_>) -> RouteError {
    let message = format!(
        "there is no database in this URL. Did you forget the slash at the end of the database's \
         URL? Write {} (or send the header {NAMESPACE_HEADER}: <name>)",
        base.database("<name>")
    );
    RouteError::new(StatusCode::NOT_FOUND, "DATABASE_NOT_NAMED", message)
}

fn bad_name(error: &NameError, base: &BaseUrl<'_>) -> RouteError {
    let message = format!("{error}. Write the database's URL as {}", base.database("<name>"));
    RouteError::new(StatusCode::BAD_REQUEST, "DATABASE_NAME_INVALID", message)
}

fn bad_moment(name: &Name, error: &MomentError, base: &BaseUrl<'_>) -> RouteError {
    let url = base.database(&format!("{name}@<moment>"));
    let message = format!("{error}. The URL of a database as it was at some moment is {url}");
    RouteError::new(StatusCode::BAD_REQUEST, "MOMENT_INVALID", message)
}

fn disagreement(one: &Target, other: &Target) -> RouteError {
    let message = format!(
        "this request names two databases, `{one}` and `{other}` (path and header {NAMESPACE_HEADER} \
         must agree). Leave the header {NAMESPACE_HEADER} out"
    );
    RouteError::new(StatusCode::BAD_REQUEST, "DATABASE_NAMES_DISAGREE", message)
}

fn no_endpoint(target: &Target, base: &BaseUrl<'_>) -> RouteError {
    let message = format!(
        "the database `{target}` has no such endpoint: it answers POST to v2/pipeline, v3/pipeline and \
         v3/cursor, and GET to dump and export. Give clients this URL and let them add the rest: {}",
        base.database(&target.to_string())
    );
    RouteError::new(StatusCode::NOT_FOUND, "ENDPOINT_NOT_FOUND", message)
}

fn no_page(rest: &[&str]) -> RouteError {
    let path = shorten(&rest.join("/"), ECHO_CHARS_MAX).escape_default().to_string();
    let message =
        format!("there is nothing at `/{path}`. Databases are at /db/<name>/, and /health and /version answer GET");
    RouteError::new(StatusCode::NOT_FOUND, "ENDPOINT_NOT_FOUND", message)
}

/// 404, from which clients conclude that they should try an older protocol.
fn not_spoken(protocol: &str) -> RouteError {
    let message = format!("this server doesn't speak {protocol}. Use Hrana 2 or 3 as JSON: v2/pipeline, v3/pipeline");
    RouteError::new(StatusCode::NOT_FOUND, "PROTOCOL_NOT_SUPPORTED", message)
}

fn wrong_method(method: &Method, allow: &'static str) -> RouteError {
    let method = shorten(method.as_str(), ECHO_CHARS_MAX);
    let message = format!("{method} is not for this URL, use {allow}");
    let error = RouteError::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message);
    RouteError { allow: Some(allow), ..error }
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
