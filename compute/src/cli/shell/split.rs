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
        let statement = Statement { sql: self.text[start..self.seen].to_owned(), line, is_query: self.is_query };
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
mod tests;
