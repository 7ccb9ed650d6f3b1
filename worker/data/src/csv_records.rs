//! Where the records of a CSV text begin, when quoted values may hold line breaks.

/// Follows a CSV text byte by byte, with the rules of the reader that will read it: a quote opens a value only at its
/// beginning, a doubled one inside stands for itself, and anything else after a closing quote continues the value.
#[derive(Debug, Clone)]
pub struct RecordScanner {
    delimiter: u8,
    quote: u8,
    state: State,
    position: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Plain,
    Quoted,
    QuoteInQuoted,
}

impl RecordScanner {
    /// A scanner at the beginning of a file.
    pub fn new(delimiter: u8, quote: u8) -> Self {
        Self {
            delimiter,
            quote,
            state: State::FieldStart,
            position: 0,
        }
    }

    /// Takes the next bytes and calls `found` with the offset behind each line break that ends a record.
    pub fn feed(&mut self, bytes: &[u8], mut found: impl FnMut(u64)) {
        for &byte in bytes {
            self.position += 1;
            self.state = match self.state {
                State::Quoted if byte == self.quote => State::QuoteInQuoted,
                State::Quoted => State::Quoted,
                State::QuoteInQuoted | State::FieldStart if byte == self.quote => State::Quoted,
                _ if byte == b'\n' => {
                    found(self.position);
                    State::FieldStart
                }
                _ if byte == self.delimiter => State::FieldStart,
                // After "\r" a reader is at the beginning of a record, where a quote opens a value.
                State::FieldStart | State::Plain if byte == b'\r' => State::FieldStart,
                State::QuoteInQuoted if byte == b'\r' => State::FieldStart,
                _ => State::Plain,
            };
        }
    }

    /// Bytes taken so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether the text so far ends inside a quoted value.
    pub fn inside_quotes(&self) -> bool {
        self.state == State::Quoted
    }
}
