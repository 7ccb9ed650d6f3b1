//! A connection's forms: a URI, JSON, fields.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use url::Url;

/// Fields that are texts; `port` is a number, `extra` a mapping.
const TEXTS: [&str; 6] = [
    "conn_type",
    "description",
    "host",
    "login",
    "password",
    "schema",
];

/// Of a text: JSON, or a URI. An error says what is wrong without repeating the text.
pub(crate) fn of_text(text: &str) -> Result<Map<String, Value>, String> {
    let text = text.trim();
    if !text.starts_with('{') {
        return of_uri(text);
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => of_fields(fields),
        // The parser's own message may show a part of the text.
        _ => Err("it begins like JSON and is none".to_owned()),
    }
}

pub(crate) fn of_fields(fields: Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut connection = Map::new();
    for (name, value) in fields {
        if value.is_null() {
            continue;
        }
        let value = match (name.as_str(), value) {
            (name, value @ Value::String(_)) if TEXTS.contains(&name) => value,
            ("port", Value::String(text)) => {
                json!(
                    text.trim()
                        .parse::<u16>()
                        .map_err(|_| "its port is no number up to 65535")?
                )
            }
            ("port", value) if value.as_u64().is_some_and(|port| port <= 65_535) => value,
            ("extra", Value::String(text)) if text.is_empty() => continue,
            ("extra", Value::String(text)) => serde_json::from_str::<Map<String, Value>>(&text)
                .map(Value::Object)
                .map_err(|_| "its extra is no mapping")?,
            ("extra", value @ Value::Object(_)) => value,
            // Airflow's name beside these.
            ("conn_id" | "connection_id", _) => continue,
            (name, _) => {
                return Err(format!(
                    "{name:?} is no field of a connection, or has no value of its kind; the fields are {}, port, extra",
                    TEXTS.join(", ")
                ));
            }
        };
        connection.insert(name, value);
    }
    if !connection.contains_key("conn_type") {
        return Err("it has no conn_type, such as postgres or http".to_owned());
    }
    Ok(connection)
}

/// `TYPE://LOGIN:PASSWORD@HOST:PORT/SCHEMA?EXTRA=…`, as Airflow reads it; of SQLite `sqlite:///PATH`, of HTTP the address
/// itself.
fn of_uri(text: &str) -> Result<Map<String, Value>, String> {
    let form = "it is no URI such as postgres://login:password@host:5432/database";
    let (scheme, rest) = text.split_once("://").ok_or(form)?;
    let kind = match scheme.to_ascii_lowercase().replace('-', "_").as_str() {
        "postgresql" => "postgres".to_owned(),
        "mariadb" => "mysql".to_owned(),
        "https" => "http".to_owned(),
        other => other.to_owned(),
    };
    if kind.is_empty() {
        return Err(form.to_owned());
    }
    let mut connection = Map::from_iter([("conn_type".to_owned(), json!(kind))]);
    if kind == "sqlite" {
        let path = rest.split('?').next().unwrap_or_default();
        connection.insert("host".to_owned(), json!(decoded(path)?));
        return Ok(connection);
    }
    // Airflow's URIs may have a login without a host, other URIs may not.
    let authority = rest.find(['/', '?']).unwrap_or(rest.len());
    let hostless = rest[..authority].ends_with('@');
    let (before, after) = rest.split_at(authority);
    let host = if hostless { "none" } else { "" };
    // A scheme of ours has no rules of its own for hosts and ports, unlike `http`.
    let url = Url::parse(&format!("gristmill://{before}{host}{after}")).map_err(|_| form)?;
    let mut put = |name: &str, text: &str| -> Result<(), String> {
        if !text.is_empty() {
            connection.insert(name.to_owned(), json!(decoded(text)?));
        }
        Ok(())
    };
    put("login", url.username())?;
    put("password", url.password().unwrap_or_default())?;
    let host = url.host_str().filter(|_| !hostless).unwrap_or_default();
    if kind == "http" && !host.is_empty() {
        let path = url.path().trim_end_matches('/');
        put(
            "host",
            &format!("{}://{host}{path}", scheme.to_ascii_lowercase()),
        )?;
    } else {
        put("host", host)?;
        put("schema", url.path().trim_start_matches('/'))?;
    }
    if let Some(port) = url.port() {
        connection.insert("port".to_owned(), json!(port));
    }
    let mut extra = Map::new();
    for (name, value) in url.query_pairs() {
        match name.as_ref() {
            // Airflow's form of an extra that is no flat mapping.
            "__extra__" => match serde_json::from_str(&value) {
                Ok(Value::Object(all)) => extra.extend(all),
                _ => return Err("its __extra__ is no mapping".to_owned()),
            },
            name => drop(extra.insert(name.to_owned(), json!(value))),
        }
    }
    if !extra.is_empty() {
        connection.insert("extra".to_owned(), Value::Object(extra));
    }
    Ok(connection)
}

fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(|text| text.into_owned())
        .map_err(|_| "a part of it is no text (UTF-8)".to_owned())
}
