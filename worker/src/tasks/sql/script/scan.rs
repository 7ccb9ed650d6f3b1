//! A walk over a text of SQL, piece by piece.

use super::{Dialect, Placeholder};
use std::ops::Range;

/// What stands at a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The `;` that ends a statement.
    End,
    Place(Placeholder),
    /// Anything else that is neither blank nor a comment.
    Code,
}

/// What the last pieces of a statement were, as far as it says where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Semicolon,
    EndAfterSemicolon,
    Other,
}

pub(super) struct Scanner<'t> {
    text: &'t str,
    at: usize,
    dialect: Dialect,
    /// The first words of the statement, in capitals.
    words: Vec<String>,
    last: Last,
}

/// Words of a statement that say what it creates stand among its first ones.
const FIRST_WORDS: usize = 12;

impl<'t> Scanner<'t> {
    pub(super) fn new(text: &'t str, dialect: Dialect) -> Self {
        Self {
            text,
            at: 0,
            dialect,
            words: Vec::new(),
            last: Last::Other,
        }
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// The next piece, and where it stands.
    pub(super) fn next(&mut self) -> Option<(Piece, Range<usize>)> {
        loop {
            let start = self.at;
            let byte = self.byte(0)?;
            if byte.is_ascii_whitespace() {
                self.at += 1;
                continue;
            }
            if let Some(after) = self.comment() {
                self.at = after;
                continue;
            }
            let piece = self.piece(byte);
            if piece != Piece::End {
                match self.last {
                    Last::EndAfterSemicolon => self.last = Last::Other,
                    Last::Semicolon => {
                        let is_end = self.text[start..self.at].eq_ignore_ascii_case("END");
                        self.last = if is_end {
                            Last::EndAfterSemicolon
                        } else {
                            Last::Other
                        };
                    }
                    Last::Other => {}
                }
                if self.text.as_bytes()[start] == b';' {
                    self.last = Last::Semicolon;
                }
            }
            return Some((piece, start..self.at));
        }
    }

    fn piece(&mut self, byte: u8) -> Piece {
        match byte {
            b';' => {
                let ends = match self.dialect {
                    Dialect::Sqlite if self.creates(&["TRIGGER"]) => {
                        self.last == Last::EndAfterSemicolon
                    }
                    Dialect::MySql if self.creates(&ROUTINES) => {
                        self.text[self.at + 1..].trim().is_empty()
                    }
                    _ => true,
                };
                self.at += 1;
                if ends {
                    self.words.clear();
                    self.last = Last::Other;
                    return Piece::End;
                }
                Piece::Code
            }
            b'\'' => self.quoted(b'\'', self.escapes()),
            b'"' => self.quoted(b'"', self.dialect == Dialect::MySql),
            b'`' if self.dialect != Dialect::Postgres => self.quoted(b'`', false),
            b'[' if self.dialect == Dialect::Sqlite => {
                self.at += self
                    .rest()
                    .find(']')
                    .map_or_else(|| self.rest().len(), |end| end + 1);
                Piece::Code
            }
            b'$' if self.dialect == Dialect::Postgres => self.dollar(),
            b'?' if self.dialect != Dialect::Postgres => {
                self.at += 1;
                let digits = self.digits();
                Piece::Place(match digits.filter(|_| self.dialect == Dialect::Sqlite) {
                    Some(number) => Placeholder::Numbered(number),
                    None => Placeholder::Next,
                })
            }
            b':' => self.colon(),
            byte if is_word(byte) => self.word(),
            _ => {
                self.at += self.rest().chars().next().map_or(1, char::len_utf8);
                Piece::Code
            }
        }
    }

    /// Whether strings of this dialect have escapes by backslash: Postgres's only after `E`.
    fn escapes(&self) -> bool {
        match self.dialect {
            Dialect::MySql => true,
            Dialect::Sqlite => false,
            Dialect::Postgres => {
                let before = &self.text[..self.at];
                let own_word = |text: &str| !text.as_bytes().last().is_some_and(|b| is_word(*b));
                before.strip_suffix(['e', 'E']).is_some_and(own_word)
            }
        }
    }

    /// Where a comment that begins here ends.
    fn comment(&self) -> Option<usize> {
        let rest = self.rest();
        let line = || self.at + rest.find('\n').unwrap_or(rest.len());
        // MySQL takes two dashes for a comment only before a blank.
        let dashes = rest.starts_with("--")
            && (self.dialect != Dialect::MySql
                || self.byte(2).is_none_or(|byte| byte.is_ascii_whitespace()));
        if dashes || (rest.starts_with('#') && self.dialect == Dialect::MySql) {
            return Some(line());
        }
        // What stands in `/*! … */` is code for MySQL.
        let hint = self.dialect == Dialect::MySql && rest.starts_with("/*!");
        if !rest.starts_with("/*") || hint {
            return None;
        }
        let nests = self.dialect == Dialect::Postgres;
        let (mut depth, mut at) = (1, 2);
        while depth > 0 && at < rest.len() {
            let here = &rest.as_bytes()[at..];
            if here.starts_with(b"*/") {
                depth -= 1;
                at += 2;
            } else if nests && here.starts_with(b"/*") {
                depth += 1;
                at += 2;
            } else {
                at += 1;
            }
        }
        Some(self.at + at)
    }

    /// A string or a quoted name; its quote within is written twice.
    fn quoted(&mut self, quote: u8, escapes: bool) -> Piece {
        self.at += 1;
        while let Some(byte) = self.byte(0) {
            self.at += 1;
            if byte == b'\\' && escapes {
                self.at = (self.at + 1).min(self.text.len());
            } else if byte == quote {
                if self.byte(0) != Some(quote) {
                    break;
                }
                self.at += 1;
            }
        }
        while !self.text.is_char_boundary(self.at) {
            self.at += 1;
        }
        Piece::Code
    }

    /// `$1`, or a text between `$tag$` and `$tag$`.
    fn dollar(&mut self) -> Piece {
        let start = self.at;
        self.at += 1;
        if let Some(number) = self.digits() {
            return Piece::Place(Placeholder::Numbered(number));
        }
        while self.byte(0).is_some_and(is_word) {
            self.at += 1;
        }
        if self.byte(0) == Some(b'$') {
            self.at += 1;
            let tag = &self.text[start..self.at];
            self.at += self
                .rest()
                .find(tag)
                .map_or_else(|| self.rest().len(), |end| end + tag.len());
        }
        Piece::Code
    }

    /// `:name`; but `::` is a cast, `:=` an assignment, `[1:n]` a slice.
    fn colon(&mut self) -> Piece {
        let before = self.text[..self.at].bytes().next_back();
        let joined = before.is_some_and(|byte| is_word(byte) || matches!(byte, b')' | b']'));
        self.at += 1;
        if self.byte(0) == Some(b':') {
            self.at += 1;
            return Piece::Code;
        }
        let starts = self
            .byte(0)
            .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if joined || !starts {
            return Piece::Code;
        }
        let start = self.at;
        while self
            .byte(0)
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            self.at += 1;
        }
        Piece::Place(Placeholder::Named(self.text[start..self.at].to_owned()))
    }

    fn word(&mut self) -> Piece {
        let start = self.at;
        while self.byte(0).is_some_and(is_word) {
            self.at += 1;
        }
        if self.words.len() < FIRST_WORDS {
            self.words
                .push(self.text[start..self.at].to_ascii_uppercase());
        }
        Piece::Code
    }

    fn digits(&mut self) -> Option<usize> {
        let start = self.at;
        while self.byte(0).is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.text[start..self.at].parse().ok()
    }

    /// Whether the statement creates one of these.
    fn creates(&self, what: &[&str]) -> bool {
        let Some(("CREATE", rest)) = self.words.split_first().map(|(a, b)| (a.as_str(), b)) else {
            return false;
        };
        let of = |word: &&String| what.contains(&word.as_str()) || OTHERS.contains(&word.as_str());
        rest.iter()
            .find(of)
            .is_some_and(|word| what.contains(&word.as_str()))
    }
}

/// What has a body in MySQL.
const ROUTINES: [&str; 4] = ["PROCEDURE", "FUNCTION", "TRIGGER", "EVENT"];
/// What else may be created: its name may be one of those words.
const OTHERS: [&str; 8] = [
    "TABLE", "VIEW", "INDEX", "DATABASE", "SCHEMA", "USER", "ROLE", "SEQUENCE",
];

/// A byte of a word; those of other alphabets are.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}
