//! Texts of SQL, taken apart: their statements, and where values are bound.
//!
//! This is no parser of SQL. It knows what may hold a `;` or a `:name` that is none: strings, quoted names, comments, dollar
//! quotes and the bodies of routines.

use serde_json::{Map, Value};

mod scan;

use scan::{Piece, Scanner};

/// Whose SQL it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Postgres,
    MySql,
    Sqlite,
}

/// One statement, with the places where values may be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) text: String,
    places: Vec<Place>,
}

/// A placeholder: where it stands in the statement's text, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    at: std::ops::Range<usize>,
    what: Placeholder,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Placeholder {
    /// `$2`, `?2`: counted from 1.
    Numbered(usize),
    /// `?`: the next one.
    Next,
    /// `:name`
    Named(String),
}

/// Values to bind.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Parameters {
    List(Vec<Value>),
    Named(Map<String, Value>),
}

/// Why values and statements do not fit together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Misfit {
    #[error("statement {statement} binds parameter {wanted}, but `parameters` has {given}")]
    TooFew {
        statement: usize,
        wanted: usize,
        given: usize,
    },
    #[error("no statement binds parameter {0} of `parameters`")]
    Unused(usize),
    #[error("statement {statement} binds :{name}, which is not in `parameters`; it has: {known}")]
    Unknown {
        statement: usize,
        name: String,
        known: String,
    },
}

/// A text's statements; empty ones and comments alone are none.
pub(super) fn split(text: &str, dialect: Dialect) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut start = 0;
    let mut places = Vec::new();
    let mut is_code = false;
    let mut scanner = Scanner::new(text, dialect);
    let mut end = |start: usize, end: usize, places: Vec<Place>, is_code: bool| {
        let raw = &text[start..end];
        let body = raw.trim();
        if is_code {
            let skipped = start + (raw.len() - raw.trim_start().len());
            let places = places.into_iter().map(|place: Place| Place {
                at: place.at.start - skipped..place.at.end - skipped,
                ..place
            });
            statements.push(Statement {
                text: body.to_owned(),
                places: places.collect(),
            });
        }
    };
    while let Some((piece, at)) = scanner.next() {
        match piece {
            Piece::End => {
                end(start, at.start, std::mem::take(&mut places), is_code);
                start = at.end;
                is_code = false;
            }
            Piece::Place(what) => {
                is_code = true;
                places.push(Place { at, what });
            }
            Piece::Code => is_code = true,
        }
    }
    end(start, text.len(), places, is_code);
    statements
}

/// Each statement's text as its database wants it, with the values that it binds in their order.
pub(super) fn bind(
    statements: &[Statement],
    parameters: &Parameters,
    dialect: Dialect,
) -> Result<Vec<(String, Vec<Value>)>, Misfit> {
    let mut bound = Vec::with_capacity(statements.len());
    let mut used = 0;
    for (i, statement) in statements.iter().enumerate() {
        bound.push(match parameters {
            Parameters::List(list) => {
                let wanted = statement.by_position();
                if wanted > list.len() && !list.is_empty() {
                    return Err(Misfit::TooFew {
                        statement: i + 1,
                        wanted,
                        given: list.len(),
                    });
                }
                let wanted = wanted.min(list.len());
                used = used.max(wanted);
                (statement.text.clone(), list[..wanted].to_vec())
            }
            Parameters::Named(named) => statement.by_name(i + 1, named, dialect)?,
        });
    }
    match parameters {
        Parameters::List(list) if used < list.len() => Err(Misfit::Unused(used + 1)),
        _ => Ok(bound),
    }
}

impl Statement {
    /// How many values of a list it binds.
    fn by_position(&self) -> usize {
        let mut last = 0;
        for place in &self.places {
            match place.what {
                Placeholder::Numbered(n) => last = last.max(n),
                Placeholder::Next => last += 1,
                Placeholder::Named(_) => {}
            }
        }
        last
    }

    /// With the database's own placeholders in place of names.
    fn by_name(
        &self,
        statement: usize,
        named: &Map<String, Value>,
        dialect: Dialect,
    ) -> Result<(String, Vec<Value>), Misfit> {
        let mut text = String::with_capacity(self.text.len());
        let mut values: Vec<Value> = Vec::new();
        let mut order: Vec<&str> = Vec::new();
        let mut done = 0;
        for place in &self.places {
            let Placeholder::Named(name) = &place.what else {
                continue;
            };
            let value = named.get(name).ok_or_else(|| Misfit::Unknown {
                statement,
                name: name.clone(),
                known: named.keys().cloned().collect::<Vec<_>>().join(", "),
            })?;
            let known = order.iter().position(|other| other == name);
            // MySQL's placeholders have no numbers: a value is bound as often as it is named.
            let number = match known.filter(|_| dialect != Dialect::MySql) {
                Some(known) => known + 1,
                None => {
                    order.push(name);
                    values.push(value.clone());
                    order.len()
                }
            };
            text.push_str(&self.text[done..place.at.start]);
            match dialect {
                Dialect::Postgres => text.push_str(&format!("${number}")),
                Dialect::Sqlite => text.push_str(&format!("?{number}")),
                Dialect::MySql => text.push('?'),
            }
            done = place.at.end;
        }
        text.push_str(&self.text[done..]);
        Ok((text, values))
    }
}

#[cfg(test)]
mod tests;
