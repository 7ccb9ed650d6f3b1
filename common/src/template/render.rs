//! Rendering within bounds.

use super::{
    TemplateContext, TemplateError, analysis, bounds, env::environment, is_template, objects::Root,
};
use minijinja::Value as Jinja;
use serde_json::{Map, Value};
use std::{borrow::Cow, io};

/// Bytes that one text may render to.
pub(super) const MAX_OUTPUT: usize = 16 << 20;

/// Renders the templates of one task instance.
#[derive(Debug, Clone)]
pub struct Renderer {
    root: Jinja,
    context: std::sync::Arc<TemplateContext>,
}

impl Renderer {
    pub fn new(context: TemplateContext) -> Self {
        let context = std::sync::Arc::new(context);
        Self {
            root: Root::value(context.clone(), Map::new()),
            context,
        }
    }

    /// The same, with another name beside the usual ones.
    pub fn with(self, name: &str, value: Value) -> Self {
        let extra = Map::from_iter([(name.to_owned(), value)]);
        Self {
            root: Root::value(self.context.clone(), extra),
            context: self.context,
        }
    }

    /// The text with its templates filled in; a text without any is given back as it is, at once.
    pub fn render<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, TemplateError> {
        if !is_template(text) {
            return Ok(Cow::Borrowed(text));
        }
        bounds::check(text, false)?;
        let explain = |error: minijinja::Error| TemplateError::of(&error, text);
        let template = environment().template_from_str(text).map_err(explain)?;
        let mut output = Bounded(Vec::with_capacity(text.len()));
        template
            .render_captured_to(self.root.clone(), &mut output)
            .map_err(explain)?;
        String::from_utf8(output.0)
            .map(Cow::Owned)
            .map_err(|_| TemplateError::new("the template's output is not UTF-8"))
    }

    /// Like [`Self::render`], but a text that is exactly one `{{ … }}` gives the value itself, whatever its type.
    pub fn render_native(&self, text: &str) -> Result<Value, TemplateError> {
        match analysis::only_expression(text) {
            Some((start, expression)) => {
                evaluate(expression, self.root.clone()).map_err(|mut error| {
                    error.offset = error.offset.map(|offset| offset + start);
                    error
                })
            }
            None => self
                .render(text)
                .map(|text| Value::String(text.into_owned())),
        }
    }

    /// Renders every string in a JSON value, however deep, by [`Self::render_native`]. Keys stay as they are.
    pub fn render_value(&self, value: &Value) -> Result<Value, TemplateError> {
        Ok(match value {
            Value::String(text) => self.render_native(text)?,
            Value::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|v| self.render_value(v))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(map) => Value::Object(
                map.iter()
                    .map(|(k, v)| Ok((k.clone(), self.render_value(v)?)))
                    .collect::<Result<_, TemplateError>>()?,
            ),
            other => other.clone(),
        })
    }

    /// The value of a bare expression (no `{{ }}`) that sees `extra` beside the usual names.
    pub fn eval(
        &self,
        expression: &str,
        extra: Map<String, Value>,
    ) -> Result<Value, TemplateError> {
        evaluate(expression, Root::value(self.context.clone(), extra))
    }
}

fn evaluate(expression: &str, root: Jinja) -> Result<Value, TemplateError> {
    bounds::check(expression, true)?;
    let explain = |error: minijinja::Error| TemplateError::of(&error, expression);
    let value = environment()
        .compile_expression(expression)
        .map_err(explain)?
        .eval(root)
        .map_err(explain)?;
    if value.is_undefined() {
        return Err(TemplateError::new(format!(
            "`{}` is undefined",
            expression.trim()
        )));
    }
    serde_json::to_value(&value).map_err(|error| {
        TemplateError::new(format!("`{}` is no JSON value: {error}", expression.trim()))
    })
}

/// A buffer that refuses to grow beyond [`MAX_OUTPUT`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
