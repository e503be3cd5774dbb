//! Cuts text into statements, as it arrives, looking at each byte once.
//!
//! A statement ends at a `;` that is not inside a string, a quoted name or a comment, and not
//! inside the body of a trigger. The body ends at `; END ;`, which is SQLite's own rule
//! (`sqlite3_complete`): no `CASE … END` can be taken for it, since none follows a semicolon.
//!
//! ```text
//!            CREATE            TRIGGER         ;                  END             ;
//!   Start ──────────► Create ──────────► Body ───► AfterSemicolon ───► AfterEnd ───► complete
//!     │ any other word    │ any other      ▲  any other │   any other │
//!     ▼                   ▼                └────────────┴─────────────┘
//!   Plain ───── ; ────► complete          (TEMP and EXPLAIN may stand before)
//! ```

/// One statement of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// From its first word to its semicolon, without the comments before it.
    pub sql: String,
    /// The line of its first word, counted from 1.
    pub line: usize,
    /// Whether it may give a result of any length: a query, or a change with `RETURNING`.
    pub is_query: bool,
}

/// What the text so far leaves open, for the prompt of the next line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    Nothing,
    Statement,
    Quote(char),
    Comment,
}

/// Inside what the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lex {
    Between,
    Word {
        start: usize,
    },
    /// Ends with this byte. A doubled quote ends one string and begins the next, which comes to
    /// the same thing here.
    Quote(u8),
    LineComment,
    BlockComment {
        after_star: bool,
    },
    /// After a `-` or `/` that may begin a comment.
    MaybeComment(u8),
}

/// Where in the statement the next word is; see the drawing above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Start,
    Plain,
    Explain,
    Create,
    Body,
    AfterSemicolon,
    AfterEnd,
}

/// Text that goes in at one end and statements that come out at the other.
#[derive(Debug)]
pub struct Splitter {
    text: String,
    /// Everything before this has been given out.
    given: usize,
    /// Everything before this has been looked at.
    seen: usize,
    lex: Lex,
    shape: Shape,
    is_query: bool,
    /// Where the current statement's first word is, and on which line.
    begin: Option<(usize, usize)>,
    line: usize,
}

impl Default for Splitter {
    fn default() -> Splitter {
        Splitter {
            text: String::new(),
            given: 0,
            seen: 0,
            lex: Lex::Between,
            shape: Shape::Start,
            is_query: false,
            begin: None,
            line: 1,
        }
    }
}

impl Splitter {
    /// Adds text at the end; a piece may end anywhere.
    pub fn push(&mut self, text: &str) {
        // What was given out is cut off here and not at each statement, so that a line of a
        // million statements is not moved a million times.
        // Space and comments between statements go too.
        if self.begin.is_none() && !matches!(self.lex, Lex::MaybeComment(_)) {
            self.given = self.seen;
        }
        self.text.drain(..self.given);
        self.seen -= self.given;
        self.begin = self.begin.map(|(start, line)| (start - self.given, line));
        if let Lex::Word { start } = &mut self.lex {
            *start -= self.given;
        }
        self.given = 0;
        self.text.push_str(text);
    }

    /// The next complete statement.
    pub fn next_statement(&mut self) -> Option<Statement> {
        while let Some(&byte) = self.text.as_bytes().get(self.seen) {
            let at = self.seen;
            self.seen += 1;
            let complete = self.look_at(byte, at);
            if byte == b'\n' {
                self.line += 1;
            }
            if complete {
                return Some(self.give());
            }
        }
        None
    }

    /// What is left when no more text comes: a statement without its semicolon, if anything.
    pub fn finish(&mut self) -> Option<Statement> {
        self.seen = self.text.len();
        self.end_word(self.seen);
        if let Lex::MaybeComment(_) = self.lex {
            self.token(self.seen - 1);
        }
        let last = self.begin.is_some().then(|| self.give());
        self.clear();
        last
    }

    /// Forgets what has not been given out.
    pub fn clear(&mut self) {
        *self = Splitter { line: self.line, ..Splitter::default() };
    }

    /// Counts a line that the shell took for itself.
    pub fn skip_line(&mut self) {
        self.line += 1;
    }

    /// The line of the next byte that is added after complete lines.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The bytes that wait for the end of their statement.
    pub fn waiting_bytes(&self) -> usize {
        self.text.len() - self.given
    }

    pub fn open(&self) -> Open {
        match (self.lex, self.begin) {
            (Lex::Quote(end), _) => Open::Quote(char::from(end)),
            (Lex::BlockComment { .. }, _) => Open::Comment,
            (_, Some(_)) => Open::Statement,
            (_, None) => Open::Nothing,
        }
    }

    /// Moves on by one byte; whether it completes a statement.
    fn look_at(&mut self, byte: u8, at: usize) -> bool {
        match self.lex {
            Lex::Between => return self.begin_token(byte, at),
            Lex::Word { .. } if is_word_byte(byte) => {}
            Lex::Word { .. } => {
                self.end_word(at);
                return self.begin_token(byte, at);
            }
            Lex::Quote(end) if byte == end => self.lex = Lex::Between,
            Lex::LineComment if byte == b'\n' => self.lex = Lex::Between,
            Lex::BlockComment { after_star: true } if byte == b'/' => self.lex = Lex::Between,
            Lex::BlockComment { .. } => self.lex = Lex::BlockComment { after_star: byte == b'*' },
            Lex::Quote(_) | Lex::LineComment => {}
            Lex::MaybeComment(first) => return self.after_maybe_comment(first, byte, at),
        }
        false
    }

    fn after_maybe_comment(&mut self, first: u8, byte: u8, at: usize) -> bool {
        match (first, byte) {
            (b'-', b'-') => self.lex = Lex::LineComment,
            (b'/', b'*') => self.lex = Lex::BlockComment { after_star: false },
            _ => {
                // It was an operator.
                self.token(at - 1);
                self.advance("");
                return self.begin_token(byte, at);
            }
        }
        false
    }

    fn begin_token(&mut self, byte: u8, at: usize) -> bool {
        self.lex = match byte {
            b'-' | b'/' => Lex::MaybeComment(byte),
            b';' => {
                self.lex = Lex::Between;
                return self.semicolon();
            }
            byte if byte.is_ascii_whitespace() || byte == 0x0b => Lex::Between,
            byte if is_word_byte(byte) => {
                self.token(at);
                Lex::Word { start: at }
            }
            byte => {
                self.token(at);
                self.advance("");
                match byte {
                    b'\'' | b'"' | b'`' => Lex::Quote(byte),
                    b'[' => Lex::Quote(b']'),
                    _ => Lex::Between,
                }
            }
        };
        false
    }

    /// Notes that something that is no space and no comment begins here.
    fn token(&mut self, at: usize) {
        self.begin.get_or_insert((at, self.line));
    }

    fn end_word(&mut self, end: usize) {
        if let Lex::Word { start } = self.lex {
            let word = self.text[start..end].to_ascii_uppercase();
            let is_first = self.begin.is_some_and(|(first, _)| first == start);
            self.is_query |= match word.as_str() {
                "SELECT" | "WITH" | "VALUES" => is_first,
                "RETURNING" => true,
                _ => false,
            };
            self.advance(&word);
            self.lex = Lex::Between;
        }
    }

    /// Moves on by a word, or by any other token as the empty word.
    fn advance(&mut self, word: &str) {
        self.shape = match (self.shape, word) {
            (Shape::Start, "EXPLAIN") => Shape::Explain,
            (Shape::Start | Shape::Explain, "CREATE") => Shape::Create,
            (Shape::Explain, "QUERY" | "PLAN") => Shape::Explain,
            (Shape::Create, "TEMP" | "TEMPORARY") => Shape::Create,
            (Shape::Create, "TRIGGER") => Shape::Body,
            (Shape::AfterSemicolon, "END") => Shape::AfterEnd,
            (Shape::Body | Shape::AfterSemicolon | Shape::AfterEnd, _) => Shape::Body,
            _ => Shape::Plain,
        };
    }

    /// Whether this semicolon completes a statement. One without a statement before it is passed
    /// over.
    fn semicolon(&mut self) -> bool {
        match self.shape {
            Shape::Body | Shape::AfterSemicolon => {
                self.shape = Shape::AfterSemicolon;
                false
            }
            _ => self.begin.is_some(),
        }
    }

    fn give(&mut self) -> Statement {
        let (start, line) = self.begin.take().expect("BUG: a statement has a first word");
        let statement =
            Statement { sql: self.text[start..self.seen].to_owned(), line, is_query: self.is_query };
        self.given = self.seen;
        self.lex = Lex::Between;
        self.shape = Shape::Start;
        self.is_query = false;
        statement
    }
}

/// Bytes above ASCII are letters to SQLite.
fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn statements(text: &str) -> Vec<Statement> {
        let mut splitter = Splitter::default();
        splitter.push(text);
        let mut statements: Vec<_> = std::iter::from_fn(|| splitter.next_statement()).collect();
        statements.extend(splitter.finish());
        statements
    }

    fn sql(text: &str) -> Vec<String> {
        statements(text).into_iter().map(|statement| statement.sql).collect()
    }

    #[test]
    fn statements_end_at_semicolons() {
        assert_eq!(sql("SELECT 1; SELECT 2;"), ["SELECT 1;", "SELECT 2;"]);
        assert_eq!(sql("SELECT 1;\n\n  SELECT 2"), ["SELECT 1;", "SELECT 2"]);
        assert_eq!(sql(" ;; SELECT 1;;"), ["SELECT 1;"]);
        assert_eq!(sql(""), [""; 0]);
        assert_eq!(sql(" -- nothing\n/* here; */ ; "), [""; 0]);
    }

    #[test]
    fn semicolons_in_strings_names_and_comments_end_nothing() {
        for text in [
            "SELECT ';';",
            "SELECT 'it''s; here';",
            "SELECT \"a;\"\"b;\";",
            "SELECT [a;b];",
            "SELECT `a;``b`;",
            "SELECT 1 -- one; two\n + 1;",
            "SELECT 1 /* one; ** /; two */ + 1;",
            "SELECT 1 - -1 / 2;",
            "SELECT 'multi\nline;\n';",
            "SELECT 1 /***/;",
        ] {
            assert_eq!(sql(text), [text]);
        }
        assert_eq!(sql("SELECT 1-/*;*/1;SELECT 2/-- ;\n1;"), ["SELECT 1-/*;*/1;", "SELECT 2/-- ;\n1;"]);
    }

    #[test]
    fn the_body_of_a_trigger_ends_at_end() {
        for text in [
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN INSERT INTO b VALUES(1); DELETE FROM c; END;",
            "create temp trigger t after insert on a begin select case when 1 then 2 end; end;",
            "CREATE TEMPORARY TRIGGER IF NOT EXISTS t AFTER UPDATE ON a BEGIN SELECT 1; /* ; */ END ;",
            "EXPLAIN CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END;",
            "EXPLAIN QUERY PLAN CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END;",
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET x = CASE WHEN y THEN 1 END; SELECT 1; END;",
            "CREATE TRIGGER [end] AFTER INSERT ON a BEGIN SELECT 'x;'; \"end\"; END;",
        ] {
            let two = format!("{text} SELECT 1;");
            assert_eq!(sql(&two), [text, "SELECT 1;"]);
        }
    }

    #[test]
    fn only_a_trigger_has_a_body() {
        let text = "BEGIN; END; CREATE TABLE trigger_like(x); SELECT CASE 1 WHEN 1 THEN 2 END; COMMIT;";
        assert_eq!(
            sql(text),
            ["BEGIN;", "END;", "CREATE TABLE trigger_like(x);", "SELECT CASE 1 WHEN 1 THEN 2 END;", "COMMIT;"]
        );
        assert_eq!(sql("CREATE TABLE t(trigger);SELECT 1;").len(), 2);
    }

    #[test]
    fn lines_are_those_of_the_first_words() {
        let text = "-- head\n/* two\nlines */ SELECT\n1;\n\n'x\n'; SELECT 3";
        let lines: Vec<_> = statements(text).into_iter().map(|statement| statement.line).collect();
        assert_eq!(lines, [3, 6, 7]);
    }

    #[test]
    fn queries_are_told_from_changes() {
        for (text, is_query) in [
            ("SELECT 1;", true),
            ("with x as (select 1) select * from x;", true),
            ("VALUES(1);", true),
            ("INSERT INTO t SELECT 1;", false),
            ("INSERT INTO t VALUES(1);", false),
            ("INSERT INTO t VALUES(1) RETURNING a;", true),
            ("INSERT INTO t VALUES(' RETURNING ');", false),
            ("PRAGMA foreign_keys=OFF;", false),
            ("CREATE VIEW v AS SELECT 1;", false),
        ] {
            assert_eq!(statements(text)[0].is_query, is_query, "{text}");
        }
        assert!(!statements("SELECT 1; DELETE FROM t;")[1].is_query);
    }

    #[test]
    fn what_is_left_open_is_known() {
        for (text, open) in [
            ("", Open::Nothing),
            ("SELECT 1; -- done", Open::Nothing),
            ("SELECT", Open::Statement),
            ("SELECT 'a", Open::Quote('\'')),
            ("SELECT [a", Open::Quote(']')),
            ("/* a", Open::Comment),
            ("CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1;", Open::Statement),
        ] {
            let mut splitter = Splitter::default();
            splitter.push(text);
            while splitter.next_statement().is_some() {}
            assert_eq!(splitter.open(), open, "{text}");
        }
    }

    #[test]
    fn clearing_forgets_all_but_the_line() {
        let mut splitter = Splitter::default();
        splitter.push("SELECT 'a\n");
        assert_eq!(splitter.next_statement(), None);
        splitter.clear();
        splitter.push("SELECT 1;");
        let statement = splitter.next_statement().expect("complete");
        assert_eq!((statement.sql.as_str(), statement.line), ("SELECT 1;", 2));
    }

    proptest! {
        /// However the text is cut into pieces, the same statements come out.
        #[test]
        fn pieces_make_no_difference(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "SELECT ", "CREATE ", "TRIGGER ", "TEMP ", "BEGIN ", "END", "RETURNING ", ";", "; ",
                    "'", "''", "\"", "[", "]", "`", "-", "--", "/", "/*", "*/", "\n", " ", "é", "x",
                ]),
                0..60,
            ),
            cuts in prop::collection::vec(1_usize..9, 1..20),
        ) {
            let text: String = words.concat();
            let mut splitter = Splitter::default();
            let mut found = Vec::new();
            let mut rest: Vec<char> = text.chars().collect();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let piece: String = rest.drain(..(*cut).min(rest.len())).collect();
                splitter.push(&piece);
                found.extend(std::iter::from_fn(|| splitter.next_statement()));
            }
            found.extend(splitter.finish());
            prop_assert_eq!(found, statements(&text));
        }
    }
}
