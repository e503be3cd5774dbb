//! The shell's own commands: a dot, a name, and words, of which quotes can hold several together.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::PathBuf;

use clap::ValueEnum;

use super::table::display_width;
use super::{Flow, Session, ShellError, dump, script};
use crate::cli::args::Mode;
use crate::cli::limits::{READ_DEPTH_MAX, SCRIPT_BUFFER_BYTES};
use crate::cli::wire::Cell;
use crate::dump::literal::string;

const HELP: &str = "\
.dump [TABLE]        Print the database, or the tables like TABLE, as SQL
.headers on|off      Print the columns' names, or don't
.help                Print this
.mode [MODE]         Print rows as table, list, csv, json or line
.quit                End the shell
.read FILE           Run the statements in FILE, up to its first error
.schema [PATTERN]    Print the CREATE statements, of what is like PATTERN
.tables [PATTERN]    List the tables and views, those like PATTERN
Patterns are SQL's: % is any text, _ is any character.
";

/// A terminal's usual width, for lists of names.
const LINE_WIDTH: usize = 80;

/// What belongs to SQLite itself or to a virtual table, and is shown only inside a dump.
const NOT_INTERNAL: &str = r"name NOT LIKE 'sqlite\_%' ESCAPE '\'";

/// Runs one command, with or without arguments.
pub fn run(session: &mut Session<'_>, line: &str) -> Result<Flow, ShellError> {
    let words = split_words(line)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [".quit" | ".exit"] => return Ok(Flow::Quit),
        [".help"] => session.out.write_all(HELP.as_bytes()).map_err(ShellError::Output)?,
        [".tables"] => tables(session, None)?,
        [".tables", pattern] => tables(session, Some(pattern))?,
        [".schema"] => schema(session, None)?,
        [".schema", pattern] => schema(session, Some(pattern))?,
        [".dump"] => dump(session, None)?,
        [".dump", pattern] => dump(session, Some(pattern))?,
        [".read", file] => return read(session, file.into()),
        [".mode"] => show_mode(session)?,
        [".mode", mode] => session.style.mode = parse_mode(mode)?,
        [".headers", "on"] => session.style.headers = Some(true),
        [".headers", "off"] => session.style.headers = Some(false),
        _ => return Err(unknown(&words)),
    }
    session.out.flush().map_err(ShellError::Output)?;
    Ok(Flow::Continue)
}

/// Says how the command is written, if there is one of that name.
fn unknown(words: &[&str]) -> ShellError {
    let name = words.first().copied().unwrap_or(".");
    let usage = HELP.lines().find(|line| line.split(' ').next() == Some(name));
    ShellError::Command(match usage {
        Some(usage) => format!("write {}", usage.split("  ").next().unwrap_or(usage)),
        None => format!("unknown command {name}: .help lists them all"),
    })
}

/// Splits at spaces. `'…'` and `"…"` hold what has spaces; there is no escape inside.
fn split_words(line: &str) -> Result<Vec<String>, ShellError> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '\'' | '"' => rest[1..]
                .split_once(first)
                .ok_or_else(|| ShellError::Command(format!("the quote {first} is left open")))?,
            _ => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Ok(words)
}

fn parse_mode(name: &str) -> Result<Mode, ShellError> {
    Mode::from_str(name, true)
        .map_err(|_| ShellError::Command(format!("unknown mode {name}: write table, list, csv, json or line")))
}

fn show_mode(session: &mut Session<'_>) -> Result<(), ShellError> {
    let mode = session.style.mode.to_possible_value().expect("BUG: every mode has a name");
    writeln!(session.out, "{}", mode.get_name()).map_err(ShellError::Output)
}

fn tables(session: &mut Session<'_>, pattern: Option<&str>) -> Result<(), ShellError> {
    let like = pattern.map_or(String::new(), |pattern| format!(" AND name LIKE {}", string(pattern)));
    let sql = format!(
        "SELECT name FROM pragma_table_list WHERE schema='main' AND type<>'shadow' AND {NOT_INTERNAL}{like} \
         ORDER BY name"
    );
    let names: Vec<String> = texts(session.query(&sql)?);
    print_in_columns(&mut session.out, &names).map_err(ShellError::Output)
}

fn schema(session: &mut Session<'_>, pattern: Option<&str>) -> Result<(), ShellError> {
    let like = pattern
        .map(string)
        .map_or(String::new(), |pattern| format!(" AND (name LIKE {pattern} OR tbl_name LIKE {pattern})"));
    let sql = format!(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND {NOT_INTERNAL} AND tbl_name NOT IN \
         (SELECT name FROM pragma_table_list WHERE schema='main' AND type='shadow'){like} ORDER BY rowid"
    );
    for statement in texts(session.query(&sql)?) {
        writeln!(session.out, "{statement};").map_err(ShellError::Output)?;
    }
    Ok(())
}

/// The first column of rows, where it is text.
fn texts(rows: Vec<Vec<Cell>>) -> Vec<String> {
    let first = |row: Vec<Cell>| row.into_iter().next();
    rows.into_iter()
        .filter_map(|row| match first(row) {
            Some(Cell::Text(text)) => Some(text),
            _ => None,
        })
        .collect()
}

/// Prints names in as many columns as fit, downwards first.
fn print_in_columns(out: &mut dyn Write, names: &[String]) -> io::Result<()> {
    let width = names.iter().map(|name| display_width(name)).max().unwrap_or(0) + 2;
    let columns = (LINE_WIDTH / width).max(1);
    let height = names.len().div_ceil(columns);
    for line in 0..height {
        let mut text = String::new();
        for name in names.iter().skip(line).step_by(height) {
            let padding = width - display_width(name);
            text.push_str(name);
            text.extend(std::iter::repeat_n(' ', padding));
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

fn dump(session: &mut Session<'_>, pattern: Option<&str>) -> Result<(), ShellError> {
    Ok(dump::dump(&mut session.client, &mut session.out, pattern)?)
}

fn read(session: &mut Session<'_>, path: PathBuf) -> Result<Flow, ShellError> {
    if session.read_depth >= READ_DEPTH_MAX {
        return Err(ShellError::TooDeep);
    }
    session.read_depth += 1;
    let outcome = File::open(&path).map_err(ShellError::NotRead).and_then(|file| {
        let reader = BufReader::with_capacity(SCRIPT_BUFFER_BYTES, file);
        script::run(session, reader)
    });
    session.read_depth -= 1;
    outcome.map_err(|cause| ShellError::File { path, cause: Box::new(cause) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_at_spaces_and_held_by_quotes() {
        let words = |line| split_words(line).map_err(|error| error.to_string());
        assert_eq!(words(".read  a.sql "), Ok(vec![".read".into(), "a.sql".into()]));
        assert_eq!(words(".read 'my file.sql'"), Ok(vec![".read".into(), "my file.sql".into()]));
        assert_eq!(words(".tables \"it's\""), Ok(vec![".tables".into(), "it's".into()]));
        assert_eq!(words(".tables ''"), Ok(vec![".tables".into(), String::new()]));
        assert!(words(".read 'a").expect_err("open").contains("left open"));
    }

    #[test]
    fn a_command_written_wrongly_is_answered_with_how_it_is_written() {
        let message = |words: &[&str]| unknown(words).to_string();
        assert_eq!(message(&[".headers", "maybe"]), "write .headers on|off");
        assert_eq!(message(&[".read"]), "write .read FILE");
        assert_eq!(message(&[".import"]), "unknown command .import: .help lists them all");
    }

    #[test]
    fn names_are_printed_in_columns_downwards() {
        let mut out = Vec::new();
        let names: Vec<String> = (1..=5).map(|n| format!("{}{n}", "x".repeat(24))).collect();
        print_in_columns(&mut out, &names).expect("memory");
        let text = String::from_utf8(out).expect("UTF-8");
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().count()).collect();
        assert_eq!(lines, [2, 2, 1]);
        assert!(text.starts_with(&format!("{}  {}\n", names[0], names[3])), "{text}");
    }
}
