//! What of a virtual table a dump can carry over, judged by its `CREATE VIRTUAL TABLE`.
//!
//! A virtual table keeps its content in *shadow tables*, which a careful server lets nobody write.
//! So a dump writes through the virtual table itself:
//!
//! | module | in the dump |
//! |---|---|
//! | `fts5`, `fts4`, `fts3` with their own content | its rows, with their rowids |
//! | the same with `content=another_table` | a `rebuild`, once that table is filled |
//! | the same with `content=''` | nothing: the text was never kept |
//! | `rtree`, `rtree_i32` | its rows; their first column is the rowid |
//! | `geopoly` | its rows, with their rowids |
//! | `fts5vocab`, `fts4aux`, `dbstat` | nothing: they show what others hold |
//! | any other | nothing that is known |

/// How a virtual table's content gets into a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Rows,
    RowsWithRowid,
    Rebuild,
    /// It has none of its own.
    Derived,
    /// It has content, and there is no way to read it.
    Lost,
}

/// Judges the `sql` that `sqlite_schema` has for a virtual table.
pub fn content(sql: &str) -> Content {
    let Some(Declaration { module, arguments }) = parse(sql) else { return Content::Lost };
    match module.as_str() {
        "fts5" | "fts4" | "fts3" => match full_text_content(&arguments) {
            None => Content::RowsWithRowid,
            Some("") => Content::Lost,
            Some(_) => Content::Rebuild,
        },
        "geopoly" => Content::RowsWithRowid,
        "rtree" | "rtree_i32" => Content::Rows,
        "fts5vocab" | "fts4aux" | "dbstat" => Content::Derived,
        _ => Content::Lost,
    }
}

/// The value of `content=`, without its quotes.
fn full_text_content<'a>(arguments: &[&'a str]) -> Option<&'a str> {
    arguments.iter().find_map(|argument| {
        let (name, value) = argument.split_once('=')?;
        name.trim().eq_ignore_ascii_case("content").then(|| unquoted(value.trim()))
    })
}

fn unquoted(text: &str) -> &str {
    let inside = |open: char, close: char| text.strip_prefix(open)?.strip_suffix(close);
    inside('\'', '\'')
        .or_else(|| inside('"', '"'))
        .or_else(|| inside('`', '`'))
        .or_else(|| inside('[', ']'))
        .unwrap_or(text)
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
            ("CREATE VIRTUAL TABLE t USING fts5(a, b)", Content::RowsWithRowid),
            ("CREATE VIRTUAL TABLE t using FTS5 (a, tokenize = 'porter unicode61')", Content::RowsWithRowid),
            ("CREATE VIRTUAL TABLE \"using x\" USING \"fts5\"(a)", Content::RowsWithRowid),
            ("CREATE VIRTUAL TABLE IF NOT EXISTS [t] USING fts4(a, tokenize=porter)", Content::RowsWithRowid),
            ("CREATE VIRTUAL TABLE t USING fts5(a, content='posts', content_rowid='id')", Content::Rebuild),
            ("CREATE VIRTUAL TABLE t USING fts5(a, Content = \"posts\")", Content::Rebuild),
            ("CREATE VIRTUAL TABLE t USING fts4(a, content=posts)", Content::Rebuild),
            ("CREATE VIRTUAL TABLE t USING fts5(a, content='')", Content::Lost),
            ("CREATE VIRTUAL TABLE t USING fts5(a, content=)", Content::Lost),
            ("CREATE VIRTUAL TABLE t USING fts5(a, content_rowid=id)", Content::RowsWithRowid),
            ("CREATE VIRTUAL TABLE t USING fts5(a, prefix='2,content=x')", Content::RowsWithRowid),
            ("CREATE VIRTUAL TABLE t USING fts5(content)", Content::RowsWithRowid),
            ("CREATE VIRTUAL TABLE t USING rtree(id, x0, x1, +name TEXT)", Content::Rows),
            ("CREATE VIRTUAL TABLE t USING rtree_i32(id, x0, x1)", Content::Rows),
            ("CREATE VIRTUAL TABLE t USING geopoly(name)", Content::RowsWithRowid),
            ("CREATE VIRTUAL TABLE t USING fts5vocab('fts', 'row')", Content::Derived),
            ("CREATE VIRTUAL TABLE t USING dbstat", Content::Derived),
            ("CREATE VIRTUAL TABLE t USING somebody_elses(a)", Content::Lost),
            ("CREATE VIRTUAL TABLE t", Content::Lost),
        ] {
            assert_eq!(content(sql), expected, "{sql}");
        }
    }
}
