//! The forms in which a database's URL may be written, and the one that is used.
//!
//! | written | used |
//! |---|---|
//! | `http://host:8080/db/app/` | the same |
//! | `http://host:8080/db/app` | with the slash: only libraries that resolve paths need it written |
//! | `libsql://host/db/app/` | `https://host/db/app/` |
//! | `libsql://host:8080/db/app/?tls=0` | `http://host:8080/db/app/`; the port is required, as in libSQL's own clients |
//! | `ws://…`, `wss://…` | `http://…`, `https://…`: the shell needs no WebSocket |
//! | `…?authToken=T` | the token is taken out of the URL |

use std::fmt;

/// Where a database's endpoints are, and what to show to be let in.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    base: String,
    auth_token: Option<String>,
}

/// Without the token: it is a secret, and this ends up in messages.
impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseUrl").field("base", &self.base).finish_non_exhaustive()
    }
}

/// A text that is no URL of a database; the message says what is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("`{0}` is not a URL: write http://127.0.0.1:8080/db/<name>/")]
    NoScheme(String),
    #[error("`{0}://` is not supported: write http://, https:// or libsql://")]
    UnknownScheme(String),
    #[error("`{0}` names no server, or has characters that a URL can't have")]
    Malformed(String),
    #[error("a user name or password in the URL is not supported: use --auth-token")]
    UserInfo,
    #[error("the URL's part after `#` has no meaning here: leave it out")]
    Fragment,
    #[error("the URL parameter `{0}` is not supported: only tls=0, tls=1 and authToken are")]
    UnknownParameter(String),
    #[error("libsql:// with tls=0 needs a port: write libsql://{0}:8080/…?tls=0")]
    NoPort(String),
}

impl DatabaseUrl {
    pub fn parse(text: &str) -> Result<DatabaseUrl, UrlError> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").ok_or_else(|| UrlError::NoScheme(text.into()))?;
        if rest.contains('#') {
            return Err(UrlError::Fragment);
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        let parameters = Parameters::parse(query)?;
        let scheme = http_scheme(scheme, authority, parameters.tls)?;
        let slash = if path.ends_with('/') { "" } else { "/" };
        let base = format!("{scheme}://{authority}{path}{slash}");
        let is_uri = base.parse::<http::Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
        if !is_uri {
            return Err(UrlError::Malformed(base));
        }
        Ok(DatabaseUrl { base, auth_token: parameters.auth_token })
    }

    /// `http` or `https`, and with a slash at the end.
    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn auth_token(&self) -> Option<&str> {
        self.auth_token.as_deref()
    }
}

/// Whether `url` is on this machine, where no proxy has anything to do.
pub fn is_loopback(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|addr| addr.to_canonical().is_loopback())
}

fn http_scheme(scheme: &str, authority: &str, tls: Option<bool>) -> Result<&'static str, UrlError> {
    match (scheme.to_ascii_lowercase().as_str(), tls) {
        ("http" | "ws", _) => Ok("http"),
        ("https" | "wss", _) => Ok("https"),
        ("libsql", Some(false)) if !has_port(authority) => Err(UrlError::NoPort(authority.into())),
        ("libsql", Some(false)) => Ok("http"),
        ("libsql", _) => Ok("https"),
        (other, _) => Err(UrlError::UnknownScheme(other.into())),
    }
}

fn has_port(authority: &str) -> bool {
    let after_host = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
    after_host.contains(':')
}

struct Parameters {
    tls: Option<bool>,
    auth_token: Option<String>,
}

impl Parameters {
    fn parse(query: &str) -> Result<Parameters, UrlError> {
        let mut parameters = Parameters { tls: None, auth_token: None };
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("tls", "0")) => parameters.tls = Some(false),
                Some(("tls", "1")) => parameters.tls = Some(true),
                Some(("authToken", token)) => parameters.auth_token = Some(token.into()),
                // The value is left out: it may be a secret under a misspelt name.
                Some((name, _)) => return Err(UrlError::UnknownParameter(name.into())),
                None => return Err(UrlError::UnknownParameter(parameter.into())),
            }
        }
        Ok(parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(text: &str) -> Result<String, UrlError> {
        DatabaseUrl::parse(text).map(|url| url.base)
    }

    #[test]
    fn all_forms_lead_to_http_with_a_slash_at_the_end() {
        for (written, used) in [
            ("http://127.0.0.1:8080/db/x/", "http://127.0.0.1:8080/db/x/"),
            ("http://127.0.0.1:8080/db/x", "http://127.0.0.1:8080/db/x/"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("https://db.example.com/db/x/", "https://db.example.com/db/x/"),
            ("libsql://db.example.com/db/x/", "https://db.example.com/db/x/"),
            ("libsql://db.example.com/?tls=1", "https://db.example.com/"),
            ("libsql://localhost:8080/db/x?tls=0", "http://localhost:8080/db/x/"),
            ("LIBSQL://[::1]:8080/?tls=0", "http://[::1]:8080/"),
            ("ws://h:1/db/x/", "http://h:1/db/x/"),
            ("wss://h/", "https://h/"),
        ] {
            assert_eq!(base(written).as_deref(), Ok(used), "{written}");
        }
    }

    #[test]
    fn a_token_is_taken_out_of_the_url_and_not_shown() {
        let url = DatabaseUrl::parse("libsql://h/db/x/?authToken=secret").expect("a token");
        assert_eq!(url.auth_token(), Some("secret"));
        assert_eq!(url.base(), "https://h/db/x/");
        assert!(!format!("{url:?}").contains("secret"));
    }

    #[test]
    fn what_is_no_database_url_is_refused_with_what_to_write() {
        for (text, remedy) in [
            ("127.0.0.1:8080/db/x/", "write http://127.0.0.1:8080/db/<name>/"),
            ("file:///tmp/x.db", "write http://"),
            ("http://user:pw@h/", "--auth-token"),
            ("libsql://h/db/x/?tls=0", "write libsql://h:8080/"),
            ("libsql://[::1]/?tls=0", "needs a port"),
            ("http://h/?namespace=x", "`namespace` is not supported"),
            ("http://h/?tls=yes", "`tls` is not supported"),
            ("http://h/#x", "leave it out"),
            ("http:///db/x/", "names no server"),
            ("http://h/a b/", "characters"),
            ("", "is not a URL"),
        ] {
            let message = base(text).expect_err(text).to_string();
            assert!(message.contains(remedy), "{text}: {message}");
        }
    }

    #[test]
    fn loopback_is_recognised_in_its_forms() {
        for url in ["http://127.0.0.1:1/", "http://127.9.9.9/", "http://[::1]:8080/", "http://localhost/"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["http://10.0.0.1/", "https://localhost.example.com/", "http://[2001:db8::1]/", "x"] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
