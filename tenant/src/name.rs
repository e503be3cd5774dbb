//! The name of a database, as clients write it in URLs.
//!
//! Grammar: `[a-z0-9][a-z0-9._-]{0,62}`, minus [reserved](is_reserved) words. It is decided once,
//! because a name ends up in object keys (`n/<name>`), in URLs, in file names of the directory
//! store and in logs: a name that passes here needs no escaping in any of them, can't climb out
//! of a directory, and differs from every other name without regard to case folding.
//!
//! Reserved words are those that mean something else as the first part of a URL's path. They are
//! forbidden in every form of URL, so that a database never becomes unreachable by one of them,
//! and so that a URL that lost its last part (`/db/v2/pipeline`) is recognised as such.

use std::fmt;

/// The longest name, in bytes (which are characters too: the grammar is ASCII).
pub const NAME_BYTES_MAX: usize = 63;

/// How much of a refused name an error repeats, so that a hostile one can't fill the log.
const ECHO_CHARS_MAX: usize = 40;

/// The grammar in words, for error messages and help texts.
pub const NAME_GRAMMAR: &str =
    "a database name has 1 to 63 characters of a-z, 0-9, '.', '_' and '-', and starts with a letter or digit";

/// First parts of paths that are, or may become, something other than a database. `v1`, `v2` and
/// their like are matched by [`is_version_word`].
const RESERVED: [&str; 17] = [
    "beta",
    "console",
    "db",
    "dev",
    "dump",
    "export",
    "favicon.ico",
    "health",
    "healthz",
    "info",
    "livez",
    "metrics",
    "pull-updates",
    "readyz",
    "robots.txt",
    "sync",
    "version",
];

/// A database name that obeys the grammar. There is no other way to get one than
/// [`Name::parse`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Checks `text` against the grammar and the reserved words.
    pub fn parse(text: &str) -> Result<Name, NameError> {
        let Some(first) = text.chars().next() else {
            return Err(NameError::Empty);
        };
        if let Some(character) = text.chars().find(|c| !is_name_character(*c)) {
            return Err(NameError::Character { name: echo(text), character });
        }
        // From here on `text` is ASCII, so bytes and characters count the same.
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong { name: echo(text), length: text.len() });
        }
        if !first.is_ascii_alphanumeric() {
            return Err(NameError::Start { name: echo(text) });
        }
        if is_reserved(text) {
            return Err(NameError::Reserved { name: text.to_owned() });
        }
        Ok(Name(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `word` can't be a database's name because it means something else in a URL.
pub fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word) || is_version_word(word)
}

/// `v1`, `v2`, `v3`, `v3-protobuf` and what later protocol versions will be called: `v` and a
/// number, with or without `-protobuf`. As the last part of a database's URL such a word is the
/// sign of a lost name, never a name.
pub fn is_version_word(word: &str) -> bool {
    let number = word.strip_suffix("-protobuf").unwrap_or(word).strip_prefix('v');
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn is_name_character(c: char) -> bool {
    matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-')
}

/// The beginning of a refused name, with control characters escaped.
fn echo(text: &str) -> String {
    let mut echo: String = text.chars().take(ECHO_CHARS_MAX).flat_map(char::escape_default).collect();
    if text.chars().nth(ECHO_CHARS_MAX).is_some() {
        echo.push('…');
    }
    echo
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Name, NameError> {
        Name::parse(text)
    }
}

/// Why a text is not a database name. Every message says what a name looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the database name is empty: {NAME_GRAMMAR}")]
    Empty,
    #[error("the database name `{name}` is too long ({length} characters): {NAME_GRAMMAR}")]
    TooLong { name: String, length: usize },
    #[error("the database name `{name}` contains {character:?}: {NAME_GRAMMAR}")]
    Character { name: String, character: char },
    #[error("the database name `{name}` starts with a punctuation mark: {NAME_GRAMMAR}")]
    Start { name: String },
    #[error("`{name}` is a reserved word and can't be a database name: it means something else in a URL")]
    Reserved { name: String },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_names_are_accepted_and_print_as_written() {
        let longest = "a".repeat(63);
        for text in ["a", "0", "db1", "default", "my-app.prod_2", "a.", "a..b", "v", "vx", "v2-", &longest] {
            let name = Name::parse(text).unwrap();
            assert_eq!(name.to_string(), text);
            assert_eq!(name.as_ref(), text);
            assert_eq!(text.parse::<Name>().unwrap(), name);
        }
    }

    #[test]
    fn every_way_of_breaking_the_grammar_has_its_error() {
        let long = "a".repeat(64);
        assert_eq!(Name::parse(""), Err(NameError::Empty));
        assert_eq!(Name::parse(&long), Err(NameError::TooLong { name: format!("{}…", "a".repeat(40)), length: 64 }));
        assert_eq!(Name::parse("-a"), Err(NameError::Start { name: "-a".into() }));
        assert_eq!(Name::parse(".."), Err(NameError::Start { name: "..".into() }));
        for (text, character) in
            [("../../etc", '/'), ("a%2Fb", '%'), ("A", 'A'), ("a b", ' '), ("a\0", '\0'), ("é", 'é'), ("a@b", '@')]
        {
            let error = Name::parse(text).unwrap_err();
            assert!(matches!(&error, NameError::Character { character: c, .. } if *c == character), "{error}");
            assert!(error.to_string().contains(NAME_GRAMMAR), "{error}");
        }
    }

    #[test]
    fn reserved_words_are_refused_whatever_the_form_of_the_url() {
        for word in RESERVED.into_iter().chain(["v1", "v2", "v3", "v3-protobuf", "v4", "v10", "v4-protobuf"]) {
            assert_eq!(Name::parse(word), Err(NameError::Reserved { name: word.into() }), "{word}");
        }
    }

    #[test]
    fn a_hostile_name_is_repeated_only_in_part_and_without_control_characters() {
        let hostile = "\u{1b}[31m".repeat(20_000);
        let message = Name::parse(&hostile).unwrap_err().to_string();
        assert!(message.len() < 600, "{} bytes", message.len());
        assert!(!message.contains('\u{1b}'));
    }

    #[test]
    fn names_sort_like_their_text() {
        let mut names: Vec<Name> = ["b", "a-1", "a", "a.1", "0"].iter().map(|n| Name::parse(n).unwrap()).collect();
        names.sort();
        let sorted: Vec<&str> = names.iter().map(Name::as_str).collect();
        assert_eq!(sorted, ["0", "a", "a-1", "a.1", "b"]);
    }

    proptest! {
        #[test]
        fn any_text_of_the_grammar_is_a_name_unless_reserved(text in "[a-z0-9][a-z0-9._-]{0,62}") {
            prop_assert_eq!(Name::parse(&text).is_ok(), !is_reserved(&text));
        }

        #[test]
        fn whatever_is_accepted_obeys_the_grammar(text in ".{0,70}") {
            if let Ok(name) = Name::parse(&text) {
                prop_assert_eq!(name.as_str(), &text);
                prop_assert!((1..=NAME_BYTES_MAX).contains(&text.len()));
                prop_assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b)));
                prop_assert!(text.as_bytes()[0].is_ascii_alphanumeric());
            }
        }
    }
}
