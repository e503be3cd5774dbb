//! The commands of `shoal db` that are about the past, and about forks.

use clap::{Args, Subcommand};

const FORK_EXAMPLES: &str = "\
Examples:
  shoal db fork app app-test                                 as it is now
  shoal db fork app app-test --expires 7d                    and gone by itself after a week
  shoal db fork app before --time 2026-11-21T20:15:00Z
  shoal db fork app before --lsn 4711

A fork takes the same few requests however large the database is, shares all of its content, and
costs what it changes from then on. Its own history begins where it was forked: states from before
are those of the database it was made of.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  shoal db restore app --time 2026-11-21T20:15:00Z           in place: same name, same URL
  shoal db restore app --lsn 4711 --to app-yesterday         beside it, under a new name

In place, the state of now is not lost: the answer holds the bookmark that undoes it, and
`shoal db undo app` does so. `shoal db history app` lists the commits to choose from, and
http://<server>/db/app@<time or LSN>/ shows a state before you restore it. A restore begins a new
history; a time from before it still means what the URL showed then, for the retention.";

const UNDELETE_HELP: &str = "\
Unless its name was used since: what was deleted last under a name is brought back. A former one is
by the bookmark that its deletion answered, while the name is in use:
  shoal db restore app --bookmark <bookmark> --to app-before";

const DIFF_EXAMPLES: &str = "\
Examples:
  shoal db diff app app-test                                 two databases
  shoal db diff app@2026-11-21T20:15:00Z app                 then and now
  shoal db diff app@4711 app@4712                            what one commit did
  shoal db diff http://a:8080/db/app/ http://b:8080/db/app/  two servers

It compares tables, indexes, views and triggers, and counts the rows of each table. If a table
cannot be counted, that is printed, and it ends with an error.";

/// Which state is meant. Without any of them, the present one.
#[derive(Debug, Clone, Default, Args)]
#[group(multiple = false)]
pub struct AtArgs {
    /// After the last commit at or before this time, as in 2026-11-21T20:15:00Z (UTC unless it says otherwise)
    #[arg(long, value_name = "TIME")]
    pub time: Option<String>,

    /// After the commit with this LSN
    #[arg(long, value_name = "LSN")]
    pub lsn: Option<u64>,

    /// After the commit of a bookmark, which may be one of a database that had the name before
    #[arg(long, value_name = "BOOKMARK")]
    pub bookmark: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum PastCommand {
    /// Make another database that begins with the content of one, now or as it was
    #[command(after_help = FORK_EXAMPLES)]
    Fork {
        /// The database
        name: String,
        /// The name of the new one
        to: String,
        #[command(flatten)]
        at: AtArgs,
        /// Delete the fork by itself after this long (7d, 12h), or at this time
        #[arg(long, value_name = "WHEN")]
        expires: Option<String>,
    },
    /// Bring a former state back, under the same name or a new one
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore {
        /// The database
        name: String,
        #[command(flatten)]
        at: AtArgs,
        /// Leave the database as it is, and restore into a new one of this name
        #[arg(long, value_name = "NAME")]
        to: Option<String>,
        /// Don't ask. Needed in place where stdin is no terminal
        #[arg(long)]
        yes: bool,
    },
    /// Take a restore back
    Undo {
        /// The database
        name: String,
        /// The bookmark that the restore answered [default: that of the last restore]
        #[arg(long, value_name = "BOOKMARK")]
        bookmark: Option<String>,
    },
    /// Bring a fork to the state that the database it was forked from has now
    Reset {
        /// The fork
        name: String,
        /// Don't ask. Needed where stdin is no terminal
        #[arg(long)]
        yes: bool,
    },
    /// List the commits that can be shown, restored and forked, the newest first
    History {
        /// The database
        name: String,
        /// How many
        #[arg(long, value_name = "COUNT", default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Only commits before this LSN
        #[arg(long, value_name = "LSN")]
        before: Option<u64>,
    },
    /// Compare schema and row counts of two databases, or of two moments of one
    #[command(after_help = DIFF_EXAMPLES)]
    Diff {
        /// A name, a name with a moment (app@4711), or the URL of a database
        from: String,
        /// The same, to compare with
        to: String,
        /// Where the server's databases are, for names
        #[arg(long, value_name = "URL", env = "SHOAL_URL", default_value = "http://127.0.0.1:8080")]
        url: String,
        /// The token to send, if the server asks for one
        #[arg(long, value_name = "TOKEN", env = "SHOAL_AUTH_TOKEN", hide_env_values = true)]
        auth_token: Option<String>,
    },
    /// Show what a database was forked from, and its forks
    Tree {
        /// Any database of the family
        name: String,
    },
    /// Bring a deleted database back, as long as it is within its retention
    #[command(after_help = UNDELETE_HELP)]
    Undelete {
        /// Its name
        name: String,
    },
    /// Show or set how long a database keeps its history
    Retention {
        /// The database
        name: String,
        /// How long: 7d, 12h, or 0 for no history
        retention: Option<String>,
        /// When the database is deleted by itself: after this long (7d), at this time, or `never`
        #[arg(long, value_name = "WHEN")]
        expires: Option<String>,
    },
}
