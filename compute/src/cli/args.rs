//! Every command, flag and environment variable of `shoal`, with the texts of `--help`.
//!
//! Flags carry their values already checked for form (a size is a size); what they mean together
//! is [`super::config`]'s. Each flag of a server has the environment variable `SHOAL_<FLAG>` and
//! the same name as a key of `shoal.toml`: [`Settings`] is one struct, filled once from the command
//! line and once from the file, so the two can't drift apart.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::past::args::PastCommand;
use super::settings::Settings;
use super::units::{ByteSize, Span};

const ABOUT: &str = "\
Shoal serves SQLite databases over libSQL's protocol and keeps them in object storage.

Every write that is acknowledged is in the bucket. The local disk is a cache that may be lost.";

const EXAMPLES: &str = "\
Examples:
  shoal dev                                        try it: everything in ./shoal-data
  shoal shell http://127.0.0.1:8080/db/app/        open a database in a terminal
  shoal serve --store s3://bucket/prefix           the production form
  shoal db list                                    ask the server what it holds

`shoal <command> --help` tells all about a command.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "shoal", version, about = "SQLite databases whose only home is a bucket")]
#[command(long_about = ABOUT, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one value for a whole process")]
pub enum Command {
    Dev(DevArgs),
    Serve(ServeArgs),
    Pageserver(PageserverArgs),
    #[command(flatten)]
    Client(ClientCommand),
}

/// The commands that are plain clients of a server, or need none: [`super::run`] runs them.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    Shell(ShellArgs),
    Db(DbArgs),
    Verify(VerifyArgs),
    /// Print the versions of Shoal and of the SQLite inside it
    Version,
}

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

It drains the logs of nodes that are over, which every `shoal serve` does too, and answers the gRPC
request shoal.pageserver.v1.PageServer/Pages for any database as of what is folded. For each
`shoal serve --page-server http://host:port` it makes the packs of folds, which that node then links.
It owns no database and keeps nothing: run none, one or several, and stop them at any time.";

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

    /// How often it looks for logs to drain
    #[arg(long, value_name = "DURATION", default_value = "5m", env = "SHOAL_DRAIN_INTERVAL")]
    pub drain_interval: Span,

    /// Listen beyond this machine although there is no authentication
    #[arg(long, env = "SHOAL_NO_AUTH", value_name = "BOOL", value_parser = clap::value_parser!(bool))]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(default_value = "false", hide_default_value = true, hide_possible_values = true)]
    pub no_auth: bool,

    /// What to log: a level, or a filter such as `info,pageserver=debug`
    #[arg(long, value_name = "FILTER", default_value = "info", env = "SHOAL_LOG")]
    pub log: String,
}

const SHELL_EXAMPLES: &str = "\
Examples:
  shoal shell http://127.0.0.1:8080/db/app/
  shoal shell http://127.0.0.1:8080/db/app/ 'SELECT count(*) FROM users'
  shoal shell http://127.0.0.1:8080/db/app/ < schema.sql
  shoal shell http://127.0.0.1:8080/db/app/ .dump > backup.sql
  shoal shell --mode json libsql://db.example.com/db/app/ 'SELECT * FROM users'

At a terminal, a statement ends with `;` and may take several lines; `.help` lists the shell's own
commands. A script stops at its first error, names the line and exits with 1; each of its
statements outside BEGIN…COMMIT is a commit of its own. libsql:// means https unless the URL ends in
?tls=0.";

/// Run SQL against a database, at a terminal or from a script
#[derive(Debug, Args)]
#[command(after_help = SHELL_EXAMPLES)]
pub struct ShellArgs {
    /// The database: http://…, https:// or libsql://…
    #[arg(value_name = "URL")]
    pub url: String,

    /// Statements to run instead of reading them from the terminal or from standard input
    #[arg(value_name = "SQL")]
    pub sql: Option<String>,

    /// The token to send, if the server asks for one
    #[arg(long, value_name = "TOKEN", env = "SHOAL_AUTH_TOKEN", hide_env_values = true)]
    pub auth_token: Option<String>,

    /// How rows are printed [default: table at a terminal, else list]
    #[arg(long, value_name = "MODE")]
    pub mode: Option<Mode>,

    /// Print the columns' names, also in the modes `list` and `csv`
    #[arg(long)]
    pub headers: bool,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Columns with a frame
    Table,
    /// Values with `|` between them, one row a line
    List,
    /// Comma-separated values
    Csv,
    /// An array of objects; blobs are base64
    Json,
    /// One value a line
    Line,
}

const DB_EXAMPLES: &str = "\
Examples:
  shoal db create app
  shoal db list --prefix customer-
  shoal db list --output json
  shoal db import backup.db app
  shoal db export app app.db
  shoal db delete app --yes
  shoal db history app
  shoal db restore app --time 2026-11-21T20:15:00Z
  shoal db fork app app-test --expires 7d
  shoal db --admin-url http://10.0.0.5:8081 list";

/// Create, list, fork, restore, import, export and delete the databases of a running server
#[derive(Debug, Args)]
#[command(after_help = DB_EXAMPLES)]
pub struct DbArgs {
    /// The server's administration address
    #[arg(long, global = true, value_name = "URL", env = "SHOAL_ADMIN_URL")]
    #[arg(default_value = "http://127.0.0.1:8081")]
    pub admin_url: String,

    /// How to print the answer
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub output: Output,

    #[command(subcommand)]
    pub command: DbCommand,
}

const IMPORT_HELP: &str = "\
Examples:
  shoal db import app.db app
  shoal db import dump.sql app
  shoal db create app --from app.db          the same

The file itself is not changed. It is converted to a copy in the directory for temporary files
(TMPDIR), checked, and sent in parts; the server checks it again before it becomes a database. After
an interruption the same command goes on where it stopped. Changes in a -wal or -journal file beside
it are taken along.";

const EXPORT_HELP: &str = "\
Examples:
  shoal db export app app.db
  shoal db export http://127.0.0.1:8080/db/app/ app.db

The file is written beside its place, checked by SQLite (integrity_check; above 1 GiB quick_check),
and then renamed. It is the database at one commit, whose LSN is printed.";

#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// Create a database: empty, or from a file
    Create {
        /// Its name: a-z, 0-9, `.`, `_` and `-`, at most 63 of them, a letter or digit first
        name: String,
        /// Begin with what is in this SQLite file or SQL dump, as `shoal db import` does
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
    /// Make a database out of a SQLite file or a SQL dump
    #[command(after_help = IMPORT_HELP)]
    Import {
        /// A SQLite file of any page size and journal mode, or SQL text as `.dump` writes it
        file: PathBuf,
        /// The new database's name
        name: String,
    },
    /// Write a database to a SQLite file, as it is at one commit, while others go on writing to it
    #[command(after_help = EXPORT_HELP)]
    Export {
        /// Its name, or its URL (http://…, https:// or libsql://…); with @<moment> behind, as it was then
        #[arg(value_name = "NAME|URL")]
        database: String,
        /// The file to write
        file: PathBuf,
        /// Replace the file if it is there
        #[arg(long)]
        force: bool,
        /// The token to send to a URL, if its server asks for one
        #[arg(long, value_name = "TOKEN", env = "SHOAL_AUTH_TOKEN", hide_env_values = true)]
        auth_token: Option<String>,
    },
    /// List the names of all databases
    List {
        /// Only names that begin with this
        #[arg(long, default_value = "")]
        prefix: String,
    },
    /// Make the node that serves a database fold it and give it up, so that another can take it at once
    Release {
        /// Its name
        name: String,
    },
    #[command(flatten)]
    Past(PastCommand),
    /// Delete a database and all that is in it
    Delete {
        /// Its name
        name: String,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  shoal verify --store s3://bucket/prefix                  everything
  shoal verify --store file:///srv/shoal app blog          two databases, with the logs they need
  shoal verify --store s3://bucket/prefix --output json

It needs no server and may run beside any number of them. Every object is read once, so it costs a
GET each and the time to read the bucket. For SQLite's integrity_check it puts one database at a
time together in a temporary file, which needs as much room as the largest database has
uncompressed; --no-integrity-check does without. In memory it holds the largest pack and the
commits of the logs that it looks at.

Orphans are objects that nothing refers to: what an interrupted fold leaves, for example. They are
no damage, and a running server sweeps them in time. --delete-dead deletes those that nobody can
come to need; the others may belong to something that is being written just now.

Exit status: 0 nothing is wrong, 1 damage was found, 2 the check could not be made.";

/// Check every object, reference and checksum of a bucket, and each database by SQLite's own check
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub struct VerifyArgs {
    /// The bucket: s3://bucket/prefix or file:///directory
    #[arg(long, value_name = "URL", env = "SHOAL_STORE")]
    pub store: String,

    /// Only these databases, with the logs that they need [default: everything]
    #[arg(value_name = "DB")]
    pub databases: Vec<String>,

    /// Don't put the databases together for SQLite's integrity_check
    #[arg(long)]
    pub no_integrity_check: bool,

    /// Delete orphans that are provably dead
    #[arg(long)]
    pub delete_dead: bool,

    /// Where the temporary file goes [default: the system's directory for such files]
    #[arg(long, value_name = "DIR")]
    pub temp_dir: Option<PathBuf>,

    /// How to print what was found
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
}

/// An address to listen on. Names are refused: what `localhost` means differs between machines.
pub(super) fn listen_addr(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080".into())
}

impl Cli {
    /// Reads the process's command line. Prints and ends the process on `--help` or an error.
    pub fn from_command_line() -> Cli {
        Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Reads a command line; says so when a refused value came from the environment, which the
    /// parser's own message doesn't.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
        let words: Vec<OsString> = words.into_iter().collect();
        Cli::try_parse_from(&words).map_err(|error| {
            let is_set = |variable: &str| std::env::var_os(variable).is_some();
            name_the_variable(error, &words, is_set)
        })
    }
}

fn name_the_variable(mut error: clap::Error, words: &[OsString], is_set: impl Fn(&str) -> bool) -> clap::Error {
    let Some(variable) = variable_behind(&error, words).filter(|variable| is_set(variable)) else {
        return error;
    };
    let tip = StyledStr::from(format!("the value comes from the environment variable {variable}"));
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    error
}

/// The variable that can have given the value of which `error` speaks, unless a flag did.
fn variable_behind(error: &clap::Error, words: &[OsString]) -> Option<String> {
    // The argument is named as in the usage line: `--lease <DURATION>`.
    let ContextValue::String(argument) = error.get(ContextKind::InvalidArg)? else { return None };
    let flag = argument.split([' ', '=', '[']).next()?;
    let name = flag.strip_prefix("--")?;
    let given_as_flag = words.iter().any(|word| {
        let word = word.to_string_lossy();
        word == flag || word.starts_with(&format!("{flag}="))
    });
    let variable = format!("SHOAL_{}", name.replace('-', "_").to_uppercase());
    (!given_as_flag).then_some(variable)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::settings::CacheIo;
    use super::super::units::{ByteSize, Span};
    use super::*;

    fn read(line: &str) -> Result<Command, clap::Error> {
        Cli::read(line.split_whitespace().map(OsString::from)).map(|cli| cli.command)
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn dev_needs_nothing() {
        let Command::Dev(dev) = read("shoal dev").expect("no flags") else { panic!("dev") };
        assert_eq!(dev.data_dir, PathBuf::from("./shoal-data"));
        assert_eq!(dev.http_listen_addr.to_string(), "127.0.0.1:8080");
        assert_eq!(dev.admin_listen_addr.to_string(), "127.0.0.1:8081");
        assert!(!dev.no_auth);
    }

    #[test]
    fn a_pageserver_needs_only_a_store() {
        let line = "shoal pageserver --store file:///s --drain-interval 1m";
        let Command::Pageserver(args) = read(line).expect("a store") else { panic!("pageserver") };
        assert_eq!(args.listen_addr.to_string(), "127.0.0.1:8082");
        assert_eq!(args.drain_interval.as_duration().as_secs(), 60);
        let wrong = read("shoal pageserver").map(|_| ());
        // Unless the environment names one.
        assert!(wrong.is_err() || std::env::var_os("SHOAL_STORE").is_some());
    }

    #[test]
    fn serve_reads_every_flag() {
        let line = "shoal serve --store file:///s --cache-dir /c --cache-size 2GiB --disk-io plain --memory 1GB \
            --lease 900ms --http-listen-addr [::1]:80 --admin-listen-addr 127.0.0.1:81 --no-auth \
            --default-database main --log debug --max-body-size 1MiB --max-response-size 2MB \
            --max-transaction-size 3MB --statement-timeout 1m --idle-transaction-timeout 2s \
            --commit-timeout 3s --window 25ms --cores 2 --config /etc/shoal.toml";
        let Command::Serve(serve) = read(line).expect("all flags") else { panic!("serve") };
        let settings = serve.settings;
        assert_eq!(serve.config, Some(PathBuf::from("/etc/shoal.toml")));
        assert_eq!(settings.store.as_deref(), Some("file:///s"));
        assert_eq!(settings.cache_size, Some(ByteSize::mib(2048)));
        assert_eq!(settings.disk_io, Some(CacheIo::Plain));
        assert_eq!(settings.lease, Some(Span::millis(900)));
        assert_eq!(settings.no_auth, Some(true));
        assert_eq!(settings.window.map(|window| window.to_string()), Some("25ms".into()));
        assert_eq!(settings.cores, Some(2));
    }

    #[test]
    fn a_flag_without_its_value_can_be_switched_off() {
        let Command::Serve(serve) = read("shoal serve --no-auth=false").expect("a bool") else { panic!("serve") };
        assert_eq!(serve.settings.no_auth, Some(false));
        // The word after it is not taken for its value.
        assert!(read("shoal serve --no-auth false").is_err());
    }

    #[test]
    fn a_bad_value_is_refused_with_what_to_write() {
        for (line, flag, remedy) in [
            ("shoal serve --lease 10", "--lease", "write 900ms, 10s"),
            ("shoal serve --window 7", "--window", "write 0, 5ms, 10ms"),
            ("shoal serve --cache-size big", "--cache-size", "256MiB"),
            ("shoal dev --http-listen-addr localhost:80", "--http-listen-addr", "127.0.0.1:8080"),
        ] {
            let message = read(line).expect_err(line).to_string();
            assert!(message.contains(flag) && message.contains(remedy), "{message}");
        }
    }

    #[test]
    fn a_bad_value_from_the_environment_names_its_variable() {
        let words = |line: &str| line.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        let refused = || Cli::try_parse_from(words("shoal serve --lease 10")).expect_err("no unit");
        let only_serve = words("shoal serve");
        let message = name_the_variable(refused(), &only_serve, |name| name == "SHOAL_LEASE").to_string();
        assert!(message.contains("comes from the environment variable SHOAL_LEASE"), "{message}");
        for with_flag in ["shoal serve --lease 10", "shoal serve --lease=10"] {
            let message = name_the_variable(refused(), &words(with_flag), |_| true).to_string();
            assert!(!message.contains("environment variable"), "{message}");
        }
        let message = name_the_variable(refused(), &only_serve, |_| false).to_string();
        assert!(!message.contains("environment variable"), "{message}");
    }

    #[test]
    fn flags_of_the_client_stand_before_or_after_the_subcommand() {
        let Command::Client(ClientCommand::Db(db)) =
            read("shoal db create app --admin-url http://h:1 --output json").expect("db create")
        else {
            panic!("db")
        };
        assert_eq!(db.admin_url, "http://h:1");
        assert_eq!(db.output, Output::Json);
        assert!(matches!(db.command, DbCommand::Create { name, from: None } if name == "app"));
        assert!(read("shoal db --output json list --prefix a").is_ok());
    }
}
