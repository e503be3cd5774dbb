//! Two databases, or two moments of one, compared by SQL through their ordinary URLs.
//!
//! Of each side the schema is read, and the rows of its tables are counted, in one transaction: what is compared is one
//! state, also of a database that is being written to. Contents are not compared: two tables with as many rows count
//! as the same. A table whose rows cannot be counted on one side is neither the same nor different, and that is told.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use crate::cli::args::Output;
use crate::cli::client::{Client, ClientError};
use crate::cli::limits::GROUP_STATEMENTS_MAX;
use crate::cli::url::DatabaseUrl;
use crate::cli::wire::{Cell, Rows, Step};

const SCHEMA: &str = "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY 1, 2";

/// Type and name of a part of a schema.
type Part = (String, String);

/// One side of the comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// By type and name: the statement that made it.
    schema: BTreeMap<Part, String>,
    rows: BTreeMap<String, i64>,
    /// By table: why its rows could not be counted.
    not_counted: BTreeMap<String, String>,
}

/// Ends a comparison that is not whole, after all that is known was told.
#[derive(Debug, thiserror::Error)]
#[error("the rows of {0} could not be counted, so it is not known whether they differ")]
pub struct NotCounted(String);

impl Side {
    /// Reads one side. `place` is a URL, or a name (maybe with a moment) at the server of `base`.
    pub fn read(place: &str, base: &str, auth_token: Option<&str>) -> anyhow::Result<Side> {
        let url = match place.contains("://") {
            true => place.to_owned(),
            false => format!("{}/db/{place}/", base.trim_end_matches('/')),
        };
        let mut client = Client::new(&DatabaseUrl::parse(&url)?, auth_token.map(str::to_owned));
        let side = Side::read_from(&mut client);
        client.close();
        Ok(side?)
    }

    fn read_from(client: &mut Client) -> Result<Side, ClientError> {
        let mut side = Side::default();
        for step in client.batch(&["BEGIN", SCHEMA])? {
            for row in done(step)?.rows {
                if let [Cell::Text(kind), Cell::Text(name), sql] = row.as_slice() {
                    let sql = if let Cell::Text(sql) = sql { sql.clone() } else { String::new() };
                    side.schema.insert((kind.clone(), name.clone()), sql);
                }
            }
        }
        let tables: Vec<String> =
            side.schema.keys().filter(|(kind, _)| kind == "table").map(|(_, name)| name.clone()).collect();
        for tables in tables.chunks(GROUP_STATEMENTS_MAX) {
            side.count(client, tables)?;
        }
        Ok(side)
    }

    /// Counts the rows of `tables`. One that cannot be read keeps the others after it from being counted in the same
    /// round trip, so they are asked for again.
    fn count(&mut self, client: &mut Client, tables: &[String]) -> Result<(), ClientError> {
        let mut left = tables;
        while !left.is_empty() {
            let statements: Vec<String> = left.iter().map(|name| format!("SELECT count(*) FROM {}", quoted(name))).collect();
            let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
            let steps = client.batch(&statements)?;
            let mut answered = 0;
            for (name, step) in left.iter().zip(steps) {
                let count = match step {
                    Step::Skipped => break,
                    Step::Failed(error) => Err(error.to_string()),
                    Step::Done(rows) => match rows.rows.first().map(Vec::as_slice) {
                        Some([Cell::Integer(count)]) => Ok(*count),
                        _ => Err("the answer is no number".into()),
                    },
                };
                match count {
                    Ok(count) => self.rows.extend([(name.clone(), count)]),
                    Err(error) => self.not_counted.extend([(name.clone(), error)]),
                }
                answered += 1;
            }
            if answered == 0 {
                self.not_counted.insert(left[0].clone(), "there was no answer".into());
            }
            left = &left[answered.max(1)..];
        }
        Ok(())
    }
}

fn done(step: Step) -> Result<Rows, ClientError> {
    match step {
        Step::Done(rows) => Ok(rows),
        Step::Failed(error) => Err(error.into()),
        Step::Skipped => Ok(Rows::default()),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What became of something between the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Added,
    Dropped,
    Changed,
}

impl Change {
    fn of<T: PartialEq>(from: Option<&T>, to: Option<&T>) -> Option<Change> {
        match (from, to) {
            (None, None) => None,
            (None, Some(_)) => Some(Change::Added),
            (Some(_), None) => Some(Change::Dropped),
            (Some(from), Some(to)) => (from != to).then_some(Change::Changed),
        }
    }

    fn sign(self) -> char {
        match self {
            Change::Added => '+',
            Change::Dropped => '-',
            Change::Changed => '~',
        }
    }

    fn word(self) -> &'static str {
        match self {
            Change::Added => "added",
            Change::Dropped => "dropped",
            Change::Changed => "changed",
        }
    }
}

/// Prints what differs between two sides.
///
/// # Errors
/// If rows could not be counted: after everything else was printed.
pub fn report(out: &mut impl Write, output: Output, from: &Side, to: &Side) -> anyhow::Result<()> {
    let not_counted = not_counted(from, to);
    let mut rows = changes(&from.rows, &to.rows);
    rows.retain(|it| !not_counted.contains_key(it.key.as_str()));
    let found = Found { schema: changes(&from.schema, &to.schema), rows, not_counted };
    match output {
        Output::Json => writeln!(out, "{}", found.as_json())?,
        Output::Text => found.as_text(out)?,
    }
    match found.not_counted.is_empty() {
        true => Ok(()),
        false => Err(NotCounted(found.not_counted.keys().copied().collect::<Vec<_>>().join(", ")).into()),
    }
}

/// Tables of which no count is known, with the reasons of both sides.
fn not_counted<'a>(from: &'a Side, to: &'a Side) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (table, error) in from.not_counted.iter().chain(&to.not_counted) {
        let errors = all.entry(table).or_default();
        if !errors.contains(&error.as_str()) {
            errors.push(error);
        }
    }
    all
}

/// What is not the same, with both values.
struct Changed<'a, K, V> {
    key: &'a K,
    from: Option<&'a V>,
    to: Option<&'a V>,
    change: Change,
}

fn changes<'a, K: Ord, V: PartialEq>(from: &'a BTreeMap<K, V>, to: &'a BTreeMap<K, V>) -> Vec<Changed<'a, K, V>> {
    let keys = from.keys().chain(to.keys().filter(|key| !from.contains_key(*key)));
    let mut changes: Vec<_> = keys
        .filter_map(|key| {
            let (from, to) = (from.get(key), to.get(key));
            Change::of(from, to).map(|change| Changed { key, from, to, change })
        })
        .collect();
    changes.sort_by(|one, other| one.key.cmp(other.key));
    changes
}

/// All that is known of two sides.
struct Found<'a> {
    schema: Vec<Changed<'a, Part, String>>,
    rows: Vec<Changed<'a, String, i64>>,
    not_counted: BTreeMap<&'a str, Vec<&'a str>>,
}

impl Found<'_> {
    /// `None`: nobody knows.
    fn is_same(&self) -> Option<bool> {
        let is_same = self.schema.is_empty() && self.rows.is_empty();
        Some(is_same).filter(|is_same| !is_same || self.not_counted.is_empty())
    }

    fn as_json(&self) -> Value {
        let schema = self.schema.iter().map(|it| {
            let (kind, name) = it.key;
            json!({"change": it.change.word(), "type": kind, "name": name, "from": it.from, "to": it.to})
        });
        let rows = self.rows.iter().map(|it| json!({"table": it.key, "from": it.from, "to": it.to}));
        let not_counted = self.not_counted.iter().map(|(table, errors)| json!({"table": table, "error": errors.join("; ")}));
        json!({
            "same": self.is_same(),
            "schema": schema.collect::<Value>(),
            "rows": rows.collect::<Value>(),
            "not_counted": not_counted.collect::<Value>(),
        })
    }

    fn as_text(&self, out: &mut impl Write) -> io::Result<()> {
        if self.is_same() == Some(true) {
            return writeln!(out, "no difference in schema or row counts");
        }
        for Changed { key: (kind, name), change, .. } in &self.schema {
            writeln!(out, "{} {kind} {name}", change.sign())?;
        }
        for Changed { key, from, to, .. } in &self.rows {
            let shown = |count: &Option<&i64>| count.map_or_else(|| "none".to_owned(), i64::to_string);
            let by = from.zip(*to).map_or_else(String::new, |(from, to)| format!(" ({:+})", to - from));
            writeln!(out, "  {key}: {} -> {} rows{by}", shown(from), shown(to))?;
        }
        for (table, errors) in &self.not_counted {
            writeln!(out, "  {table}: not counted: {}", errors.join("; "))?;
        }
        Ok(())
    }
}
