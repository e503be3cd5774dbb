//! What of a virtual table a dump can carry over, judged by its `CREATE VIRTUAL TABLE`.
//!
//! A virtual table keeps its content in *shadow tables*, which a careful server lets nobody write.
//! So a dump writes through the virtual table itself, wherever that can be done:
//!
//! | module | in the dump |
//! |---|---|
//! | `fts5`, `fts4`, `fts3` | see [`super::full_text`] |
//! | `rtree`, `rtree_i32` | its rows; their first column is the rowid |
//! | `geopoly` | its rows, with their rowids |
//! | `fts5vocab`, `fts4aux`, `fts3tokenize`, `dbstat` | nothing: they show what others hold |
//! | any other | nothing is known, and so there is no dump |

/// How a virtual table's content gets into a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Rows,
    RowsWithRowid,
    FullText(FullText),
    /// It has none of its own.
    Derived,
    /// It may have content, and nobody knows how to read it.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullText {
    pub module: FullTextModule,
    pub text: Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullTextModule {
    Fts5,
    /// And FTS3.
    Fts4,
}

/// Where the text is that a full-text table has indexed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    Own { language: Option<String> },
    Elsewhere { table: String, rowid: String },
    /// Or it can't be read in full.
    Nowhere,
}

impl FullText {
    /// Whether the module has a table for text.
    pub fn keeps_text(&self) -> bool {
        match self.module {
            // It may keep some columns of a table without content.
            FullTextModule::Fts5 => !matches!(self.text, Text::Elsewhere { .. }),
            FullTextModule::Fts4 => matches!(self.text, Text::Own { .. }),
        }
    }
}

impl FullTextModule {
    /// What the names of its shadow tables may end with.
    pub fn shadows(self) -> &'static [&'static str] {
        match self {
            Self::Fts5 => &["config", "content", "data", "docsize", "idx"],
            Self::Fts4 => &["content", "docsize", "segdir", "segments", "stat"],
        }
    }
}

/// Judges the `sql` that `sqlite_schema` has for a virtual table.
pub fn content(sql: &str) -> Content {
    let Some(Declaration { module, arguments }) = parse(sql) else { return Content::Unknown };
    match module.as_str() {
        "fts5" => {
            // It takes abbreviations, and asks for `content` before what has a longer name.
            let table = value(&arguments, |name| !name.is_empty() && "content".starts_with(name));
            let rowid = value(&arguments, |name| name.len() > 7 && "content_rowid".starts_with(name));
            // A row read through the table comes without its locale.
            let has_locales = value(&arguments, |name| !name.is_empty() && "locale".starts_with(name)).is_some();
            full_text(FullTextModule::Fts5, table.or(has_locales.then(String::new)), rowid, None)
        }
        "fts4" => {
            let [table, language] = ["content", "languageid"].map(|option| value(&arguments, |name| name == option));
            full_text(FullTextModule::Fts4, table, None, language)
        }
        "fts3" => full_text(FullTextModule::Fts4, None, None, None),
        "geopoly" => Content::RowsWithRowid,
        "rtree" | "rtree_i32" => Content::Rows,
        "fts5vocab" | "fts4aux" | "fts3tokenize" | "dbstat" => Content::Derived,
        _ => Content::Unknown,
    }
}

fn full_text(module: FullTextModule, table: Option<String>, rowid: Option<String>, language: Option<String>) -> Content {
    let text = match table {
        None => Text::Own { language },
        Some(table) if table.is_empty() => Text::Nowhere,
        Some(table) => Text::Elsewhere { table, rowid: rowid.unwrap_or_else(|| "rowid".into()) },
    };
    Content::FullText(FullText { module, text })
}

/// The value of the option whose name, in small letters, is the one that is meant; without its quotes.
fn value(arguments: &[&str], is_meant: impl Fn(&str) -> bool) -> Option<String> {
    arguments.iter().find_map(|argument| {
        let (name, value) = argument.split_once('=')?;
        is_meant(&name.trim().to_ascii_lowercase()).then(|| unquoted(value.trim()))
    })
}

fn unquoted(text: &str) -> String {
    for quote in ['\'', '"', '`'] {
        if let Some(inside) = text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote)) {
            return inside.replace(&format!("{quote}{quote}"), &quote.to_string());
        }
    }
    text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text).into()
}

struct Declaration<'a> {
    module: String,
    arguments: Vec<&'a str>,
}

/// `CREATE VIRTUAL TABLE … USING module(argument, …)`. SQLite has accepted this text, so that only
/// quotes have to be minded.
fn parse(sql: &str) -> Option<Declaration<'_>> {
    let (_, after) = split_at_word(sql, "USING")?;
    let after = after.trim_start();
    let Some((module, arguments)) = after.split_once('(') else {
        let module = after.trim_end_matches(';').trim();
        return Some(Declaration { module: unquoted(module).to_ascii_lowercase(), arguments: Vec::new() });
    };
    let (arguments, _) = arguments.rsplit_once(')')?;
    Some(Declaration { module: unquoted(module.trim()).to_ascii_lowercase(), arguments: split_arguments(arguments) })
}

/// Splits at the first bare occurrence of `word`.
fn split_at_word<'a>(sql: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii();
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in sql.char_indices() {
        let found = quote.is_none()
            && !is_word(before)
            && sql[at..].get(..word.len()).is_some_and(|here| here.eq_ignore_ascii_case(word))
            && !sql[at + word.len()..].starts_with(is_word);
        if found {
            return Some((&sql[..at], &sql[at + word.len()..]));
        }
        quote = next_quote(quote, c);
        before = c;
    }
    None
}

/// Splits at commas outside quotes and parentheses.
fn split_arguments(text: &str) -> Vec<&str> {
    let mut arguments = Vec::new();
    let (mut quote, mut depth, mut start) = (None, 0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' if quote.is_none() => depth += 1,
            ')' if quote.is_none() => depth -= 1,
            ',' if quote.is_none() && depth == 0 => {
                arguments.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        quote = next_quote(quote, c);
    }
    arguments.push(&text[start..]);
    arguments
}

/// The quote that is open after `c`. A doubled quote closes and opens, which comes to the same.
fn next_quote(open: Option<char>, c: char) -> Option<char> {
    match (open, c) {
        (Some(end), c) if c == end => None,
        (Some(end), _) => Some(end),
        (None, '\'' | '"' | '`') => Some(c),
        (None, '[') => Some(']'),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_table_is_recognised() {
        for (sql, expected) in [
            ("CREATE VIRTUAL TABLE t USING rtree(id, x0, x1, +name TEXT)", Content::Rows),
            ("CREATE VIRTUAL TABLE t USING rtree_i32(id, x0, x1)", Content::Rows),
            ("CREATE VIRTUAL TABLE t USING geopoly(name)", Content::RowsWithRowid),
            ("CREATE VIRTUAL TABLE t USING fts5vocab('fts', 'row')", Content::Derived),
            ("CREATE VIRTUAL TABLE t USING dbstat", Content::Derived),
            ("CREATE VIRTUAL TABLE t USING somebody_elses(a)", Content::Unknown),
            ("CREATE VIRTUAL TABLE t", Content::Unknown),
        ] {
            assert_eq!(content(sql), expected, "{sql}");
        }
    }

    #[test]
    fn it_is_known_where_the_text_of_each_full_text_table_is() {
        let own = || Text::Own { language: None };
        let elsewhere = |table: &str, rowid: &str| Text::Elsewhere { table: table.into(), rowid: rowid.into() };
        for (sql, expected) in [
            ("CREATE VIRTUAL TABLE t USING fts5(a, b)", own()),
            ("CREATE VIRTUAL TABLE t USING FTS5 (a, tokenize = 'porter unicode61')", own()),
            ("CREATE VIRTUAL TABLE \"using x\" USING \"fts5\"(a)", own()),
            ("CREATE VIRTUAL TABLE IF NOT EXISTS [t] USING fts4(a, tokenize=porter)", own()),
            ("CREATE VIRTUAL TABLE t USING fts4(a, languageid=\"l\")", Text::Own { language: Some("l".into()) }),
            ("CREATE VIRTUAL TABLE t USING fts5(a, content='posts', content_rowid='id')", elsewhere("posts", "id")),
            ("CREATE VIRTUAL TABLE t USING fts5(a, Content = \"po\"\"sts\")", elsewhere("po\"sts", "rowid")),
            ("CREATE VIRTUAL TABLE t USING fts5(a, cont=posts, content_r=id)", elsewhere("posts", "id")),
            ("CREATE VIRTUAL TABLE t USING fts4(a, content=posts)", elsewhere("posts", "rowid")),
            ("CREATE VIRTUAL TABLE t USING fts3(a, content=posts)", own()),
            ("CREATE VIRTUAL TABLE t USING fts5(a, content='')", Text::Nowhere),
            ("CREATE VIRTUAL TABLE t USING fts5(a, content='', contentless_delete=1)", Text::Nowhere),
            ("CREATE VIRTUAL TABLE t USING fts4(a, content=\"\")", Text::Nowhere),
            ("CREATE VIRTUAL TABLE t USING fts5(a, content=)", Text::Nowhere),
            ("CREATE VIRTUAL TABLE t USING fts5(a, locale=1)", Text::Nowhere),
            ("CREATE VIRTUAL TABLE t USING fts5(a, content_rowid=id)", own()),
            ("CREATE VIRTUAL TABLE t USING fts5(a, prefix='2,content=x')", own()),
            ("CREATE VIRTUAL TABLE t USING fts5(content)", own()),
        ] {
            let Content::FullText(FullText { text, .. }) = content(sql) else { panic!("{sql}") };
            assert_eq!(text, expected, "{sql}");
        }
    }
}
