//! A bound on how deep a template's syntax tree can get. The engine bounds brackets and calls itself; but every operator
//! of `1+1+1…`, `a.b.c…` or `a|b|c…` is a level too, and so is every `elif`: a long enough chain would overflow the
//! stack of whoever compiles it.

use super::{TemplateError, env};
use minijinja::machinery::{Token, tokenize};

/// Operators (`+`, `.`, `|`, `and`, brackets, …) in one `{{ … }}` or `{% … %}`.
const MAX_OPERATORS: usize = 200;
/// `{% … %}` tags in one text.
const MAX_TAGS: usize = 200;

/// Refuses a template (or, with `expression`, a bare expression) whose tree could get too deep.
pub(super) fn check(text: &str, expression: bool) -> Result<(), TemplateError> {
    // An operator takes a character at least, and a tag more.
    if text.len() <= MAX_OPERATORS {
        return Ok(());
    }
    let (mut operators, mut tags) = (0, 0);
    for token in tokenize(text, expression, env::syntax()) {
        // What is wrong with it, the compiler says in its own words.
        let Ok((token, span)) = token else { break };
        match token {
            Token::VariableStart => operators = 0,
            Token::BlockStart => {
                operators = 0;
                tags += 1;
            }
            Token::Ident("and" | "or" | "not" | "if" | "else" | "is" | "in") => operators += 1,
            Token::Ident(_)
            | Token::TemplateData(_)
            | Token::Str(_)
            | Token::String(_)
            | Token::Int(_)
            | Token::Int128(_)
            | Token::Float(_)
            | Token::Comma
            | Token::Colon
            | Token::Assign
            | Token::VariableEnd
            | Token::BlockEnd => {}
            _ => operators += 1,
        }
        let problem = match (operators > MAX_OPERATORS, tags > MAX_TAGS) {
            (true, _) => {
                format!("the template has an expression of more than {MAX_OPERATORS} operators")
            }
            (_, true) => format!("the template has more than {MAX_TAGS} `{{% … %}}` tags"),
            _ => continue,
        };
        return Err(TemplateError {
            message: format!("{problem}; do such work in a task"),
            line: Some(usize::from(span.start_line)),
            offset: Some(span.start_offset as usize),
        });
    }
    Ok(())
}
