//! `shoal db`: databases created, listed, handed over and deleted through a server's administration interface.
//!
//! | command | request | answer |
//! |---|---|---|
//! | `create` | `POST /v1/namespaces/<name>/create`, `{}` | 200 |
//! | `delete` | `DELETE /v1/namespaces/<name>` | 200, `{"name","database","bookmark":"…"\|null}` |
//! | `release` | `POST /v1/namespaces/<name>/release` | 200 |
//! | `export` | `GET /v1/namespaces/<name>/export` | 200, a SQLite file |
//! | `import`, `create --from` | `GET`, `POST`, `PUT /v1/namespaces/<name>/import`, `POST …/import/finish` | see [`transfer`] |
//! | `list` | `GET /v1/namespaces?prefix=&after=&limit=` | `{"namespaces":[{"name":"a"}],"next":"a"}`, `next` null on the last page |
//!
//! [`past`] has the commands that are about the past, and about forks.
//!
//! | file | idea |
//! |---|---|
//! | [`past`] | the commands that are about the past, and about forks |
//! | [`transfer`] | `export` and `import`: databases as files |
//! | [`confirm`] | a person is asked before something that is hard to take back |
//! | [`progress`] | how far something is, for whoever watches |

mod confirm;
mod past;
pub mod progress;
#[cfg(test)]
mod tests;
pub mod transfer;

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::json;

pub use self::confirm::NobodyToAsk;

use self::confirm::confirm;
use super::admin::{Admin, Deleted, Namespace};
use super::args::{DbArgs, DbCommand, Output};

/// Runs `shoal db …`.
pub fn run(args: DbArgs) -> anyhow::Result<ExitCode> {
    let admin = Admin::new(&args.admin_url)?;
    let mut out = io::stdout().lock();
    match args.command {
        DbCommand::Create { name, from: Some(file) } | DbCommand::Import { file, name } => {
            transfer::import(&admin, &mut out, args.output, &file, &name)?;
        }
        DbCommand::Export { database, file, force, auth_token } => {
            let target = transfer::Target { file: &file, force };
            transfer::export(&admin, &mut out, args.output, &database, auth_token, &target)?;
        }
        DbCommand::Create { name, from: None } => {
            admin.create(&name)?;
            report(&mut out, args.output, "created", &name)?;
        }
        DbCommand::Delete { name, yes } => {
            confirm(yes, &name, &format!("Everything in `{name}` will be deleted"))?;
            let Deleted { bookmark } = admin.delete(&name)?;
            deleted(&mut out, args.output, &name, bookmark.as_deref())?;
        }
        DbCommand::Release { name } => {
            admin.release(&name)?;
            report(&mut out, args.output, "released", &name)?;
        }
        DbCommand::Past(command) => past::run(&admin, &mut out, args.output, command)?,
        DbCommand::List { prefix } => list(&admin, &mut out, args.output, &prefix)?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn report(out: &mut impl Write, output: Output, done: &str, name: &str) -> io::Result<()> {
    match output {
        Output::Text => writeln!(out, "{done} {name}"),
        Output::Json => writeln!(out, "{}", json!({ done: name })),
    }
}

/// Tells also how to take it back.
fn deleted(out: &mut impl Write, output: Output, name: &str, bookmark: Option<&str>) -> io::Result<()> {
    if output == Output::Json {
        return writeln!(out, "{}", json!({ "deleted": name, "bookmark": bookmark }));
    }
    writeln!(out, "deleted {name}")?;
    match bookmark {
        Some(bookmark) => writeln!(
            out,
            "to take it back, within its retention: shoal db undelete {name}\n\
             or, if its name was used since: shoal db restore {name} --bookmark {bookmark} --to <new name>"
        ),
        None => writeln!(out, "it kept no history, so this cannot be taken back"),
    }
}

/// Prints names as their pages arrive; as JSON, all in one array.
fn list(admin: &Admin, out: &mut impl Write, output: Output, prefix: &str) -> anyhow::Result<()> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page = admin.page(prefix, &after)?;
        for Namespace { name } in page.namespaces {
            match output {
                Output::Text => writeln!(out, "{name}")?,
                Output::Json => all.push(json!({"name": name})),
            }
        }
        match page.next {
            // Names come in order, so a page that leads back would lead round for ever.
            Some(next) if next <= after => return Err(admin.not_admin("its pages go in circles").into()),
            Some(next) => after = next,
            None => break,
        }
    }
    if output == Output::Json {
        writeln!(out, "{}", json!({"namespaces": all}))?;
    }
    Ok(())
}
