//! The methods of Python's strings, lists and dicts that Airflow templates call most.

use super::objects::unknown_method;
use minijinja::{
    Error, State, Value as Jinja,
    value::{ValueKind, from_args},
};

/// Called for a method that a value does not have itself.
pub(super) fn call(
    _: &mut State<'_, '_>,
    value: &Jinja,
    method: &str,
    args: &[Jinja],
) -> Result<Jinja, Error> {
    match value.kind() {
        ValueKind::String => string(value.as_str().unwrap_or_default(), method, args),
        ValueKind::Map => map(value, method, args),
        kind => Err(unknown_method(&format!("a {kind}"), method, "none")),
    }
}

fn string(text: &str, method: &str, args: &[Jinja]) -> Result<Jinja, Error> {
    let stripped = |f: fn(&str, &str) -> String, white: fn(&str) -> &str| -> Result<Jinja, Error> {
        let (characters,): (Option<&str>,) = from_args(args)?;
        Ok(Jinja::from(
            characters.map_or_else(|| white(text).to_owned(), |c| f(text, c)),
        ))
    };
    Ok(match method {
        "upper" => Jinja::from(text.to_uppercase()),
        "lower" => Jinja::from(text.to_lowercase()),
        "strip" => {
            return stripped(
                |t, c| t.trim_matches(|x| c.contains(x)).to_owned(),
                str::trim,
            );
        }
        "lstrip" => {
            return stripped(
                |t, c| t.trim_start_matches(|x| c.contains(x)).to_owned(),
                str::trim_start,
            );
        }
        "rstrip" => {
            return stripped(
                |t, c| t.trim_end_matches(|x| c.contains(x)).to_owned(),
                str::trim_end,
            );
        }
        "startswith" => {
            let (prefix,): (&str,) = from_args(args)?;
            Jinja::from(text.starts_with(prefix))
        }
        "endswith" => {
            let (suffix,): (&str,) = from_args(args)?;
            Jinja::from(text.ends_with(suffix))
        }
        "replace" => {
            let (from, to): (&str, &str) = from_args(args)?;
            Jinja::from(text.replace(from, to))
        }
        "split" => {
            let (separator,): (Option<&str>,) = from_args(args)?;
            match separator {
                Some(separator) => text.split(separator).map(Jinja::from).collect(),
                None => text.split_whitespace().map(Jinja::from).collect(),
            }
        }
        "join" => {
            let (items,): (Jinja,) = from_args(args)?;
            let items: Vec<String> = items.try_iter()?.map(|item| item.to_string()).collect();
            Jinja::from(items.join(text))
        }
        _ => {
            let known =
                "upper, lower, strip, lstrip, rstrip, startswith, endswith, replace, split, join";
            return Err(unknown_method("a string", method, known));
        }
    })
}

fn map(value: &Jinja, method: &str, args: &[Jinja]) -> Result<Jinja, Error> {
    let pair = |key: Jinja| value.get_item(&key).map(|item| (key, item));
    match method {
        "get" => {
            let (key, default): (Jinja, Option<Jinja>) = from_args(args)?;
            let found = value.get_item(&key)?;
            Ok(if found.is_undefined() {
                default.unwrap_or_else(|| Jinja::from(()))
            } else {
                found
            })
        }
        "keys" => Ok(value.try_iter()?.collect()),
        "values" => value
            .try_iter()?
            .map(|key| pair(key).map(|(_, item)| item))
            .collect(),
        "items" => value
            .try_iter()?
            .map(|key| pair(key).map(|(key, item)| Jinja::from(vec![key, item])))
            .collect(),
        _ => Err(unknown_method("a map", method, "get, keys, values, items")),
    }
}
