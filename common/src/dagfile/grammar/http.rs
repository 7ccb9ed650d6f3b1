//! The `http` task.

use super::{COUNT, POSITIVE, Table, Ty, key};
use crate::template::analysis::CHECK_NAMES;

const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

pub(crate) static HTTP: Table = Table {
    name: "an http task",
    keys: &[
        key("url", Ty::Template, "Absolute, or a path below the connection's host.").required(),
        key("method", Ty::Enum(METHODS), "HTTP method.").default("GET"),
        key("query", Ty::Dict(&Ty::Template), "Query parameters."),
        key("headers", Ty::Dict(&Ty::Template), "Request headers."),
        key("json", Ty::Json, "Body, as JSON. A text that is exactly one `{{ … }}` keeps its type."),
        key("form", Ty::Dict(&Ty::Template), "Body, as a form."),
        key("body", Ty::Template, "Body, as it is."),
        key("connection", Ty::Template, "Id of the connection that gives host and credentials.").nullable(),
        key("timeout", Ty::Span, "Of one request.").default("30s"),
        key("max_redirects", COUNT, "Redirects followed.").default("10"),
        key("verify_tls", Ty::Bool, "False accepts any certificate.").default("true"),
        key("expect", Ty::Object(&EXPECT), "What makes an answer a success."),
        key("attempts", POSITIVE, "Requests within one attempt, on 429, 5xx and connection errors; `Retry-After` is honoured.")
            .default("3"),
    ],
    exclusive: &[&["json", "form", "body"]],
};

pub(crate) static EXPECT: Table = Table {
    name: "an expected answer",
    keys: &[
        key(
            "status",
            Ty::OneOrMany(&Ty::Int { min: 100, max: 599 }),
            "Status codes that are a success.",
        )
        .default("200 to 299"),
        key(
            "check",
            Ty::Expression(&CHECK_NAMES),
            "Has to be true; sees status, headers, text and json beside the usual names.",
        )
        .nullable(),
    ],
    exclusive: &[],
};
