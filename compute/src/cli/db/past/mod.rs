//! `shoal db fork`, `restore`, `history` and their like.
//!
//! | command | request | answer |
//! |---|---|---|
//! | `fork` | `POST /v1/namespaces/<name>/fork/<to>`, `{"timestamp"\|"lsn"\|"bookmark"?,"expires"?}` | `{"name","database","lsn"}` |
//! | `restore` | `POST …/restore`, the same, and `"to"?` | `{"name","database","lsn","undo"?}` |
//! | `undo` | `POST …/undo`, `{"bookmark"?}` | as `restore` |
//! | `reset` | `POST …/reset` | as `restore` |
//! | `history` | `GET …/history?before=&limit=` | `{"history":[{"bookmark","lsn","time","bytes"}],"next"}` |
//! | `tree` | `GET …/tree` | `{"tree":[{"name","database","state","lsn","parent","depth","this"}],"complete"}` |
//! | `undelete` | `POST …/undelete` | `{"name","database","lsn"}` |
//! | `retention` | `GET` or `POST …/retention`, `{"retention"?,"expires"?}` | `{"retention","expires"}` |
//!
//! | file | idea |
//! |---|---|
//! | [`show`] | answers as text |
//! | [`diff`] | two databases compared by SQL, through their ordinary URLs |

mod diff;
mod show;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::confirm::confirm;
use super::progress::while_waiting;
use crate::cli::admin::Admin;
use crate::cli::args::{AtArgs, Output, PastCommand};

#[derive(Debug, thiserror::Error)]
#[error("restore to when? Write --time 2026-11-21T20:15:00Z, --lsn 4711 or --bookmark …; `shoal db history` lists the commits")]
struct NoMoment;

/// What a request changed.
#[derive(Debug, Deserialize)]
struct Changed {
    name: String,
    lsn: u64,
    #[serde(default)]
    undo: Option<String>,
}

/// Runs one of the commands.
pub(super) fn run(admin: &Admin, out: &mut impl Write, output: Output, command: PastCommand) -> anyhow::Result<()> {
    let (name, body) = match command {
        PastCommand::Fork { name, to, at, expires } => {
            let mut body = moment(at);
            body.extend(expires.map(|expires| ("expires".to_owned(), json!(expires))));
            let fork = || admin.post(&name, &["fork", &to], &Value::Object(body));
            let answer = while_waiting(&format!("forking {name}"), fork)?;
            return changed(admin, out, output, &answer, |done| format!("forked {name} at LSN {} to {}", done.lsn, done.name));
        }
        PastCommand::History { name, limit, before } => {
            let before = before.map_or(String::new(), |lsn| format!("&before={lsn}"));
            let answer = admin.get(&name, &format!("history?limit={limit}{before}"))?;
            return printed(admin, out, output, &answer, show::history);
        }
        PastCommand::Tree { name } => return printed(admin, out, output, &admin.get(&name, "tree")?, show::tree),
        PastCommand::Retention { name, retention: None, expires: None } => {
            return printed(admin, out, output, &admin.get(&name, "retention")?, show::retention);
        }
        PastCommand::Retention { name, retention, expires } => {
            let answer = admin.post(&name, &["retention"], &settings(retention, expires))?;
            return printed(admin, out, output, &answer, show::retention);
        }
        PastCommand::Diff { from, to, url, auth_token } => {
            let [from, to] = [from, to].map(|side| diff::Side::read(&side, &url, auth_token.as_deref()));
            return diff::report(out, output, &from?, &to?);
        }
        PastCommand::Undelete { name } => (name, ("undelete", Map::new())),
        PastCommand::Undo { name, bookmark } => {
            let body = bookmark.map(|bookmark| ("bookmark".to_owned(), json!(bookmark)));
            (name, ("undo", body.into_iter().collect()))
        }
        PastCommand::Reset { name, yes } => {
            confirm(yes, &name, &format!("`{name}` will go back to what the database it was forked from has now"))?;
            (name, ("reset", Map::new()))
        }
        PastCommand::Restore { name, at, to, yes } => {
            let mut body = moment(at);
            if body.is_empty() {
                return Err(NoMoment.into());
            }
            match to {
                Some(to) => drop(body.insert("to".into(), json!(to))),
                None => confirm(yes, &name, &format!("`{name}` will go back to a former state, under the same name"))?,
            }
            (name, ("restore", body))
        }
    };
    let (what, body) = body;
    let answer = while_waiting(&format!("{what} of {name}"), || admin.post(&name, &[what], &Value::Object(body)))?;
    changed(admin, out, output, &answer, |done| format!("{} is at LSN {}", done.name, done.lsn))
}

fn moment(at: AtArgs) -> Map<String, Value> {
    let fields = [
        ("timestamp", at.time.map(Value::from)),
        ("lsn", at.lsn.map(Value::from)),
        ("bookmark", at.bookmark.map(Value::from)),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn settings(retention: Option<String>, expires: Option<String>) -> Value {
    let fields = [("retention", retention), ("expires", expires)];
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))).collect::<Map<_, _>>().into()
}

fn changed(
    admin: &Admin,
    out: &mut impl Write,
    output: Output,
    answer: &str,
    text: impl Fn(&Changed) -> String,
) -> anyhow::Result<()> {
    printed(admin, out, output, answer, |out, done: Changed| {
        writeln!(out, "{}", text(&done))?;
        match &done.undo {
            Some(bookmark) => writeln!(out, "to take it back: shoal db undo {} --bookmark {bookmark}", done.name),
            None => Ok(()),
        }
    })
}

/// Prints an answer: as it came, or as `text` shows it.
fn printed<T: for<'a> Deserialize<'a>>(
    admin: &Admin,
    out: &mut impl Write,
    output: Output,
    answer: &str,
    text: impl FnOnce(&mut dyn Write, T) -> io::Result<()>,
) -> anyhow::Result<()> {
    let parsed = serde_json::from_str(answer).map_err(|error| admin.not_admin(&error.to_string()))?;
    match output {
        Output::Json => writeln!(out, "{}", answer.trim_end())?,
        Output::Text => text(out, parsed)?,
    }
    Ok(())
}
