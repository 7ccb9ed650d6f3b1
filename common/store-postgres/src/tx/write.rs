//! Everything that a transaction writes at its end, in one statement: each part is a data-modifying WITH query of its own
//! module.
//!
//! The parts run in no order that PostgreSQL promises, and see none of each other's changes. Neither matters: they write
//! different rows, under locks that were taken before in order (runs, then limits), and none reads what another writes. Two
//! write to one table: what leaves the outbox was committed before, what goes in has a new fence. The look for others
//! sees the runs as they were; those of this transaction are its exceptions.

use super::{
    PgTx,
    limits::{self, Deltas},
    outbox, runs, task_instances, xcoms,
};
use crate::{Statement, bind::column, rows::get};
use chrono::{DateTime, Utc};
use gristmill_common::row::XcomRow;
use gristmill_store::{StoreError, StoreResult, Writes, Written};
use sqlx::query;
use std::{fmt::Write as _, sync::OnceLock};

/// A part: a WITH query with parameters from `$1` on, and what of it the statement answers.
struct Part {
    name: &'static str,
    sql: &'static str,
    answer: &'static str,
}

const COUNT: &str = "(SELECT count(*) FROM {})";

const PARTS: [Part; 8] = [
    Part {
        name: "tis",
        sql: task_instances::UPDATE,
        answer: COUNT,
    },
    Part {
        name: "runs",
        sql: runs::UPDATE,
        answer: COUNT,
    },
    Part {
        name: "xcoms",
        sql: xcoms::PUT,
        answer: COUNT,
    },
    Part {
        name: "attempts",
        sql: task_instances::INSERT_ATTEMPTS,
        answer: COUNT,
    },
    Part {
        name: "limits",
        sql: limits::SPEND,
        answer: "ARRAY(SELECT kind || ' ' || name FROM {})",
    },
    Part {
        name: "outbox",
        sql: outbox::INSERT,
        answer: COUNT,
    },
    Part {
        name: "published",
        sql: outbox::DELETE,
        answer: COUNT,
    },
    Part {
        name: "others",
        sql: super::candidates::OTHERS_WAIT,
        answer: "EXISTS (SELECT FROM {})",
    },
];

/// The statements that were needed so far, by their parts as bits: each is prepared once on every connection.
static TEXTS: [OnceLock<String>; 1 << PARTS.len()] = [const { OnceLock::new() }; 1 << PARTS.len()];

fn text(wanted: [bool; PARTS.len()]) -> &'static str {
    let bits = wanted
        .iter()
        .enumerate()
        .map(|(n, wanted)| usize::from(*wanted) << n)
        .sum::<usize>();
    TEXTS[bits].get_or_init(|| {
        let (mut with, mut select, mut parameters) = (String::new(), String::new(), 0);
        for (part, _) in PARTS.iter().zip(wanted).filter(|(_, wanted)| *wanted) {
            let (before, comma) = match with.is_empty() {
                true => ("WITH ", ""),
                false => (",\n", ", "),
            };
            let (sql, more) = renumbered(part.sql, parameters);
            parameters += more;
            let name = format!("written_{}", part.name);
            let answer = part.answer.replace("{}", &name);
            // Writing to a String cannot fail.
            let _ = write!(with, "{before}{name} AS ({sql})");
            let _ = write!(select, "{comma}{answer} AS {}", part.name);
        }
        format!("{with}\nSELECT {select}")
    })
}

/// Raises the numbers of a text's parameters by `from`; and how many it has.
fn renumbered(sql: &str, from: usize) -> (String, usize) {
    let mut pieces = sql.split('$');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    let mut most = 0;
    for piece in pieces {
        let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = piece.split_at(digits);
        let number: usize = number.parse().unwrap_or_default();
        most = most.max(number);
        let _ = write!(text, "${}{rest}", number + from);
    }
    (text, most)
}

pub(super) async fn write(tx: &mut PgTx, writes: &Writes<'_>) -> StoreResult<Written> {
    let deltas = limits::deltas(writes.limits);
    let xcoms = xcoms::newest(writes.xcoms);
    let wanted = [
        !writes.tis.is_empty(),
        !writes.runs.is_empty(),
        !xcoms.is_empty(),
        !writes.attempts.is_empty(),
        !deltas.is_empty(),
        !writes.outbox.is_empty(),
        !writes.published.is_empty(),
        writes.ask_others.is_some(),
    ];
    if !wanted.contains(&true) {
        return Ok(Written::default());
    }
    let statement = bound(wanted, writes, &xcoms, &deltas, tx.now);
    let Some(row) = tx.optional(statement).await? else {
        return Err(StoreError::Corrupt("a SELECT gave no row".to_owned()));
    };
    let count = |name, wanted: usize| match wanted {
        0 => Ok(0),
        _ => get::<i64>(&row, name).map(|n| usize::try_from(n).unwrap_or_default()),
    };
    let tis = count("tis", writes.tis.len())?;
    let runs = count("runs", writes.runs.len())?;
    let attempts = count("attempts", writes.attempts.len())?;
    let spent: Vec<String> = match deltas.is_empty() {
        true => Vec::new(),
        false => get(&row, "limits")?,
    };
    let refused = runs::refused(writes.runs, runs)
        .or_else(|| task_instances::refused_attempts(writes.attempts, attempts))
        .or_else(|| limits::refused(&deltas, &spent));
    if let Some(error) = refused {
        return Err(tx.corrupt(error));
    }
    Ok(Written {
        tis,
        others_wait: writes.ask_others.is_some() && get(&row, "others")?,
    })
}

fn bound(
    wanted: [bool; PARTS.len()],
    writes: &Writes<'_>,
    xcoms: &[&XcomRow],
    deltas: &Deltas,
    now: DateTime<Utc>,
) -> Statement<'static> {
    type Bind<'a> = &'a dyn Fn(Statement<'static>) -> Statement<'static>;
    let others = column(writes.ask_others.unwrap_or_default(), |run| run.0);
    let binds: [Bind<'_>; PARTS.len()] = [
        &|s| task_instances::bind_update(s, writes.tis),
        &|s| runs::bind_update(s, writes.runs),
        &|s| super::xcoms::bind_put(s, xcoms),
        &|s| task_instances::bind_attempts(s, writes.attempts),
        &|s| limits::bind_spend(s, deltas),
        &|s| outbox::bind_insert(s, writes.outbox, now),
        &|s| outbox::bind_delete(s, writes.published),
        &|s| s.bind(others.as_slice()),
    ];
    binds
        .iter()
        .zip(wanted)
        .filter(|(_, wanted)| *wanted)
        .fold(query(text(wanted)), |statement, (bind, _)| bind(statement))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_on() {
        assert_eq!(
            renumbered("a = $1 AND b = ANY ($12::text[])", 3),
            ("a = $4 AND b = ANY ($15::text[])".to_owned(), 12)
        );
        assert_eq!(
            renumbered("no parameter", 3),
            ("no parameter".to_owned(), 0)
        );
    }

    #[test]
    fn parts_follow_each_other() {
        let mut wanted = [false; PARTS.len()];
        (wanted[6], wanted[7]) = (true, true);
        let text = text(wanted);
        assert!(text.contains("$3") && !text.contains("$4"), "{text}");
        assert!(text.ends_with(
            "SELECT (SELECT count(*) FROM written_published) AS published, EXISTS (SELECT FROM written_others) AS others"
        ));
    }
}
