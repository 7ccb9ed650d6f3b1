//! Keeps passwords out of logs and errors.

/// The URL with its password replaced by `***`; for logs and error texts.
///
/// Errs on the side of hiding: in a malformed URL everything between the user name and the last `@` is taken for the password.
#[must_use]
pub fn redact_url(url: &str) -> String {
    let Some(scheme_end) = url.find("://").map(|at| at + 3) else {
        return match url.rfind('@') {
            Some(at) => format!("***{}", &url[at..]),
            None => url.to_owned(),
        };
    };
    let (scheme, rest) = url.split_at(scheme_end);
    let Some(at) = rest.rfind('@') else {
        return url.to_owned();
    };
    match rest[..at].find(':') {
        Some(colon) => format!("{scheme}{}:***{}", &rest[..colon], &rest[at..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::redact_url;

    #[test]
    fn the_password_is_hidden_and_nothing_else() {
        for (url, shown) in [
            ("amqp://gm:s3cret@mq:5672/%2f", "amqp://gm:***@mq:5672/%2f"),
            (
                "amqp://gm:a:b@c@mq/v?heartbeat=5",
                "amqp://gm:***@mq/v?heartbeat=5",
            ),
            ("amqp://gm:with/slash@mq", "amqp://gm:***@mq"),
            ("amqp://gm@mq:5672", "amqp://gm@mq:5672"),
            ("amqp://mq:5672/v", "amqp://mq:5672/v"),
            ("gm:s3cret@mq", "***@mq"),
            ("", ""),
        ] {
            assert_eq!(redact_url(url), shown);
        }
    }
}
