//! The settings of a server, resolved and checked.
//!
//! Each setting is looked up in this order: flag, `SHOAL_*` variable (both through the command
//! line's parser), the TOML file, the default. [`ServeConfig::resolve`] remembers where each value
//! came from, so that an error can name the flag or the file's key that has to change.

mod source;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use tracing_subscriber::EnvFilter;

use super::args::{DevArgs, PageserverArgs, ServeArgs};
use super::environment::{self, UnknownVariables};
use super::limits::CONFIG_FILE_BYTES_MAX;
use super::settings::{CacheIo, Settings};
use super::units::{ByteSize, Span, Window};
use crate::limits::{CORES_MAX, RETENTION_SECS_MAX};
use source::{Found, Origin, Sources};

/// What a server is told at its start. `shoal dev` and `shoal serve` both end here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeConfig {
    /// `s3://bucket/prefix` or `file:///directory`; only the scheme has been looked at.
    pub store: String,
    pub cache_dir: PathBuf,
    pub cache_size: ByteSize,
    pub disk_io: CacheIo,
    /// For pages of all databases together.
    pub memory: ByteSize,
    pub window: Window,
    pub lease: Span,
    /// Zero is never.
    pub sweep_interval: Span,
    /// Of new databases; zero is none.
    pub retention: Span,
    /// Threads that run SQL.
    pub cores: NonZeroUsize,
    pub http_listen_addr: SocketAddr,
    pub admin_listen_addr: SocketAddr,
    /// Where other nodes reach this one; `None` if that is where it listens.
    pub advertise_url: Option<String>,
    /// Whether databases of other nodes are read here.
    pub read_replicas: bool,
    /// Who makes the packs of folds, as `http://host:port`; `None` if the node does.
    pub page_server: Option<String>,
    /// The database of a URL that names none. Its name has not been checked.
    pub default_database: Option<String>,
    /// Whether the first use of a name creates its database: only in development.
    pub create_on_first_use: bool,
    pub log: String,
    pub limits: Limits,
}

/// What one request, statement or transaction may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub max_body_size: ByteSize,
    pub max_response_size: ByteSize,
    pub max_transaction_size: ByteSize,
    pub statement_timeout: Span,
    pub idle_transaction_timeout: Span,
    pub commit_timeout: Span,
}

const CACHE_DIR: &str = "./shoal-cache";
const CACHE_SIZE: ByteSize = ByteSize::mib(1024);
const MEMORY: ByteSize = ByteSize::mib(256);
const LEASE: Span = Span::secs(10);
const SWEEP_INTERVAL: Span = Span::secs(24 * 60 * 60);
const RETENTION: Span = Span::secs(24 * 60 * 60);
const LOG: &str = "info";
const HTTP_LISTEN_ADDR: SocketAddr = loopback(8080);
const ADMIN_LISTEN_ADDR: SocketAddr = loopback(8081);

/// A lease is renewed three times before it runs out; shorter than this, ordinary scheduling
/// delays would lose it.
const LEASE_MIN: Span = Span::millis(100);

/// The database that `shoal dev` serves at the bare URL.
const DEV_DATABASE: &str = "default";

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

impl Limits {
    /// The largest transaction by default: with so much `memory` it can be written, stored and folded beside the rest.
    pub fn transaction_size_within(memory: ByteSize) -> ByteSize {
        ByteSize::bytes((memory.as_bytes() / MEMORY_PER_TRANSACTION).max(1)).min(MAX_TRANSACTION_SIZE)
    }
}

/// However much memory there is.
const MAX_TRANSACTION_SIZE: ByteSize = ByteSize::mib(256);
/// A large transaction is in memory twice at its worst.
const MEMORY_PER_TRANSACTION: u64 = 4;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_body_size: ByteSize::mib(64),
            max_response_size: ByteSize::bytes(10_000_000),
            max_transaction_size: Limits::transaction_size_within(MEMORY),
            statement_timeout: Span::secs(30),
            idle_transaction_timeout: Span::secs(5),
            commit_timeout: Span::secs(30),
        }
    }
}

/// Why a server can't start with these settings. Each message names the setting, and what to write.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "no store: write --store s3://bucket/prefix or --store file:///directory, set SHOAL_STORE, \
         or write store = \"…\" in the file of --config"
    )]
    NoStore,
    #[error("{origin} is `{url}`, which is no store: write s3://bucket/prefix or file:///directory")]
    NotAStore { origin: Origin, url: String },
    #[error(
        "{origin} is {addr}, and there is no authentication: whoever reaches this address could \
         read and change every database. Write {loopback} to listen on this machine only, or add \
         --no-auth if something in front of Shoal keeps strangers out"
    )]
    OpenToStrangers { origin: Origin, addr: SocketAddr, loopback: SocketAddr },
    #[error("{http} and {admin} are both {addr}: applications and administration need two ports")]
    SameAddress { http: Origin, admin: Origin, addr: SocketAddr },
    #[error("{origin} is {value}: {remedy}")]
    OutOfRange { origin: Origin, value: String, remedy: &'static str },
    #[error("{origin} is `{filter}`, which is no filter ({cause}): write info, debug or info,compute=debug")]
    NotAFilter { origin: Origin, filter: String, cause: String },
    #[error("the configuration file {} can't be read: {cause}", path.display())]
    FileNotRead { path: PathBuf, cause: std::io::Error },
    #[error("the configuration file {} is larger than {CONFIG_FILE_BYTES_MAX} bytes: is it the right one?", path.display())]
    FileTooLarge { path: PathBuf },
    #[error("the configuration file {} is wrong: {cause}", path.display())]
    FileNotUnderstood { path: PathBuf, cause: toml::de::Error },
    #[error(transparent)]
    UnknownVariables(#[from] UnknownVariables),
}

impl ServeConfig {
    /// The settings of `shoal serve`, from its flags, this process's environment and the file.
    pub fn resolve(args: ServeArgs) -> Result<ServeConfig, ConfigError> {
        environment::check(std::env::vars_os())?;
        let file = match &args.config {
            Some(path) => read_file(path)?,
            None => Settings::default(),
        };
        let path = args.config.unwrap_or_default();
        resolve_settings(args.settings, file, Sources::new(path))
    }

    /// The settings of `shoal dev`: everything in one directory, databases created when first used.
    pub fn for_dev(args: DevArgs) -> Result<ServeConfig, ConfigError> {
        environment::check(std::env::vars_os())?;
        ServeConfig::for_dev_unaware_of_the_environment(args)
    }

    /// The settings of `shoal pageserver` that it shares with a server.
    pub fn for_pageserver(args: PageserverArgs) -> Result<ServeConfig, ConfigError> {
        environment::check(std::env::vars_os())?;
        let settings = Settings {
            store: Some(args.store),
            memory: Some(args.memory),
            sweep_interval: Some(args.sweep_interval),
            http_listen_addr: Some(args.listen_addr),
            no_auth: Some(args.no_auth),
            log: Some(args.log),
            ..Settings::default()
        };
        resolve_settings(settings, Settings::default(), Sources::new(PathBuf::new()))
    }

    fn for_dev_unaware_of_the_environment(args: DevArgs) -> Result<ServeConfig, ConfigError> {
        let settings = Settings {
            store: Some(file_url(&args.data_dir.join("bucket"))),
            cache_dir: Some(args.data_dir.join("cache")),
            http_listen_addr: Some(args.http_listen_addr),
            admin_listen_addr: Some(args.admin_listen_addr),
            no_auth: Some(args.no_auth),
            default_database: Some(DEV_DATABASE.into()),
            log: Some(args.log),
            ..Settings::default()
        };
        let config = resolve_settings(settings, Settings::default(), Sources::new(PathBuf::new()))?;
        Ok(ServeConfig { create_on_first_use: true, ..config })
    }
}

/// `file:///…` of a directory that need not exist yet.
fn file_url(directory: &Path) -> String {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
    format!("file://{}", absolute.display())
}

fn read_file(path: &Path) -> Result<Settings, ConfigError> {
    let not_read = |cause| ConfigError::FileNotRead { path: path.to_path_buf(), cause };
    let file = std::fs::File::open(path).map_err(not_read)?;
    let mut text = String::new();
    file.take(CONFIG_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(not_read)?;
    if text.len() as u64 > CONFIG_FILE_BYTES_MAX {
        return Err(ConfigError::FileTooLarge { path: path.to_path_buf() });
    }
    parse_file(&text, path)
}

fn parse_file(text: &str, path: &Path) -> Result<Settings, ConfigError> {
    toml::from_str(text).map_err(|cause| ConfigError::FileNotUnderstood { path: path.to_path_buf(), cause })
}

fn resolve_settings(flags: Settings, file: Settings, from: Sources) -> Result<ServeConfig, ConfigError> {
    // A macro, because each setting is a field of both structs and a name in an error.
    macro_rules! pick {
        ($setting:ident, $default:expr) => {
            from.pick(stringify!($setting), flags.$setting, file.$setting, $default)
        };
    }
    let no_auth = pick!(no_auth, false).value;
    let http = pick!(http_listen_addr, HTTP_LISTEN_ADDR);
    let admin = pick!(admin_listen_addr, ADMIN_LISTEN_ADDR);
    check_addresses(&http, &admin, no_auth)?;

    let default = Limits::default();
    let window = pick!(window, Window::NONE).value;
    let memory = not_zero(pick!(memory, MEMORY))?;
    let largest = Limits::transaction_size_within(memory);
    let limits = Limits {
        max_body_size: not_zero(pick!(max_body_size, default.max_body_size))?,
        max_response_size: not_zero(pick!(max_response_size, default.max_response_size))?,
        max_transaction_size: not_zero(pick!(max_transaction_size, largest))?,
        statement_timeout: some_time(pick!(statement_timeout, default.statement_timeout))?,
        idle_transaction_timeout: some_time(pick!(idle_transaction_timeout, default.idle_transaction_timeout))?,
        commit_timeout: check_commit_timeout(pick!(commit_timeout, default.commit_timeout), window)?,
    };
    Ok(ServeConfig {
        store: check_store(from.pick_optional("store", flags.store, file.store))?,
        cache_dir: pick!(cache_dir, CACHE_DIR.into()).value,
        cache_size: not_zero(pick!(cache_size, CACHE_SIZE))?,
        disk_io: pick!(disk_io, CacheIo::Auto).value,
        memory,
        window,
        lease: check_lease(pick!(lease, LEASE))?,
        sweep_interval: pick!(sweep_interval, SWEEP_INTERVAL).value,
        retention: check_retention(pick!(retention, RETENTION))?,
        cores: check_cores(pick!(cores, cores_of_this_machine()))?,
        http_listen_addr: http.value,
        admin_listen_addr: admin.value,
        advertise_url: check_url(
            from.pick_optional("advertise_url", flags.advertise_url, file.advertise_url),
            "write http://host:port, as other nodes reach this one",
        )?,
        read_replicas: pick!(read_replicas, false).value,
        page_server: check_url(
            from.pick_optional("page_server", flags.page_server, file.page_server),
            "write http://host:port, where a `shoal pageserver` listens",
        )?,
        default_database: flags.default_database.or(file.default_database),
        create_on_first_use: false,
        log: check_log(pick!(log, LOG.into()))?,
        limits,
    })
}

fn cores_of_this_machine() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(CORES_MAX)
}

fn check_store(store: Option<Found<String>>) -> Result<String, ConfigError> {
    let Some(Found { value: url, origin }) = store else { return Err(ConfigError::NoStore) };
    let has_a_place = |scheme| url.strip_prefix(scheme).is_some_and(|rest: &str| !rest.is_empty());
    if has_a_place("s3://") || has_a_place("file:///") {
        return Ok(url);
    }
    Err(ConfigError::NotAStore { origin, url })
}

/// What others make requests to: plain HTTP, and no path.
fn check_url(url: Option<Found<String>>, remedy: &'static str) -> Result<Option<String>, ConfigError> {
    let Some(found) = url else { return Ok(None) };
    let is_origin = |url: &String| {
        let parsed = url.parse::<http::Uri>().ok();
        parsed.is_some_and(|url| url.scheme_str() == Some("http") && url.authority().is_some() && url.path() == "/")
    };
    found.require(is_origin, remedy).map(|url| Some(url.trim_end_matches('/').to_owned()))
}

fn check_addresses(http: &Found<SocketAddr>, admin: &Found<SocketAddr>, no_auth: bool) -> Result<(), ConfigError> {
    for found in [http, admin] {
        let addr = found.value;
        if !no_auth && !addr.ip().to_canonical().is_loopback() {
            let loopback = loopback(addr.port());
            return Err(ConfigError::OpenToStrangers { origin: found.origin.clone(), addr, loopback });
        }
    }
    // Port 0 asks for any free port, so two of them don't clash.
    if http.value == admin.value && http.value.port() != 0 {
        let (http, admin) = (http.clone(), admin.clone());
        return Err(ConfigError::SameAddress { http: http.origin, admin: admin.origin, addr: http.value });
    }
    Ok(())
}

fn check_lease(lease: Found<Span>) -> Result<Span, ConfigError> {
    lease.require(|lease| *lease >= LEASE_MIN, "a lease lasts at least 100ms; write 10s")
}

/// It is kept in whole seconds.
fn check_retention(retention: Found<Span>) -> Result<Span, ConfigError> {
    let is_whole = |span: &Span| {
        let duration = span.as_duration();
        duration.subsec_nanos() == 0 && duration.as_secs() <= u64::from(RETENTION_SECS_MAX)
    };
    retention.require(is_whole, "it is whole seconds, and at most 36500d; write 0, 12h or 7d")
}

/// A reply that gives up before its batch is even sent would call every write unknown.
fn check_commit_timeout(commit: Found<Span>, window: Window) -> Result<Span, ConfigError> {
    let outlasts = |span: &Span| span.as_duration() > window.as_duration();
    commit.require(outlasts, "it must be longer than the window; write 30s")
}

fn check_cores(cores: Found<usize>) -> Result<NonZeroUsize, ConfigError> {
    let remedy = "at least one thread must run SQL, and at most 256 can; write 1 or more, or nothing for one per core";
    let positive = cores.require(|cores| (1..=CORES_MAX).contains(cores), remedy)?;
    Ok(NonZeroUsize::new(positive).expect("BUG: checked above"))
}

fn check_log(log: Found<String>) -> Result<String, ConfigError> {
    match EnvFilter::builder().parse(&log.value) {
        Ok(_) => Ok(log.value),
        Err(cause) => Err(ConfigError::NotAFilter { origin: log.origin, filter: log.value, cause: cause.to_string() }),
    }
}

fn not_zero(size: Found<ByteSize>) -> Result<ByteSize, ConfigError> {
    size.require(|size| size.as_bytes() > 0, "nothing would fit; write a size such as 64MiB")
}

fn some_time(span: Found<Span>) -> Result<Span, ConfigError> {
    span.require(|span| !span.as_duration().is_zero(), "nothing would ever finish; write 30s")
}
