//! `shoal shell`.

use clap::{Args, ValueEnum};

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
