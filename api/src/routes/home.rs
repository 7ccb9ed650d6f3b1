//! `/`, a status page in one file, and `/docs`.

use super::openapi::OPERATIONS;
use axum::{
    http::header,
    response::{Html, IntoResponse},
};
use std::fmt::Write;

/// Scripts and styles are in the page itself; it talks to this server only.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn page() -> impl IntoResponse {
    let page = include_str!("../../assets/index.html");
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(page))
}

pub(super) async fn docs() -> impl IntoResponse {
    let mut rows = String::new();
    for (method, path, summary) in OPERATIONS {
        let method = method.to_uppercase();
        let _ = write!(
            rows,
            "<tr><td>{method}</td><td><code>{path}</code></td><td>{summary}</td></tr>"
        );
    }
    let page = include_str!("../../assets/docs.html").replace("<!--rows-->", &rows);
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(page))
}
