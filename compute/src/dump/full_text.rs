//! Full-text tables in a dump.
//!
//! | its text is | what the dump has |
//! |---|---|
//! | its own | its rows, with their rowids |
//! | another table's | a `rebuild`, once everything else is there, if that finds the rows that the index has |
//! | the same, and it does not, or that cannot be told | its shadow tables |
//! | kept by nobody (`content=''`), or with locales | its shadow tables |
//!
//! *Shadow tables* are the ordinary tables in which the module keeps its index. `CREATE VIRTUAL TABLE` has made them, and
//! the dump replaces their rows; nothing may look at the table in between, for the module would keep in memory what it
//! saw. A connection in defensive mode refuses to write them, so such a dump is for `shoal db import` and for
//! connections that are not in that mode. The others read back anywhere.
//!
//! Settings (`INSERT INTO t(t, rank) VALUES('rank', …)` and the like) are made again as they were made. With FTS5's
//! shadow tables they come last, when the module first looks at the table. They count themselves in the record of the
//! index's structure, which is therefore written once more: a copy's dump is the same text.

use std::collections::BTreeMap;

use super::literal::identifier;
use super::schema::{TableKind, TableShape};
use super::virtual_table::{FullText, FullTextModule, Text};
use super::{Dump, Rows, Source, identifiers, push_values};

/// Where FTS5 keeps how an index is made up.
const FTS5_STRUCTURE: i64 = 10;
/// Where FTS4 keeps how often it merges by itself.
const FTS4_AUTOMERGE: i64 = 2;
/// What FTS5 keeps as settings and takes as such. The version of the format is none.
const FTS5_SETTINGS: &str = "'automerge','crisismerge','deletemerge','hashsize','insttoken','pgsz','rank',\
                             'secure-delete','usermerge'";

/// A full-text table that has just been created.
pub struct FullTextTable<'t> {
    pub name: &'t str,
    pub shape: &'t TableShape,
    pub declared: FullText,
}

impl<S: Source> Dump<'_, S> {
    pub fn print_full_text(
        &mut self,
        table: &FullTextTable<'_>,
        shapes: &BTreeMap<String, TableShape>,
    ) -> Result<(), S::Error> {
        let shadows: Vec<(String, &TableShape)> = shadows_of(table, shapes).collect();
        match &table.declared.text {
            Text::Own { language } => {
                self.print_settings(table, &shadows)?;
                let mut columns = vec!["rowid".into()];
                columns.extend(identifiers(&table.shape.columns));
                columns.extend(language.as_deref().map(identifier));
                self.print_rows(&Rows::named(&identifier(table.name), &columns).by("rowid"))
            }
            Text::Elsewhere { table: source, rowid } => {
                let docsize = shadows.iter().find(|(name, _)| name.ends_with("_docsize")).map(|(name, _)| name.as_str());
                if !docsize.is_some_and(|docsize| self.has_same_rows(docsize, table, source, rowid)) {
                    return self.print_shadows(table, &shadows);
                }
                self.print_settings(table, &shadows)?;
                self.rebuilds.push(identifier(table.name));
                Ok(())
            }
            Text::Nowhere => self.print_shadows(table, &shadows),
        }
    }

    /// Whether a rebuild finds the rows that were indexed. A table that is no more, or can't be read, has none of them.
    fn has_same_rows(&mut self, docsize: &str, table: &FullTextTable<'_>, source: &str, rowid: &str) -> bool {
        let id = if table.declared.module == FullTextModule::Fts5 { "id" } else { "docid" };
        let (docsize, source, rowid) = (identifier(docsize), identifier(source), identifier(rowid));
        let sql = format!(
            "SELECT 1 WHERE (SELECT count(*) FROM {docsize}) = (SELECT count(*) FROM {source}) \
             AND NOT EXISTS (SELECT 1 FROM {docsize} d WHERE d.{id} NOT IN (SELECT s.{rowid} FROM {source} s))"
        );
        let mut is_same = false;
        let asked = self.source.rows(&sql, &mut |_| {
            is_same = true;
            Ok(())
        });
        asked.is_ok() && is_same
    }

    fn print_shadows(&mut self, table: &FullTextTable<'_>, shadows: &[(String, &TableShape)]) -> Result<(), S::Error> {
        let name = table.name.replace(['\n', '\r'], " ");
        self.write(&format!("-- the index of {name}: not for connections in defensive mode\n"))?;
        for (name, shape) in shadows {
            let shadow = identifier(name);
            self.print_statement(&format!("DELETE FROM {shadow}"))?;
            self.print_rows(&Rows::of(&shadow, &identifiers(&shape.columns)).by(shape.rowid_alias()))?;
        }
        if table.declared.module != FullTextModule::Fts5 || !self.print_settings(table, shadows)? {
            return Ok(());
        }
        let data = identifier(&format!("{}_data", table.name));
        self.print_statement(&format!("DELETE FROM {data} WHERE id={FTS5_STRUCTURE}"))?;
        let structure = format!("{data} WHERE id={FTS5_STRUCTURE}");
        self.print_rows(&Rows { from: Some(&structure), ..Rows::of(&data, &identifiers(&["id", "block"].map(String::from))) })
    }

    /// Says whether there are any.
    fn print_settings(
        &mut self,
        table: &FullTextTable<'_>,
        shadows: &[(String, &TableShape)],
    ) -> Result<bool, S::Error> {
        let (suffix, sql) = match table.declared.module {
            FullTextModule::Fts5 => ("_config", format!("WHERE k IN ({FTS5_SETTINGS}) ORDER BY k")),
            FullTextModule::Fts4 => ("_stat", format!("WHERE id={FTS4_AUTOMERGE}")),
        };
        let Some((settings, _)) = shadows.iter().find(|(name, _)| name.ends_with(suffix)) else { return Ok(false) };
        let (name, settings) = (identifier(table.name), identifier(settings));
        let (columns, prefix) = match table.declared.module {
            FullTextModule::Fts5 => (vec!["k".into(), "v".into()], format!("INSERT INTO {name}({name},rank) VALUES(")),
            FullTextModule::Fts4 => (vec!["value".into()], format!("INSERT INTO {name}({name}) VALUES('automerge='||")),
        };
        let (encoding, mut lines) = (self.encoding, String::new());
        self.source.table_rows(&columns, &format!("{settings} {sql}"), encoding, &mut |row| {
            lines.push_str(&prefix);
            push_values(&mut lines, row, encoding);
            lines.push_str(");\n");
            Ok(())
        })?;
        self.write(&lines)?;
        Ok(!lines.is_empty())
    }
}

/// The tables that the module has made for it. One that was there before it, by a name that the module has no use for,
/// is not among them.
fn shadows_of<'s>(
    table: &'s FullTextTable<'_>,
    shapes: &'s BTreeMap<String, TableShape>,
) -> impl Iterator<Item = (String, &'s TableShape)> {
    let keeps_text = table.declared.keeps_text();
    let suffixes = table.declared.module.shadows().iter().filter(move |suffix| keeps_text || **suffix != "content");
    suffixes.filter_map(|suffix| {
        let name = format!("{}_{suffix}", table.name);
        let shape = shapes.get(&name)?;
        (shape.kind == TableKind::Shadow).then_some((name, shape))
    })
}
