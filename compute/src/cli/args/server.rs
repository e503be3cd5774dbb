//! The commands that are servers.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::cli::settings::Settings;
use crate::cli::units::{ByteSize, Span, listen_addr};

const DEV_EXAMPLES: &str = "\
Examples:
  shoal dev
  shoal dev --data-dir /tmp/try --http-listen-addr 127.0.0.1:9000

A database is created when it is first used; its URL is http://127.0.0.1:8080/db/<name>/
(with the slash at the end). The bare URL is the database `default`. Ready-made code for your
language is printed at the start. To begin anew, stop Shoal and delete the data directory.";

/// Start a server for development, with everything in one local directory
#[derive(Debug, Clone, Args)]
#[command(after_help = DEV_EXAMPLES)]
pub struct DevArgs {
    /// The directory that stands in for the bucket and holds the cache too
    #[arg(long, value_name = "DIR", default_value = "./shoal-data", env = "SHOAL_DATA_DIR")]
    pub data_dir: PathBuf,

    /// Where applications connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", env = "SHOAL_HTTP_LISTEN_ADDR")]
    #[arg(value_parser = listen_addr)]
    pub http_listen_addr: SocketAddr,

    /// Where `shoal db` connects
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081", env = "SHOAL_ADMIN_LISTEN_ADDR")]
    #[arg(value_parser = listen_addr)]
    pub admin_listen_addr: SocketAddr,

    /// Listen beyond this machine although there is no authentication
    #[arg(long, env = "SHOAL_NO_AUTH", value_name = "BOOL", value_parser = clap::value_parser!(bool))]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(default_value = "false", hide_default_value = true, hide_possible_values = true)]
    pub no_auth: bool,

    /// What to log: a level, or a filter such as `info,compute=debug`
    #[arg(long, value_name = "FILTER", default_value = "warn", env = "SHOAL_LOG")]
    pub log: String,
}

const SERVE_EXAMPLES: &str = "\
Examples:
  shoal serve --store s3://bucket/prefix --cache-dir /var/cache/shoal
  shoal serve --store 's3://bucket/prefix?endpoint=http://127.0.0.1:9000&region=us-east-1'
  shoal serve --store file:///srv/shoal --window 10ms
  shoal serve --config /etc/shoal.toml
  SHOAL_STORE=s3://bucket/prefix shoal serve

Each setting is looked up in this order: the flag, the SHOAL_* variable, the file of --config, the
default. The file's keys are the flags' names without the dashes in front:

  store = \"s3://bucket/prefix\"
  cache-dir = \"/var/cache/shoal\"
  cache-size = \"20GiB\"
  lease = \"10s\"

A key or SHOAL_* variable that doesn't exist is an error. Credentials for s3:// are the usual ones
(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL, profiles, instance roles).

Databases are created with `shoal db create <name>`; their URL is http://<ADDR>/db/<name>/
(with the slash at the end). SIGTERM flushes what is acknowledged, seals the log and ends.";

/// Start a server whose databases live in a bucket
#[derive(Debug, Clone, Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct ServeArgs {
    /// Read settings from this TOML file
    #[arg(long, value_name = "FILE", env = "SHOAL_CONFIG")]
    pub config: Option<PathBuf>,

    #[command(flatten)]
    pub settings: Settings,
}

const PAGESERVER_EXAMPLES: &str = "\
Examples:
  shoal pageserver --store s3://bucket/prefix
  shoal pageserver --store file:///srv/shoal --listen-addr 127.0.0.1:9000 --drain-interval 1m
  shoal pageserver --store s3://bucket/prefix --scrub-interval 30d

It drains the logs of nodes that are over and sweeps the bucket, which every `shoal serve` does too,
and answers the gRPC request shoal.pageserver.v1.PageServer/Pages for any database as of any commit
that is folded and within its retention. For each `shoal serve --page-server http://host:port` it
makes the packs of folds, which that node then links. With --scrub-interval it reads every database
at rest once in that time, which is a GET for each object and the memory of one pack, and logs damage
as errors: one page server of a fleet is enough for that. It owns no database and keeps nothing: run
none, one or several, and stop them at any time.";

/// Do the background work of a bucket, without serving SQL
#[derive(Debug, Clone, Args)]
#[command(after_help = PAGESERVER_EXAMPLES)]
pub struct PageserverArgs {
    /// Where the databases live: s3://bucket/prefix or file:///directory
    #[arg(long, value_name = "URL", env = "SHOAL_STORE")]
    pub store: String,

    /// Where it answers other nodes
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8082", env = "SHOAL_PAGESERVER_LISTEN_ADDR")]
    #[arg(value_parser = listen_addr)]
    pub listen_addr: SocketAddr,

    /// The memory for pages
    #[arg(long, value_name = "SIZE", default_value = "256MiB", env = "SHOAL_MEMORY")]
    pub memory: ByteSize,

    /// How often it looks for logs to drain; 0s is never
    #[arg(long, value_name = "DURATION", default_value = "5m", env = "SHOAL_DRAIN_INTERVAL")]
    pub drain_interval: Span,

    /// How often it walks through the whole bucket and deletes what was left behind, unless a node has done so; 0s is
    /// never
    #[arg(long, value_name = "DURATION", default_value = "24h", env = "SHOAL_SWEEP_INTERVAL")]
    pub sweep_interval: Span,

    /// In how long it reads every database at rest once, to find damage early, such as 30d; 0s is never
    #[arg(long, value_name = "DURATION", default_value = "0s", env = "SHOAL_SCRUB_INTERVAL")]
    pub scrub_interval: Span,

    /// Listen beyond this machine although there is no authentication
    #[arg(long, env = "SHOAL_NO_AUTH", value_name = "BOOL", value_parser = clap::value_parser!(bool))]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(default_value = "false", hide_default_value = true, hide_possible_values = true)]
    pub no_auth: bool,

    /// What to log: a level, or a filter such as `info,pageserver=debug`
    #[arg(long, value_name = "FILTER", default_value = "info", env = "SHOAL_LOG")]
    pub log: String,
}
