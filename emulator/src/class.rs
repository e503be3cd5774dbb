//! What a request is about: its operation and the class of its key.
//!
//! Both come from the request line alone, so that a request which is refused (wrong credentials, unknown
//! operation, an outage) is counted like any other.

use std::borrow::Cow;
use std::fmt;

use http::{Method, Uri};

/// The kinds of requests that are counted and delayed apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Put,
    Get,
    Head,
    Delete,
    List,
    /// Everything about buckets themselves, and whatever this emulator does not implement.
    Other,
}

impl Operation {
    pub const ALL: [Self; 6] =
        [Self::Put, Self::Get, Self::Head, Self::Delete, Self::List, Self::Other];

    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A class of keys: what the objects under one kind of key are for.
///
/// It is the key's first part (`w`, `b`, `n`, `inc` …). Only a database's objects, all under
/// `t/<h>/<dbid>/`, are told apart by what they are: `head`, `pack` (`…/p/…`) and `map` (`…/m/…`). A
/// listing has the class of its prefix. Requests without a key have the empty class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(Cow<'static, str>);

impl Class {
    /// The class of requests that name no key.
    pub const NONE: Self = Self(Cow::Borrowed(""));

    /// The class of a key, or of a listing's prefix.
    pub fn of(key: &str) -> Self {
        let mut parts = key.split('/');
        let first = parts.next().unwrap_or_default();
        if first != "t" {
            return Self(Cow::Owned(first.to_owned()));
        }
        match (parts.nth(2), parts.next().is_some()) {
            (Some("head"), false) => Self(Cow::Borrowed("head")),
            (Some("p"), true) => Self(Cow::Borrowed("pack")),
            (Some("m"), true) => Self(Cow::Borrowed("map")),
            _ => Self(Cow::Borrowed("t")),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Class {
    /// The class of this *name*; for a key's class see [`Class::of`].
    fn from(name: &str) -> Self {
        Self(Cow::Owned(name.to_owned()))
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if self.0.is_empty() { "-" } else { &self.0 })
    }
}

/// The key that a request names, prefix included; empty if it names none.
pub(crate) fn key_of(uri: &Uri) -> String {
    let path = decoded(uri.path().trim_start_matches('/'));
    path.split_once('/').map_or_else(String::new, |(_bucket, key)| key.to_owned())
}

/// What the request line says.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub operation: Operation,
    pub class: Class,
}

impl Target {
    /// `prefix` is what all keys of the program under test start with; it has no say in their class.
    pub(crate) fn of(method: &Method, uri: &Uri, prefix: &str) -> Self {
        let path = decoded(uri.path().trim_start_matches('/'));
        if let Some((_bucket, key)) = path.split_once('/').filter(|(_, key)| !key.is_empty()) {
            return Self { operation: object_operation(method), class: class_of(key, prefix) };
        }
        match (method, query(uri, "list-type")) {
            (&Method::GET, Some(_)) => {
                let listed = query(uri, "prefix").unwrap_or_default();
                Self { operation: Operation::List, class: class_of(&listed, prefix) }
            }
            _ => Self { operation: Operation::Other, class: Class::NONE },
        }
    }
}

fn object_operation(method: &Method) -> Operation {
    match *method {
        Method::PUT => Operation::Put,
        Method::GET => Operation::Get,
        Method::HEAD => Operation::Head,
        Method::DELETE => Operation::Delete,
        _ => Operation::Other,
    }
}

fn class_of(key: &str, prefix: &str) -> Class {
    let rest = key
        .strip_prefix(prefix)
        .filter(|rest| prefix.is_empty() || !rest.starts_with(|c| c != '/'));
    Class::of(rest.map_or(key, |rest| rest.trim_start_matches('/')))
}

fn query<'u>(uri: &'u Uri, name: &str) -> Option<Cow<'u, str>> {
    let pairs = uri.query()?.split('&');
    let mut values = pairs.filter_map(|pair| pair.split_once('=')).filter(|(key, _)| *key == name);
    values.next().map(|(_, value)| decoded(value))
}

/// Undoes percent-encoding; text that is not UTF-8 afterwards stays as it was (the request itself is
/// refused later).
fn decoded(text: &str) -> Cow<'_, str> {
    urlencoding::decode(text).unwrap_or(Cow::Borrowed(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(method: Method, uri: &str) -> (Operation, String) {
        let target = Target::of(&method, &uri.parse().unwrap(), "some/prefix");
        (target.operation, target.class.as_str().to_owned())
    }

    #[test]
    fn keys_are_classed_by_their_first_part_and_databases_by_object() {
        let class = |key: &str| Class::of(key).as_str().to_owned();
        assert_eq!(class("w/1f/00ff/17"), "w");
        assert_eq!(class("meta/cluster"), "meta");
        assert_eq!(class("t/1f/00ff/head"), "head");
        assert_eq!(class("t/1f/00ff/p/1-2-aa"), "pack");
        assert_eq!(class("t/1f/00ff/m/1-aa"), "map");
        for odd in ["t/1f/00ff", "t/1f/00ff/p", "t/1f/00ff/head/x", "t/head", "t"] {
            assert_eq!(class(odd), "t", "{odd}");
        }
        assert_eq!(class(""), "");
    }

    #[test]
    fn the_request_line_says_what_a_request_is_about() {
        assert_eq!(target(Method::PUT, "/bucket/some/prefix/w/1/2"), (Operation::Put, "w".into()));
        assert_eq!(target(Method::GET, "/bucket/w%2F1"), (Operation::Get, "w".into()));
        assert_eq!(target(Method::GET, "/bucket/some/prefixed/w"), (Operation::Get, "some".into()));
        assert_eq!(target(Method::HEAD, "/bucket/b/1"), (Operation::Head, "b".into()));
        assert_eq!(target(Method::DELETE, "/bucket/b/1"), (Operation::Delete, "b".into()));
        let listing = "/bucket/?list-type=2&prefix=some%2Fprefix%2Fn%2F&max-keys=2";
        assert_eq!(target(Method::GET, listing), (Operation::List, "n".into()));
        assert_eq!(target(Method::GET, "/bucket?list-type=2"), (Operation::List, String::new()));
        assert_eq!(target(Method::HEAD, "/bucket"), (Operation::Other, String::new()));
        assert_eq!(target(Method::GET, "/"), (Operation::Other, String::new()));
        assert_eq!(target(Method::POST, "/bucket/x?uploads"), (Operation::Other, "x".into()));
    }
}
