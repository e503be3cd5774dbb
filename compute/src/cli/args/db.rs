//! `shoal db`, but for what is about the past: [`super::past`].

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::past::PastCommand;

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
    /// Delete a database and all that is in it; the answer says how to take that back
    Delete {
        /// Its name
        name: String,
        /// Don't ask. Needed where stdin is no terminal
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}
