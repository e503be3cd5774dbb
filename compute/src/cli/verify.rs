//! `shoal verify`: tells what is wrong in a bucket ([`pageserver::verify`] looks), and has SQLite look at each
//! database as a whole.
//!
//! Findings go to standard output, progress to standard error. As text a line for each damage comes as soon as it is
//! found; as JSON one document comes at the end:
//!
//! ```json
//! {"store": "…", "is_sound": false, "databases": 2, "logs": 1, "packs": {"objects": 3, "bytes": 4096}, "commits": 5,
//!  "unsettled": 0, "damages": [{"key": "…", "what": "…", "database": "app"}], "notes": [{"key": "…", "what": "…"}],
//!  "orphans": {"dead": {"objects": 1, "bytes": 9}, "waiting": {…}, "deleted": {…},
//!              "list": [{"key": "…", "bytes": 9, "is_dead": true, "why": "…", "is_deleted": false}]}}
//! ```

mod assembled;
mod report;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use pageserver::verify::{self, Options, Summary};
use tenant::name::Name;
use walstore::life::Stores;
use walstore::seam::Seam;
use walstore::store::{self, Store, StoreUrl};

use self::assembled::Assembled;
use self::report::Report;
use super::args::VerifyArgs;
use super::is_broken_pipe;
use crate::cluster;

/// The check could not be made.
const EXIT_NOT_CHECKED: u8 = 2;
/// Damage was found.
const EXIT_DAMAGED: u8 = 1;

/// Runs `shoal verify …`.
pub fn run(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    match checked(&args) {
        Ok(summary) if summary.damages > 0 => Ok(ExitCode::from(EXIT_DAMAGED)),
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) if is_broken_pipe(&error) => Err(error),
        Err(error) => {
            eprintln!("shoal: {error:#}");
            Ok(ExitCode::from(EXIT_NOT_CHECKED))
        }
    }
}

fn checked(args: &VerifyArgs) -> anyhow::Result<Summary> {
    let url = StoreUrl::parse(&args.store)?;
    let names = args.databases.iter().map(|name| Name::parse(name)).collect::<Result<Vec<_>, _>>()?;
    let assembled = match args.no_integrity_check {
        true => None,
        false => Some(Assembled::in_directory(args.temp_dir.as_deref()).context("cannot make a temporary file")?),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let seam = Seam::production();
        let store = store::open_existing(&url).await.context("cannot open the store")?;
        is_a_bucket_of_shoal(&*store, &seam).await?;
        let options = Options { names, deletes_dead: args.delete_dead };
        let mut report = Report::new(args.output, assembled, seam.clone(), io::stderr().is_terminal());
        let summary = verify::verify(&Stores::one(store.clone()), &seam, &options, &mut report).await?;
        report.finish(&summary, &store.describe())?;
        io::stdout().flush()?;
        Ok(summary)
    })
}

/// A mistyped URL is no damage.
async fn is_a_bucket_of_shoal(store: &dyn Store, seam: &Seam) -> anyhow::Result<()> {
    cluster::refuse_other_format(store, seam).await?;
    let is_ours = verify::has_anything(store).await?;
    anyhow::ensure!(is_ours, "{} holds nothing of Shoal's", store.describe());
    Ok(())
}

#[cfg(test)]
mod tests;
