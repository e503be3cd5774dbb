//! What there is to be dumped, as the database itself tells it.

use std::collections::BTreeMap;

use super::literal::string;
use super::virtual_table::{self, Content};
use super::{COLUMNS_MAX, Source};
use crate::hrana::value::ValueRef;

/// A row of `sqlite_schema`.
pub struct Object {
    pub kind: String,
    pub name: String,
    pub sql: String,
}

impl Object {
    /// By its text, as it may be of a module that this SQLite doesn't have.
    pub fn virtual_content(&self) -> Option<Content> {
        let second = self.sql.split_ascii_whitespace().nth(1)?;
        second.eq_ignore_ascii_case("VIRTUAL").then(|| virtual_table::content(&self.sql))
    }

    /// Whether a table of this name, which is a shadow table's, was made by this virtual table. It was not if the module
    /// has no use for it.
    pub fn makes(&self, table: &str) -> bool {
        let (owner, table) = (self.name.to_ascii_lowercase(), table.to_ascii_lowercase());
        let suffix = table.strip_prefix(&owner).and_then(|rest| rest.strip_prefix('_'));
        suffix.is_some_and(|suffix| match self.virtual_content() {
            Some(Content::FullText(declared)) => suffix != "content" || declared.keeps_text(),
            _ => true,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    Ordinary,
    Virtual,
    /// By its name, it is a virtual table's.
    Shadow,
}

/// What of a table is read and written.
pub struct TableShape {
    pub kind: TableKind,
    /// Those that can be written.
    pub columns: Vec<String>,
    /// Those that can't: generated ones, and a virtual table's hidden ones.
    pub others: Vec<String>,
    has_rowid: bool,
    /// One of the columns is the rowid.
    names_rowid: bool,
}

impl TableShape {
    /// A name by which the rowid can be asked for, if there is one, and no column has taken all three.
    pub fn rowid_alias(&self) -> Option<&'static str> {
        let names = self.columns.iter().chain(&self.others);
        let is_taken = |alias: &str| names.clone().any(|name| name.eq_ignore_ascii_case(alias));
        ["rowid", "_rowid_", "oid"].into_iter().find(|alias| self.has_rowid && !is_taken(alias))
    }

    /// The same, if nothing but it tells a row's rowid, and a row has room for it.
    pub fn implicit_rowid(&self) -> Option<&'static str> {
        if self.names_rowid || self.columns.len() >= COLUMNS_MAX { None } else { self.rowid_alias() }
    }
}

pub fn read_objects<S: Source>(source: &mut S, pattern: Option<&str>) -> Result<Vec<Object>, S::Error> {
    let like = pattern.map_or(String::new(), |pattern| format!(" AND tbl_name LIKE {}", string(pattern)));
    let sql = format!("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL{like} ORDER BY rowid");
    let mut objects = Vec::new();
    source.rows(&sql, &mut |row| {
        if let [kind, name, sql] = row
            && let (Some(kind), Some(name), Some(sql)) = (text_of(kind), text_of(name), text_of(sql))
        {
            objects.push(Object { kind, name, sql });
        }
        Ok(())
    })?;
    Ok(objects)
}

/// The shapes of all tables, by name.
pub fn read_shapes<S: Source>(source: &mut S) -> Result<BTreeMap<String, TableShape>, S::Error> {
    // CROSS JOIN keeps the order of the loops; a view that is broken would fail as a table. A primary key without an
    // index is the rowid.
    let sql = "SELECT t.name, t.type, t.wr, c.name, c.hidden, CASE WHEN c.pk > 0 THEN \
               NOT EXISTS (SELECT 1 FROM pragma_index_list(t.name) i WHERE i.origin='pk') ELSE 0 END \
               FROM pragma_table_list t CROSS JOIN pragma_table_xinfo(t.name) c \
               WHERE t.schema='main' AND t.type<>'view' ORDER BY t.name, c.cid";
    let mut shapes = BTreeMap::new();
    source.rows(sql, &mut |row| {
        let [name, kind, without_rowid, column, hidden, is_rowid] = row else { return Ok(()) };
        let (Some(name), Some(kind), Some(column)) = (text_of(name), text_of(kind), text_of(column)) else {
            return Ok(());
        };
        let shape = shapes.entry(name).or_insert_with(|| TableShape {
            kind: match kind.as_str() {
                "virtual" => TableKind::Virtual,
                "shadow" => TableKind::Shadow,
                _ => TableKind::Ordinary,
            },
            columns: Vec::new(),
            others: Vec::new(),
            has_rowid: *without_rowid == ValueRef::Integer(0),
            names_rowid: false,
        });
        shape.names_rowid |= *is_rowid == ValueRef::Integer(1);
        match hidden {
            ValueRef::Integer(0) => shape.columns.push(column),
            _ => shape.others.push(column),
        }
        Ok(())
    })?;
    Ok(shapes)
}

pub fn text_of(value: &ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    }
}
