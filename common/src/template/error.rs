//! What can go wrong with a template, in words for its author.

use minijinja::ErrorKind;

/// A template that could not be compiled or rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", line.filter(|line| *line > 1).map(|line| format!(" (line {line} of the text)")).unwrap_or_default())]
pub struct TemplateError {
    /// What was wrong and with what; names an undefined name.
    pub message: String,
    /// 1-based line within the text.
    pub line: Option<usize>,
    /// Byte offset within the text, where known.
    pub offset: Option<usize>,
}

impl TemplateError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            line: None,
            offset: None,
        }
    }

    pub(super) fn of(error: &minijinja::Error, source: &str) -> Self {
        let detail = error.detail().unwrap_or_default();
        let at = error.range().and_then(|range| whole_lookup(source, range));
        let text = at.map(|(_, text)| text).filter(|text| !text.is_empty());
        let message = match error.kind() {
            ErrorKind::UndefinedError => match text {
                Some(text) => format!("`{text}` is undefined"),
                None if detail.is_empty() => "an undefined value was used".to_owned(),
                None => detail.to_owned(),
            },
            ErrorKind::OutOfFuel => "the template takes too many steps".to_owned(),
            ErrorKind::WriteFailure => {
                format!(
                    "the template's output is larger than {} MiB",
                    super::render::MAX_OUTPUT >> 20
                )
            }
            ErrorKind::SyntaxError => format!("syntax error in the template: {detail}"),
            kind if detail.is_empty() => kind.to_string(),
            _ => detail.to_owned(),
        };
        Self {
            message,
            line: error.line(),
            offset: at.map(|(start, _)| start),
        }
    }
}

/// minijinja points at the last lookups of a chain (`.country` of `params.country`): widened to the whole chain.
fn whole_lookup(source: &str, range: std::ops::Range<usize>) -> Option<(usize, &str)> {
    let part_of_chain = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let before = source.get(..range.start)?;
    let start = before.trim_end_matches(part_of_chain).len();
    Some((start, source.get(start..range.end)?.trim()))
}
