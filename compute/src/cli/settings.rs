//! The settings of `shoal serve`, under one name each: `--cache-size` as a flag, `SHOAL_CACHE_SIZE`
//! as a variable, `cache-size` in the file. Their defaults and what they mean together are
//! [`super::config`]'s; the defaults stand here too, for `--help`, and a test compares them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::units::{ByteSize, Span, Window, core_count, listen_addr};

/// How cached pages are read and written on the local disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheIo {
    /// io_uring if the system allows it, else plain
    Auto,
    /// io_uring, or a refusal to start
    IoUring,
    /// A few threads that read and write
    Plain,
}

/// The settings of `shoal serve`: once as flags and variables, once as the keys of `shoal.toml`.
/// `None` is "not said here".
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Where the databases live: s3://bucket/prefix or file:///directory (required)
    #[arg(long, value_name = "URL", env = "SHOAL_STORE", help_heading = "Storage")]
    pub store: Option<String>,

    /// A local directory for what was read from the bucket, and for temporary files; it may be lost, and
    /// belongs to one process at a time [default: ./shoal-cache]
    #[arg(long, value_name = "DIR", env = "SHOAL_CACHE_DIR", help_heading = "Storage")]
    pub cache_dir: Option<PathBuf>,

    /// The most that the cache directory takes, but for files of imports until they are stored: a half for
    /// pages that were read from the bucket, a half for temporary files (sorts, large intermediate results,
    /// VACUUM), of which any one database may take a half. Below 4MiB no pages are kept [default: 1GiB]
    #[arg(long, value_name = "SIZE", env = "SHOAL_CACHE_SIZE", help_heading = "Storage")]
    pub cache_size: Option<ByteSize>,

    /// How cached pages are read and written on the local disk [default: auto]
    #[arg(long, value_name = "WAY", env = "SHOAL_DISK_IO", help_heading = "Storage")]
    pub disk_io: Option<CacheIo>,

    /// The memory for all databases together: pages, what is not folded yet, what SQLite takes, transactions on their
    /// way. The process takes up to 128MiB more [default: 256MiB]
    #[arg(long, value_name = "SIZE", env = "SHOAL_MEMORY", help_heading = "Storage")]
    pub memory: Option<ByteSize>,

    /// How long a commit may wait for others to share its PUT, which buys fewer PUTs with latency:
    /// 0, 5ms, 10ms, 25ms, 50ms, 100ms or 500ms [default: 0]
    #[arg(long, value_name = "WINDOW", env = "SHOAL_WINDOW", help_heading = "Storage")]
    pub window: Option<Window>,

    /// How long after this node falls silent another may take over its databases [default: 10s]
    #[arg(long, value_name = "DURATION", env = "SHOAL_LEASE", help_heading = "Storage")]
    pub lease: Option<Span>,

    /// How often one node of those that share a bucket walks through all of it and deletes what was
    /// left behind; 0s is never [default: 24h]
    #[arg(long, value_name = "DURATION", env = "SHOAL_SWEEP_INTERVAL", help_heading = "Storage")]
    pub sweep_interval: Option<Span>,

    /// How long a new database keeps its history: any commit in it can be shown, restored and forked. 0 keeps none;
    /// `shoal db retention` changes it for one database [default: 1d]
    #[arg(long, value_name = "DURATION", env = "SHOAL_RETENTION", help_heading = "Storage")]
    pub retention: Option<Span>,

    /// Threads that run SQL, at most 256 [default: one per core]
    #[arg(long, value_name = "COUNT", env = "SHOAL_CORES", help_heading = "Storage")]
    #[arg(value_parser = core_count)]
    pub cores: Option<usize>,

    /// Where applications connect [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", env = "SHOAL_HTTP_LISTEN_ADDR", help_heading = "Listening")]
    #[arg(value_parser = listen_addr)]
    pub http_listen_addr: Option<SocketAddr>,

    /// Where `shoal db` and other administration connects [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR", env = "SHOAL_ADMIN_LISTEN_ADDR", help_heading = "Listening")]
    #[arg(value_parser = listen_addr)]
    pub admin_listen_addr: Option<SocketAddr>,

    /// Where other nodes reach this one, if not at the address of --http-listen-addr (http://host:port). Without one
    /// they read its log in the bucket [default: the address of --http-listen-addr, unless it is 0.0.0.0 or ::]
    #[arg(long, value_name = "URL", env = "SHOAL_ADVERTISE_URL", help_heading = "Listening")]
    pub advertise_url: Option<String>,

    /// Answer requests that only read also for databases that other nodes own, from a replica that follows the owner,
    /// about half a second behind. Answers say how old they may be (shoal-staleness-ms)
    #[arg(long, value_name = "BOOL", env = "SHOAL_READ_REPLICAS", help_heading = "Listening")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(hide_possible_values = true)]
    pub read_replicas: Option<bool>,

    /// A `shoal pageserver` that makes the packs of folds for this node (http://host:port). What it does not do,
    /// the node does itself [default: none]
    #[arg(long, value_name = "URL", env = "SHOAL_PAGE_SERVER", help_heading = "Storage")]
    pub page_server: Option<String>,

    /// Listen beyond this machine although there is no authentication
    #[arg(long, env = "SHOAL_NO_AUTH", value_name = "BOOL", help_heading = "Listening")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(hide_possible_values = true)]
    pub no_auth: Option<bool>,

    /// The database that a URL without a name means [default: none, such a URL is a 404]
    #[arg(long, value_name = "NAME", env = "SHOAL_DEFAULT_DATABASE", help_heading = "Listening")]
    pub default_database: Option<String>,

    /// What to log: a level, or a filter such as `info,compute=debug` [default: info]
    #[arg(long, value_name = "FILTER", env = "SHOAL_LOG", help_heading = "Listening")]
    pub log: Option<String>,

    /// The largest request; no more than two fifths of --memory [default: 64MiB]
    #[arg(long, value_name = "SIZE", env = "SHOAL_MAX_BODY_SIZE", help_heading = "Limits")]
    pub max_body_size: Option<ByteSize>,

    /// The largest answer that isn't streamed; cursors have no such limit [default: 10MB]
    #[arg(long, value_name = "SIZE", env = "SHOAL_MAX_RESPONSE_SIZE", help_heading = "Limits")]
    pub max_response_size: Option<ByteSize>,

    /// The most that one transaction may write, in whole pages, and at most 254MiB. More than a quarter of --memory may
    /// take more memory than that says [default: a quarter of --memory, at most 256MiB]
    #[arg(long, value_name = "SIZE", env = "SHOAL_MAX_TRANSACTION_SIZE", help_heading = "Limits")]
    pub max_transaction_size: Option<ByteSize>,

    /// How long one statement may run [default: 30s]
    #[arg(long, value_name = "DURATION", env = "SHOAL_STATEMENT_TIMEOUT", help_heading = "Limits")]
    pub statement_timeout: Option<Span>,

    /// After how long without a request an open transaction is rolled back [default: 5s]
    #[arg(long, value_name = "DURATION", env = "SHOAL_IDLE_TRANSACTION_TIMEOUT")]
    #[arg(help_heading = "Limits")]
    pub idle_transaction_timeout: Option<Span>,

    /// How long a reply waits for the store before it says that the outcome is unknown [default:
    /// 30s]
    #[arg(long, value_name = "DURATION", env = "SHOAL_COMMIT_TIMEOUT", help_heading = "Limits")]
    pub commit_timeout: Option<Span>,
}
