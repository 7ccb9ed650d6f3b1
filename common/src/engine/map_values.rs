//! From the lists of a mapped task to the map variables of its instances. Every failure names the task, the key and what
//! was found there.

use crate::{
    spec::{ExpandSource, Mapping},
    template::Renderer,
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Instances of one mapped task at most.
pub const MAX_MAP_LENGTH: usize = 100_000;
/// Bytes of all instances' map values together at most, as JSON.
pub const MAX_MAP_BYTES: usize = 64 * 1024 * 1024;

/// Characters of a value that a message shows.
const SHOWN: usize = 80;

/// The map variables of one instance.
pub(super) type MapValues = Map<String, Value>;

/// Renders a mapping's lists and puts them together.
pub(super) fn map_values(
    task_id: &str,
    mapping: Mapping<'_>,
    renderer: &Renderer,
) -> Result<Vec<MapValues>, String> {
    let values = match mapping {
        Mapping::Product(sources) => lists(sources, "expand", renderer).and_then(product),
        Mapping::Zip(sources) => lists(sources, "expand_zip", renderer).and_then(side_by_side),
        Mapping::Items(source) => items(source, renderer),
    };
    values.map_err(|error| format!("task {task_id}: {error}"))
}

type Lists<'s> = Vec<(&'s str, Vec<Value>)>;

fn lists<'s>(
    sources: &'s BTreeMap<String, ExpandSource>,
    key: &str,
    renderer: &Renderer,
) -> Result<Lists<'s>, String> {
    let list = |(name, source): (&'s String, &ExpandSource)| {
        let key = format!("{key}.{name}");
        let list = match rendered(&key, source, renderer)? {
            // A mapping gives its entries.
            Value::Object(map) => map
                .into_iter()
                .map(|(key, value)| serde_json::json!({"key": key, "value": value}))
                .collect(),
            value => as_list(&key, value)?,
        };
        Ok((name.as_str(), list))
    };
    sources.iter().map(list).collect()
}

fn rendered(key: &str, source: &ExpandSource, renderer: &Renderer) -> Result<Value, String> {
    match source {
        ExpandSource::Literal(list) => Ok(Value::Array(list.clone())),
        ExpandSource::Template(text) => renderer
            .render_native(text)
            .map_err(|error| format!("{key}: {error}")),
    }
}

fn as_list(key: &str, value: Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(list) => Ok(list),
        other => Err(format!("{key}: expected a list, got {}", described(&other))),
    }
}

/// A value's type and, shortened, the value.
fn described(value: &Value) -> String {
    let kind = match value {
        Value::Null => return "nothing (null)".to_owned(),
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    };
    let mut shown = value.to_string();
    if let Some((cut, _)) = shown.char_indices().nth(SHOWN) {
        shown.truncate(cut);
        shown.push('…');
    }
    format!("{kind}: {shown}")
}

/// Every combination, the last variable moving fastest.
fn product(lists: Lists<'_>) -> Result<Vec<MapValues>, String> {
    let mut product = vec![Map::new()];
    let mut bytes = 0usize;
    for (name, list) in lists {
        let length = product.len().saturating_mul(list.len());
        check_length("expand", length)?;
        // A cross product repeats every value: its size is known, and bounded, before it is made.
        bytes = bytes
            .saturating_mul(list.len())
            .saturating_add(product.len().saturating_mul(size(name, &list)));
        check_bytes("expand", bytes)?;
        product = product
            .into_iter()
            .flat_map(|values: MapValues| {
                list.iter().map(move |item| {
                    let mut values = values.clone();
                    values.insert(name.to_owned(), item.clone());
                    values
                })
            })
            .collect();
    }
    Ok(product)
}

/// The n-th items of all lists together. Airflow's `zip` silently ends with the shortest list; here lists of different
/// lengths are a failure, since whatever makes them differ loses data.
fn side_by_side(lists: Lists<'_>) -> Result<Vec<MapValues>, String> {
    let length = lists.first().map_or(0, |(_, list)| list.len());
    if lists.iter().any(|(_, list)| list.len() != length) {
        let lengths: Vec<String> = lists
            .iter()
            .map(|(name, list)| format!("{name} has {}", list.len()))
            .collect();
        return Err(format!(
            "expand_zip: the lists have different lengths ({}): make them equally long, or zip them in an upstream and use expand_kwargs",
            lengths.join(", ")
        ));
    }
    check_length("expand_zip", length)?;
    check_bytes(
        "expand_zip",
        lists.iter().map(|(name, list)| size(name, list)).sum(),
    )?;
    let mut values = vec![Map::new(); length];
    for (name, list) in lists {
        for (values, item) in values.iter_mut().zip(list) {
            values.insert(name.to_owned(), item);
        }
    }
    Ok(values)
}

/// A list of mappings, each the variables of one instance.
fn items(source: &ExpandSource, renderer: &Renderer) -> Result<Vec<MapValues>, String> {
    const KEY: &str = "expand_kwargs";
    let list = as_list(KEY, rendered(KEY, source, renderer)?)?;
    check_length(KEY, list.len())?;
    check_bytes(KEY, size("", &list))?;
    let item = |(index, value)| match value {
        Value::Object(values) => Ok(values),
        other => Err(format!(
            "{KEY}[{index}]: expected a mapping of map variables, got {}",
            described(&other)
        )),
    };
    list.into_iter().enumerate().map(item).collect()
}

/// Bytes of a variable's values.
fn size(name: &str, list: &[Value]) -> usize {
    list.iter()
        .map(|item| name.len() + item.to_string().len())
        .sum()
}

fn check_length(key: &str, length: usize) -> Result<(), String> {
    if length <= MAX_MAP_LENGTH {
        return Ok(());
    }
    Err(format!(
        "{key} would make {length} instances; at most {MAX_MAP_LENGTH} are allowed"
    ))
}

fn check_bytes(key: &str, bytes: usize) -> Result<(), String> {
    if bytes <= MAX_MAP_BYTES {
        return Ok(());
    }
    Err(format!(
        "{key} would make {bytes} bytes of map values; at most {MAX_MAP_BYTES} are allowed: map over keys or paths instead"
    ))
}

#[cfg(test)]
mod tests;
