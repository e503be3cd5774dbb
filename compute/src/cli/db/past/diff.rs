//! Two databases, or two moments of one, compared by SQL through their ordinary URLs.
//!
//! Of each side the schema is read, and the rows of its tables are counted, in one transaction: what is compared is one
//! state, also of a database that is being written to. Contents are not compared: two tables with as many rows count
//! as the same.

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
    /// By table; `None` if its rows cannot be counted here.
    rows: BTreeMap<String, Option<i64>>,
}

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
                    Step::Failed(_) => None,
                    Step::Done(rows) => match rows.rows.first().map(Vec::as_slice) {
                        Some([Cell::Integer(count)]) => Some(*count),
                        _ => None,
                    },
                };
                self.rows.insert(name.clone(), count);
                answered += 1;
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
pub fn report(out: &mut impl Write, output: Output, from: &Side, to: &Side) -> anyhow::Result<()> {
    let schema = changes(&from.schema, &to.schema);
    let rows = changes(&from.rows, &to.rows);
    match output {
        Output::Json => writeln!(out, "{}", as_json(&schema, &rows))?,
        Output::Text => as_text(out, &schema, &rows)?,
    }
    Ok(())
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

type SchemaChanges<'a> = [Changed<'a, Part, String>];
type RowChanges<'a> = [Changed<'a, String, Option<i64>>];

fn as_json(schema: &SchemaChanges<'_>, rows: &RowChanges<'_>) -> Value {
    let schema_json = schema.iter().map(|it| {
        let (kind, name) = it.key;
        json!({"change": it.change.word(), "type": kind, "name": name, "from": it.from, "to": it.to})
    });
    let rows_json = rows.iter().map(|it| json!({"table": it.key, "from": it.from.copied().flatten(), "to": it.to.copied().flatten()}));
    let same = schema.is_empty() && rows.is_empty();
    json!({"same": same, "schema": schema_json.collect::<Value>(), "rows": rows_json.collect::<Value>()})
}

fn as_text(out: &mut impl Write, schema: &SchemaChanges<'_>, rows: &RowChanges<'_>) -> io::Result<()> {
    if schema.is_empty() && rows.is_empty() {
        return writeln!(out, "no difference in schema or row counts");
    }
    for Changed { key: (kind, name), change, .. } in schema {
        writeln!(out, "{} {kind} {name}", change.sign())?;
    }
    for Changed { key, from, to, .. } in rows {
        let [from, to] = [from, to].map(|side| side.copied().flatten());
        let shown = |count: Option<i64>| count.map_or_else(|| "none".to_owned(), |count| count.to_string());
        let by = from.zip(to).map_or_else(String::new, |(from, to)| format!(" ({:+})", to - from));
        writeln!(out, "  {key}: {} -> {} rows{by}", shown(from), shown(to))?;
    }
    Ok(())
}
