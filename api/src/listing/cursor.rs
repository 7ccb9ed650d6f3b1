//! Pages by cursor: a page begins after a row, not after a number of rows, so that it costs the same anywhere in a long
//! listing and shows no row twice while others are added.

use crate::{error::ApiError, extract::Query};
use gristmill_common::seal::SecretKey;
use gristmill_store::{Listing, Operand, Order};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Rows are counted up to here when a cursor is used.
const COUNTED: i64 = 10_000;

/// Where a page begins. It travels sealed: what it says of rows is not to be made up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// The listing's name, and `order_by`: they have to stay the same.
    by: Vec<String>,
    /// What the row before the page (or after it, when it goes back) is ordered by.
    at: Vec<Operand>,
    back: bool,
}

/// A page that was asked for by cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turned {
    cursor: Option<Cursor>,
    by: Vec<String>,
}

impl Turned {
    /// `None`: the query asks by offset. An empty cursor asks for the first page.
    pub(crate) fn of(
        listing: &str,
        query: &Query,
        secret: &SecretKey,
    ) -> Result<Option<Self>, ApiError> {
        let Some(text) = query.given("cursor") else {
            return Ok(None);
        };
        let mut by = vec![listing.to_owned()];
        by.extend(query.all("order_by"));
        if text.is_empty() {
            return Ok(Some(Self { cursor: None, by }));
        }
        let cursor: Cursor = secret
            .open(&text.replace('-', "+").replace('_', "/"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| {
                ApiError::BadRequest(
                    "Invalid cursor token; use next_cursor or previous_cursor of an answer"
                        .to_owned(),
                )
            })?;
        if cursor.by != by {
            return Err(ApiError::BadRequest(
                "the cursor is of a listing with another order_by; begin anew with an empty one"
                    .to_owned(),
            ));
        }
        Ok(Some(Self {
            cursor: Some(cursor),
            by,
        }))
    }

    /// Lays the page on a listing, whose order ends with the key. One row more than the page's limit has to be asked for.
    pub(crate) fn apply<F>(&self, listing: &mut Listing<F>) {
        listing.count_at_most = Some(COUNTED);
        let Some(cursor) = &self.cursor else {
            return;
        };
        if cursor.back {
            for Order { descending, .. } in &mut listing.order {
                *descending = !*descending;
            }
        }
        listing.after = Some(cursor.at.clone());
    }

    /// Writes into an answer where its neighbours are.
    pub(crate) fn tell(body: &mut Value, (before, after): (Option<String>, Option<String>)) {
        body["previous_cursor"] = before.into();
        body["next_cursor"] = after.into();
        body["total_entries_limit"] = COUNTED.into();
    }

    /// Cuts what was found down to the page, in its order, and names the pages around it: the one before, the one after.
    pub(crate) fn cut<T>(
        &self,
        rows: &mut Vec<T>,
        limit: i64,
        secret: &SecretKey,
        sorted_by: impl Fn(&T) -> Vec<Operand>,
    ) -> (Option<String>, Option<String>) {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let back = self.cursor.as_ref().is_some_and(|cursor| cursor.back);
        if back {
            rows.reverse();
        }
        let token = |row: Option<&T>, back: bool| {
            let cursor = Cursor {
                by: self.by.clone(),
                at: sorted_by(row?),
                back,
            };
            let text = serde_json::to_vec(&cursor).ok()?;
            // As it may stand in a query.
            Some(secret.seal(&text).replace('+', "-").replace('/', "_"))
        };
        let (has_before, has_after) = if back {
            (more, true)
        } else {
            (self.cursor.is_some(), more)
        };
        (
            has_before.then(|| token(rows.first(), true)).flatten(),
            has_after.then(|| token(rows.last(), false)).flatten(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> SecretKey {
        SecretKey::from_text(&"k".repeat(32)).unwrap()
    }

    fn turned(cursor: &str) -> Turned {
        let query = Query::from_pairs(vec![("cursor".to_owned(), cursor.to_owned())]);
        Turned::of("rows", &query, &secret()).unwrap().unwrap()
    }

    /// Rows 1, 2, 3, … of which each page has two.
    fn page(cursor: &str) -> (Vec<i64>, Option<String>, Option<String>) {
        let turned = turned(cursor);
        let (from, back) = match &turned.cursor {
            None => (0, false),
            Some(Cursor { at, back, .. }) => match at[..] {
                [Operand::Int(at)] => (at, *back),
                _ => panic!("{at:?}"),
            },
        };
        let mut rows: Vec<i64> = if back {
            (1..from).rev().take(3).collect()
        } else {
            (from + 1..=5).take(3).collect()
        };
        let (before, after) = turned.cut(&mut rows, 2, &secret(), |row| vec![Operand::Int(*row)]);
        (rows, before, after)
    }

    #[test]
    fn pages_are_turned_there_and_back() {
        let (rows, before, after) = page("");
        assert_eq!((rows, before), (vec![1, 2], None));
        let (rows, _, after) = page(&after.unwrap());
        assert_eq!(rows, [3, 4]);
        let (rows, before, after) = page(&after.unwrap());
        assert_eq!((rows, after), (vec![5], None));
        let (rows, before, after) = page(&before.unwrap());
        assert_eq!(rows, [3, 4]);
        assert!(after.is_some());
        let (rows, before, _) = page(&before.unwrap());
        assert_eq!((rows, before), (vec![1, 2], None));
    }

    #[test]
    fn a_cursor_that_was_made_up_is_refused() {
        for text in ["zz", "7b7d", "00"] {
            let query = Query::of(&format!("cursor={text}"));
            assert!(matches!(
                Turned::of("rows", &query, &secret()),
                Err(ApiError::BadRequest(_))
            ));
        }
        assert_eq!(
            Turned::of("rows", &Query::of("limit=3"), &secret()).unwrap(),
            None
        );
    }
}
