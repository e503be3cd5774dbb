//! `shoal verify`.

use std::path::PathBuf;

use clap::Args;

use super::Output;

const VERIFY_EXAMPLES: &str = "\
Examples:
  shoal verify --store s3://bucket/prefix                  everything
  shoal verify --store file:///srv/shoal app blog          two databases, with the logs they need
  shoal verify --store s3://bucket/prefix --output json

It needs no server and may run beside any number of them. Every object is read once, of
orphans only the length, so it costs a GET each and the time to read the bucket. For SQLite's
integrity_check it puts one database at a time together in a temporary file, which needs as much
room as the largest database has uncompressed; --no-integrity-check does without. In memory it
holds the largest pack and the commits of the logs that it looks at.

Orphans are objects that nothing refers to: what an interrupted fold leaves, for example. They are
no damage, whatever they hold, and a running server sweeps them in time. --delete-dead deletes those
that nobody can come to need; the others may belong to something that is being written just now, or
to a database that has ended and goes as a whole.

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
