//! What each crate of the product must not know, in their order.

use crate::source::Token;

pub struct CrateRules {
    pub name: &'static str,
    /// Beginnings of the names of packages.
    pub forbidden_dependencies: &'static [&'static str],
    /// Words that no identifier may contain, as `snake_case` and `CamelCase` divide it.
    forbidden_words: &'static [&'static str],
    /// Identifiers that contain such a word and mean something else.
    innocent_identifiers: &'static [&'static str],
    /// Modules of `walstore` that are none of its business.
    forbidden_modules: &'static [&'static str],
    /// Whether it may make object keys, rather than get them from a module called `keys`.
    builds_keys: bool,
}

const SERVER: [&str; 4] = ["axum", "hyper", "tower", "tonic"];

/// How the keys in the bucket begin.
const KEY_PREFIXES: [&str; 7] = ["w/", "t/", "n/", "inc/", "live/", "due/", "meta/"];

pub const CRATES: [CrateRules; 5] = [
    CrateRules {
        name: "walstore",
        forbidden_dependencies: &["rusqlite", "libsqlite3", SERVER[0], SERVER[1], SERVER[2], SERVER[3]],
        forbidden_words: &["page", "pages", "sqlite", "rusqlite", "axum", "hyper"],
        // Pages of a listing; and the roster of kinds of objects, which is the envelope's.
        innocent_identifiers: &["page", "pages", "list_page", "PageMap"],
        forbidden_modules: &[],
        builds_keys: true,
    },
    CrateRules {
        name: "segments",
        forbidden_dependencies: &["rusqlite", "libsqlite3", "aws", SERVER[0], SERVER[1], SERVER[2], SERVER[3]],
        forbidden_words: &["lease", "leases", "tenant", "namespace", "sqlite", "rusqlite", "http", "axum", "hyper"],
        innocent_identifiers: &[],
        forbidden_modules: &["lease", "life", "incarnation", "seal", "log", "register"],
        builds_keys: true,
    },
    CrateRules {
        name: "tenant",
        forbidden_dependencies: &[
            "rusqlite", "libsqlite3", "aws", "tokio", "http", SERVER[0], SERVER[1], SERVER[2], SERVER[3],
        ],
        forbidden_words: &["http", "axum", "hyper", "vfs", "sqlite", "rusqlite", "thread", "threads", "tokio"],
        innocent_identifiers: &[],
        forbidden_modules: &["log"],
        builds_keys: true,
    },
    CrateRules {
        name: "pageserver",
        forbidden_dependencies: &["rusqlite", "libsqlite3", "axum", "tower"],
        forbidden_words: &["sql", "sqlite", "rusqlite", "vfs"],
        innocent_identifiers: &[],
        forbidden_modules: &[],
        builds_keys: true,
    },
    CrateRules {
        name: "compute",
        forbidden_dependencies: &["aws"],
        forbidden_words: &[],
        innocent_identifiers: &[],
        forbidden_modules: &[],
        builds_keys: false,
    },
];

impl CrateRules {
    /// What is wrong with these tokens.
    pub fn check(&self, tokens: &[Token]) -> Vec<String> {
        let mut wrong = Vec::new();
        for (index, token) in tokens.iter().enumerate() {
            match token {
                Token::Word(word) => {
                    let is_innocent = self.innocent_identifiers.contains(&word.as_str());
                    let parts = if is_innocent { Vec::new() } else { words_of(word) };
                    let bad = parts.into_iter().find(|part| self.forbidden_words.contains(&part.as_str()));
                    wrong.extend(bad.map(|bad| format!("`{word}`: {} must not know `{bad}`", self.name)));
                    let module = word == "walstore" && self.names_forbidden_module(&tokens[index..]);
                    wrong.extend(module.then(|| format!("{} uses a module of walstore that it must not know", self.name)));
                    let makes_key = !self.builds_keys && word == "Key" && is_call_of_new(&tokens[index + 1..]);
                    wrong.extend(makes_key.then(|| format!("{} makes an object key", self.name)));
                }
                Token::Text(text) if !self.builds_keys && KEY_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) => {
                    wrong.push(format!("\"{text}\" begins as an object key does"));
                }
                Token::Text(_) | Token::Mark(_) => {}
            }
        }
        wrong
    }

    /// Whether the path that begins here, or one in the braces after `walstore::`, leads into such a module.
    fn names_forbidden_module(&self, tokens: &[Token]) -> bool {
        let is_bad = |token: &Token| matches!(token, Token::Word(word) if self.forbidden_modules.contains(&word.as_str()));
        match &tokens[1..] {
            [Token::Mark(':'), Token::Mark(':'), Token::Mark('{'), rest @ ..] => {
                let end = rest.iter().position(|token| *token == Token::Mark(';')).unwrap_or(rest.len());
                rest[..end].iter().any(is_bad)
            }
            [Token::Mark(':'), Token::Mark(':'), module, ..] => is_bad(module),
            _ => false,
        }
    }
}

fn is_call_of_new(tokens: &[Token]) -> bool {
    matches!(tokens, [Token::Mark(':'), Token::Mark(':'), Token::Word(new), ..] if new == "new")
}

/// `page_no`, `PageNo` and `PAGE_NO` are `page` and `no`.
fn words_of(identifier: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before_is_lower = false;
    for c in identifier.chars() {
        if c == '_' || (c.is_uppercase() && before_is_lower) {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().expect("never empty").extend(c.to_lowercase());
        }
        before_is_lower = c.is_lowercase() || c.is_ascii_digit();
    }
    words
}
