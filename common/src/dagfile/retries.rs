//! Checks of `retry_rules`.

use super::{draft::Drafts, reader::Reader};
use crate::retry_rule::RetryRule;
use serde_json::Value;

pub(super) fn check(reader: &mut Reader<'_>, drafts: &Drafts) {
    for draft in &drafts.tasks {
        let Some(rules) = draft.value.get("retry_rules").and_then(Value::as_array) else {
            continue;
        };
        let never_retried = draft
            .value
            .get("retries")
            .and_then(Value::as_u64)
            .unwrap_or(0)
            == 0;
        for (n, rule) in rules.iter().enumerate() {
            let then = rule.get("then").and_then(Value::as_str).unwrap_or_default();
            if let Some(Err(error)) = rule
                .get("output")
                .and_then(Value::as_str)
                .map(RetryRule::pattern)
            {
                let message = format!("retry_rules[{n}].output is no regular expression: {error}");
                reader.error_at(&draft.spot, message);
            }
            if rule.get("delay").is_some() && then != "retry" {
                let message = format!("retry_rules[{n}]: `delay` goes with `then: retry` only");
                reader.error_at(&draft.spot, message);
            }
            if then == "retry" && never_retried {
                let message =
                    format!("retry_rules[{n}] retries nothing: the task has no `retries`");
                reader.warn_at(&draft.spot, message);
            }
        }
    }
}
