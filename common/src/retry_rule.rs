//! `retry_rules`: what failures of certain kinds lead to.

use crate::span::Span;
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// Bytes that a compiled pattern may take.
const PATTERN_SIZE: usize = 256 * 1024;

/// What a failure leads to if it is of this kind: every condition that the rule gives has to hold. Without any it is about
/// all failures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetryRule {
    /// The process ended with one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exit_code: Vec<i32>,
    /// The HTTP answer's status was one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<u16>,
    /// A regular expression that is found in the last line of the output or of the errors, or in an HTTP answer's beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    pub then: RetryAction,
    /// With `retry`: this wait instead of the task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAction {
    /// Tried again, while tries remain.
    Retry,
    /// Failed for good, whatever tries remain.
    Fail,
    /// Skipped.
    Skip,
}

/// What is known of a failed attempt.
#[derive(Debug, Clone, Default)]
pub struct Failure {
    pub exit_code: Option<i32>,
    pub status: Option<u16>,
    /// The ends of what it printed or was answered.
    pub output: Vec<String>,
}

impl RetryRule {
    /// Compiles a pattern, within bounds.
    pub fn pattern(text: &str) -> Result<Regex, String> {
        RegexBuilder::new(text)
            .size_limit(PATTERN_SIZE)
            .build()
            .map_err(|error| error.to_string())
    }

    /// Whether the failure is of this rule's kind.
    pub fn is_about(&self, failure: &Failure) -> bool {
        let code = self.exit_code.is_empty()
            || failure
                .exit_code
                .is_some_and(|code| self.exit_code.contains(&code));
        let status = self.status.is_empty()
            || failure
                .status
                .is_some_and(|status| self.status.contains(&status));
        code && status && self.is_in(&failure.output)
    }

    fn is_in(&self, output: &[String]) -> bool {
        let Some(text) = &self.output else {
            return true;
        };
        // One that does not compile was refused with its file.
        Self::pattern(text).is_ok_and(|pattern| output.iter().any(|line| pattern.is_match(line)))
    }
}

/// The first rule that a failure falls under.
pub fn rule_of<'r>(rules: &'r [RetryRule], failure: &Failure) -> Option<&'r RetryRule> {
    rules.iter().find(|rule| rule.is_about(failure))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_rule_whose_conditions_all_hold_decides() {
        let rules: Vec<RetryRule> = serde_json::from_value(json!([
            {"exit_code": [75, 69], "output": "(?i)timed? ?out", "then": "retry", "delay": "10s"},
            {"exit_code": [75], "then": "skip"},
            {"status": [404], "then": "fail"},
            {"output": "^Fatal", "then": "fail"},
        ]))
        .unwrap();
        let then = |exit_code, status, output: &str| {
            let failure = Failure {
                exit_code,
                status,
                output: vec!["something".to_owned(), output.to_owned()],
            };
            rule_of(&rules, &failure).map(|rule| (rule.then, rule.delay))
        };
        let wait = Some(Span::from_secs(10));
        assert_eq!(
            then(Some(69), None, "Timed out"),
            Some((RetryAction::Retry, wait))
        );
        assert_eq!(then(Some(75), None, "no"), Some((RetryAction::Skip, None)));
        assert_eq!(then(None, Some(404), ""), Some((RetryAction::Fail, None)));
        assert_eq!(
            then(Some(1), None, "Fatal: x"),
            Some((RetryAction::Fail, None))
        );
        assert_eq!(then(Some(69), None, "not Fatal"), None);
        assert_eq!(then(None, None, ""), None);
    }

    #[test]
    fn patterns_are_checked_and_bounded() {
        assert!(RetryRule::pattern("(").is_err());
        assert!(RetryRule::pattern(r"\w{1000}{1000}").is_err());
    }
}
