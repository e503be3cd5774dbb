//! Rust source as tokens: enough of a lexer to tell code from comments, strings and tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// An identifier, a keyword or a number.
    Word(String),
    /// The inside of a string literal of any kind, escapes as written.
    Text(String),
    /// A character of its own; also for what a character literal or a lifetime comes to.
    Mark(char),
}

/// The tokens of a file without comments and without what is compiled for tests only.
pub fn product_tokens(text: &str) -> Vec<Token> {
    split(&tokens(text)).0
}

/// The source files below `root` that are compiled into the product.
pub fn product_files(root: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    gather(root, &mut all);
    let mut of_tests = BTreeSet::new();
    for file in &all {
        let text = std::fs::read_to_string(file).expect("a source file");
        of_tests.extend(split(&tokens(&text)).1.iter().map(|module| module.file_in(file)));
    }
    let is_of_tests = |file: &PathBuf| file.ancestors().any(|it| of_tests.contains(it) || of_tests.contains(&it.with_extension("rs")));
    all.retain(|file| !is_of_tests(file));
    all
}

fn gather(directory: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(directory).expect("a source directory").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            gather(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// A module in a file of its own that is declared for tests only.
struct TestModule {
    name: String,
    path: Option<String>,
}

impl TestModule {
    fn file_in(&self, parent: &Path) -> PathBuf {
        let directory = parent.parent().expect("a file is in a directory");
        let stem = parent.file_stem().expect("a file has a name");
        match &self.path {
            Some(path) => directory.join(path),
            None if stem == "mod" || stem == "lib" || stem == "main" => directory.join(&self.name).with_extension("rs"),
            None => directory.join(stem).join(&self.name).with_extension("rs"),
        }
    }
}

/// Separates the items behind `#[cfg(test)]` from the rest.
fn split(tokens: &[Token]) -> (Vec<Token>, Vec<TestModule>) {
    let cfg_test = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut product, mut modules) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        let begins = tokens[at..].len() >= cfg_test.len()
            && cfg_test.iter().zip(&tokens[at..]).all(|(text, token)| match token {
                Token::Word(word) => word == text,
                Token::Mark(mark) => text.chars().eq([*mark]),
                Token::Text(_) => false,
            });
        if !begins {
            product.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let item = &tokens[at + cfg_test.len()..];
        let length = item_length(item);
        modules.extend(module_of(&item[..length]));
        at += cfg_test.len() + length;
    }
    (product, modules)
}

/// An item ends with its first closing brace of the outermost level, or with a semicolon on that level.
fn item_length(tokens: &[Token]) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate() {
        match token {
            Token::Mark('{' | '(' | '[') => depth += 1,
            Token::Mark(mark @ ('}' | ')' | ']')) => {
                depth = depth.saturating_sub(1);
                if depth == 0 && *mark == '}' {
                    return index + 1;
                }
            }
            Token::Mark(';') if depth == 0 => return index + 1,
            _ => {}
        }
    }
    tokens.len()
}

fn module_of(item: &[Token]) -> Option<TestModule> {
    let [.., Token::Word(keyword), Token::Word(name), Token::Mark(';')] = item else { return None };
    let path = item.iter().position(|token| *token == Token::Word("path".into())).and_then(|at| match item.get(at + 2) {
        Some(Token::Text(path)) => Some(path.clone()),
        _ => None,
    });
    (keyword == "mod").then(|| TestModule { name: name.clone(), path })
}

fn tokens(text: &str) -> Vec<Token> {
    let mut rest = text;
    let mut tokens = Vec::new();
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            rest = after_comment(rest);
        } else if let Some((text, after)) = raw_string(rest) {
            tokens.push(Token::Text(text.to_owned()));
            rest = after;
        } else if first == '"' {
            let end = closing_quote(&rest[1..]);
            tokens.push(Token::Text(rest[1..=end].to_owned()));
            rest = rest.get(end + 2..).unwrap_or_default();
        } else if first == '\'' {
            tokens.push(Token::Mark('\''));
            rest = after_tick(rest);
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            // The `b` or `c` of a literal is no word of its own.
            if !(matches!(&rest[..end], "b" | "c") && rest[end..].starts_with(['"', '\''])) {
                tokens.push(Token::Word(rest[..end].to_owned()));
            }
            rest = &rest[end..];
        } else {
            if !first.is_whitespace() {
                tokens.push(Token::Mark(first));
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    tokens
}

/// Comments nest.
fn after_comment(text: &str) -> &str {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let here = &text.as_bytes()[at..];
        if here.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return &text[at..];
            }
        } else {
            at += 1;
        }
    }
    ""
}

/// `r"…"`, `r#"…"#`, and the same as bytes or C strings.
fn raw_string(text: &str) -> Option<(&str, &str)> {
    let body = ["r", "br", "cr"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let body = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let at = body.find(&end)?;
    Some((&body[..at], &body[at + end.len()..]))
}

/// Where the quote is that no backslash precedes.
fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at,
            _ => {}
        }
    }
    text.len()
}

/// Skips a character literal, or the tick and the name of a lifetime.
fn after_tick(text: &str) -> &str {
    let inside = &text[1..];
    if let Some(escaped) = inside.strip_prefix('\\') {
        let skipped = escaped.chars().next().map_or(0, char::len_utf8);
        return escaped[skipped..].find('\'').map_or("", |end| &escaped[skipped + end + 1..]);
    }
    let first = inside.chars().next().map_or(0, char::len_utf8);
    match inside[first..].strip_prefix('\'') {
        Some(after) => after,
        None => inside.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'),
    }
}
