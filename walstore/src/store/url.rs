//! The URL that names a store, and opening what it names.
//!
//! ```text
//! file:///dir                                   a local directory (also: file:dir, /dir, ./dir)
//! s3://bucket/prefix                            AWS, or the endpoint in AWS_ENDPOINT_URL
//! s3://bucket?endpoint=http://host:9000&region=us-east-1&path_style=true
//! ```
//!
//! Credentials are never part of the URL, since URLs end in logs. The in-memory store has no URL: it is
//! for tests, which construct it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use super::{DirectoryStore, Key, S3Location, S3Options, S3Store, Store, StoreError};

/// A checked store URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    Directory(PathBuf),
    S3(S3Location),
}

/// Why a text is not a store URL, and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    #[error("the store is empty: {FORMS}")]
    Empty,
    #[error("`{0}` does not name a store: {FORMS}")]
    Unknown(String),
    #[error("`memory:` keeps nothing, so it is no store for a server: {FORMS}")]
    Memory,
    #[error("`{0}` names no directory: write file:///absolute/dir or file:relative/dir")]
    NoDirectory(String),
    #[error(
        "`file://{0}` names a host: write file:///{0} for an absolute directory, or file:{0} for a relative one"
    )]
    FileHost(String),
    #[error("a file URL has no options: remove `?{0}`")]
    FileOptions(String),
    #[error(
        "`{0}` is not a bucket name: write s3://bucket or s3://bucket/prefix, with 3 to 63 letters, digits, `-` and `.`"
    )]
    Bucket(String),
    #[error(
        "credentials do not belong in a URL: remove them, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    Credentials,
    #[error(
        "`{0}` is not a usable prefix: write parts of letters, digits, `-`, `_` and `.`, with single `/` between them, at most {PREFIX_BYTES_MAX} bytes"
    )]
    Prefix(String),
    #[error(
        "`{0}` is not an option of an S3 store: there are endpoint=http(s)://host:port, region=… and path_style=true|false"
    )]
    Option(String),
    #[error("`{0}` is given twice")]
    Twice(String),
    #[error(
        "`endpoint={0}` is not an address: write endpoint=http://host:port or endpoint=https://host"
    )]
    Endpoint(String),
    #[error("`region={0}` is not a region: write for example region=us-east-1")]
    Region(String),
    #[error("`path_style={0}` must be true or false")]
    PathStyle(String),
    #[error("`{0}` has a `%` that two hexadecimal digits do not follow")]
    Percent(String),
}

const FORMS: &str = "write file:///dir for a local directory, or s3://bucket/prefix for a bucket";

/// S3 has keys of 1,024 bytes, of which ours take up to 512.
const PREFIX_BYTES_MAX: usize = 500;

impl StoreUrl {
    pub fn parse(text: &str) -> Result<Self, StoreUrlError> {
        if let Some(rest) = text.strip_prefix("s3://") {
            return parse_s3(rest).map(Self::S3);
        }
        if let Some(rest) = text.strip_prefix("file:") {
            return parse_file(text, rest).map(Self::Directory);
        }
        match text {
            "" => Err(StoreUrlError::Empty),
            "memory:" | "memory" => Err(StoreUrlError::Memory),
            "." | ".." => Ok(Self::Directory(PathBuf::from(text))),
            path if ["/", "./", "../"].iter().any(|start| path.starts_with(start)) => {
                Ok(Self::Directory(PathBuf::from(path)))
            }
            other => Err(StoreUrlError::Unknown(other.to_owned())),
        }
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        Self::parse(text)
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) if path.is_absolute() => write!(f, "file://{}", path.display()),
            Self::Directory(path) => write!(f, "file:{}", path.display()),
            Self::S3(location) => write_s3(f, location),
        }
    }
}

/// Opens the store. `create` makes the directory of a file URL if there is none; a bucket is never made.
pub async fn open(url: &StoreUrl, create: bool) -> Result<Arc<dyn Store>, StoreError> {
    match url {
        StoreUrl::Directory(path) if create => Ok(Arc::new(DirectoryStore::create(path).await?)),
        StoreUrl::Directory(path) => Ok(Arc::new(DirectoryStore::open(path).await?)),
        StoreUrl::S3(location) => {
            Ok(Arc::new(S3Store::open(location, &S3Options::default()).await?))
        }
    }
}

/// Opens a store that is there already, to look at it.
pub async fn open_existing(url: &StoreUrl) -> Result<Arc<dyn Store>, StoreError> {
    match url {
        StoreUrl::Directory(path) => Ok(Arc::new(DirectoryStore::open_existing(path).await?)),
        StoreUrl::S3(_) => open(url, false).await,
    }
}

fn parse_file(text: &str, rest: &str) -> Result<PathBuf, StoreUrlError> {
    if let Some((_, options)) = rest.split_once('?') {
        return Err(StoreUrlError::FileOptions(options.to_owned()));
    }
    let path = match rest.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some("") => "",
        Some(host) => return Err(StoreUrlError::FileHost(host.to_owned())),
        None => rest,
    };
    if path.is_empty() {
        return Err(StoreUrlError::NoDirectory(text.to_owned()));
    }
    Ok(PathBuf::from(percent_decoded(path)?))
}

fn parse_s3(rest: &str) -> Result<S3Location, StoreUrlError> {
    let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if bucket.contains('@') {
        return Err(StoreUrlError::Credentials);
    }
    if !is_bucket(bucket) {
        return Err(StoreUrlError::Bucket(bucket.to_owned()));
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let is_usable = prefix.is_empty() || (Key::is_valid(prefix) && prefix.len() <= PREFIX_BYTES_MAX);
    if !is_usable {
        return Err(StoreUrlError::Prefix(prefix.to_owned()));
    }
    let mut location = S3Location {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        endpoint: None,
        region: None,
        path_style: None,
    };
    for option in options.split('&').filter(|option| !option.is_empty()) {
        set_option(&mut location, option)?;
    }
    Ok(location)
}

fn set_option(location: &mut S3Location, option: &str) -> Result<(), StoreUrlError> {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    let value = percent_decoded(value)?;
    let is_new = match name {
        "endpoint" => location.endpoint.replace(checked_endpoint(value)?).is_none(),
        "region" => location.region.replace(checked_region(value)?).is_none(),
        "path_style" => {
            let is_path_style = value.parse().map_err(|_| StoreUrlError::PathStyle(value))?;
            location.path_style.replace(is_path_style).is_none()
        }
        other => return Err(StoreUrlError::Option(other.to_owned())),
    };
    if is_new { Ok(()) } else { Err(StoreUrlError::Twice(name.to_owned())) }
}

fn checked_endpoint(value: String) -> Result<String, StoreUrlError> {
    let host = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://"));
    match host {
        Some(host) if host.contains('@') => Err(StoreUrlError::Credentials),
        Some(host) if is_host(host.strip_suffix('/').unwrap_or(host)) => Ok(value),
        _ => Err(StoreUrlError::Endpoint(value)),
    }
}

fn is_host(host: &str) -> bool {
    let byte = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]/".contains(&b);
    !host.is_empty() && host.bytes().all(byte)
}

fn checked_region(value: String) -> Result<String, StoreUrlError> {
    let is_region =
        !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if is_region { Ok(value) } else { Err(StoreUrlError::Region(value)) }
}

fn is_bucket(name: &str) -> bool {
    let byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let ends = |name: &str| name.starts_with(['.', '-']) || name.ends_with(['.', '-']);
    (3..=63).contains(&name.len()) && name.bytes().all(byte) && !ends(name)
}

fn percent_decoded(text: &str) -> Result<String, StoreUrlError> {
    let bad = || StoreUrlError::Percent(text.to_owned());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let digits =
            tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(bad)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(bad());
        }
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

fn write_s3(f: &mut fmt::Formatter<'_>, location: &S3Location) -> fmt::Result {
    write!(f, "s3://{}", location.bucket)?;
    if !location.prefix.is_empty() {
        write!(f, "/{}", location.prefix)?;
    }
    let path_style = location.path_style.map(|path_style| path_style.to_string());
    let options = [
        ("endpoint", location.endpoint.as_ref()),
        ("region", location.region.as_ref()),
        ("path_style", path_style.as_ref()),
    ];
    let mut separator = '?';
    for (name, value) in options {
        if let Some(value) = value {
            write!(f, "{separator}{name}={value}")?;
            separator = '&';
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(text: &str) -> S3Location {
        match StoreUrl::parse(text) {
            Ok(StoreUrl::S3(location)) => location,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn directory(text: &str) -> PathBuf {
        match StoreUrl::parse(text) {
            Ok(StoreUrl::Directory(path)) => path,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_directory_can_be_written_in_four_ways() {
        assert_eq!(directory("file:///a/b"), PathBuf::from("/a/b"));
        assert_eq!(directory("file:/a/b"), PathBuf::from("/a/b"));
        assert_eq!(directory("file:a/b"), PathBuf::from("a/b"));
        assert_eq!(directory("file:./a%20b"), PathBuf::from("./a b"));
        assert_eq!(directory("/a b"), PathBuf::from("/a b"));
        assert_eq!(directory("./a"), PathBuf::from("./a"));
    }

    #[test]
    fn a_bucket_has_a_prefix_and_options() {
        let plain = s3("s3://bucket");
        assert_eq!((plain.bucket.as_str(), plain.prefix.as_str()), ("bucket", ""));
        assert_eq!((plain.endpoint, plain.region, plain.path_style), (None, None, None));
        let full = s3(
            "s3://bucket/a/b/?endpoint=http%3A%2F%2Flocalhost:9000&region=eu-west-1&path_style=false",
        );
        assert_eq!(full.prefix, "a/b");
        assert_eq!(full.endpoint.as_deref(), Some("http://localhost:9000"));
        assert_eq!(full.region.as_deref(), Some("eu-west-1"));
        assert_eq!(full.path_style, Some(false));
        assert_eq!(s3("s3://bucket?endpoint=https://[::1]:9000/").prefix, "");
    }

    #[test]
    fn a_url_is_printed_as_it_can_be_written() {
        for text in [
            "file:///a/b",
            "file:a/b",
            "s3://bucket",
            "s3://bucket/a/b?endpoint=http://localhost:9000&region=eu-west-1&path_style=true",
        ] {
            assert_eq!(StoreUrl::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn each_mistake_has_an_error_of_its_own() {
        use StoreUrlError as E;
        for (text, expected) in [
            ("", E::Empty),
            ("memory:", E::Memory),
            ("shoal-data", E::Unknown("shoal-data".into())),
            ("gs://bucket", E::Unknown("gs://bucket".into())),
            ("file:", E::NoDirectory("file:".into())),
            ("file://", E::NoDirectory("file://".into())),
            ("file://data/x", E::FileHost("data/x".into())),
            ("file:///data?x=1", E::FileOptions("x=1".into())),
            ("file:///%zz", E::Percent("/%zz".into())),
            ("s3://", E::Bucket(String::new())),
            ("s3:///prefix", E::Bucket(String::new())),
            ("s3://a/b", E::Bucket("a".into())),
            ("s3://key:secret@bucket", E::Credentials),
            ("s3://bucket?endpoint=http://key:secret@host", E::Credentials),
            ("s3://bucket/../x", E::Prefix("../x".into())),
            ("s3://bucket//x", E::Prefix("/x".into())),
            ("s3://bucket?endpiont=x", E::Option("endpiont".into())),
            ("s3://bucket?endpoint=localhost:9000", E::Endpoint("localhost:9000".into())),
            ("s3://bucket?region=", E::Region(String::new())),
            ("s3://bucket?region=a&region=b", E::Twice("region".into())),
            ("s3://bucket?path_style=yes", E::PathStyle("yes".into())),
        ] {
            assert_eq!(StoreUrl::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn an_error_says_what_to_write() {
        let error = StoreUrl::parse("file://data").unwrap_err().to_string();
        assert!(error.contains("write file:///data"), "{error}");
    }

    #[tokio::test]
    async fn a_directory_is_made_only_if_asked_for() {
        let parent = tempfile::tempdir().unwrap();
        let url = StoreUrl::Directory(parent.path().join("new"));
        assert!(open(&url, false).await.is_err());
        let store = open(&url, true).await.unwrap();
        assert_eq!(store.describe(), url.to_string());
        assert!(open(&url, false).await.is_ok());
    }
}
