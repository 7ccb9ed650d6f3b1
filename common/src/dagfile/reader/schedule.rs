//! Schedules.

use super::Reader;
use crate::{
    dagfile::{
        grammar::{ASSET_SCHEDULE, Ty},
        node::{Node, Tree, short},
    },
    span::Span,
    timetable::{self, PRESETS},
};
use serde_json::{Map, Value, json};

impl Reader<'_> {
    /// As the specification holds it.
    pub(super) fn schedule(&mut self, node: &Node) -> Option<Value> {
        match &node.tree {
            Tree::Seq(items) => self.several(node, items),
            Tree::Map(_) => self.by_assets(node),
            Tree::Scalar(scalar) if scalar.value.is_string() => {
                self.one_schedule(node, scalar.text.trim())
            }
            Tree::Scalar(_) => self.unexpected(node, &Ty::Schedule),
        }
    }

    fn one_schedule(&mut self, node: &Node, text: &str) -> Option<Value> {
        if let Some(every) = text.strip_prefix("every ") {
            return match every.parse::<Span>() {
                Ok(span) if span.millis() > 0 => Some(json!({ "every": span })),
                Ok(_) => {
                    self.error(node.at, "a schedule cannot repeat every 0 s");
                    None
                }
                Err(error) => {
                    self.error(node.at, error.to_string());
                    None
                }
            };
        }
        match text {
            "@once" => Some(json!("once")),
            "@continuous" => Some(json!("continuous")),
            _ => Some(json!({ "cron": self.cron(node, text)? })),
        }
    }

    /// A cron expression or the preset of one.
    pub(super) fn cron(&mut self, node: &Node, text: &str) -> Option<String> {
        let text = text.trim();
        if text.starts_with('@') {
            if let Some((_, cron)) = PRESETS.iter().find(|(name, _)| *name == text) {
                return Some((*cron).to_owned());
            }
            let presets = || {
                let names = PRESETS.iter().map(|(name, _)| *name);
                names.chain(["@once", "@continuous"])
            };
            let message = match text {
                "@once" | "@continuous" => format!("{text} cannot be one of several schedules"),
                _ => format!("{} is no preset", short(text)),
            };
            let diagnostic = self.error(node.at, message);
            *diagnostic = diagnostic.clone().suggest(text, presets());
            diagnostic.expected = Some(format!(
                "Known presets: {}.",
                presets().collect::<Vec<_>>().join(", ")
            ));
            return None;
        }
        match timetable::check_cron(text) {
            Ok(()) => Some(text.split_whitespace().collect::<Vec<_>>().join(" ")),
            Err(problem) => {
                let message = format!(
                    "{} is no cron expression: {}",
                    short(text),
                    problem.trim_end_matches('.')
                );
                self.error(node.at, message).expected =
                    Some("write five fields (minute hour day month weekday), a preset such as @daily, or \"every 15m\".".to_owned());
                None
            }
        }
    }

    fn several(&mut self, node: &Node, items: &[Node]) -> Option<Value> {
        if items.is_empty() {
            self.error(
                node.at,
                "a schedule of several expressions needs at least one",
            );
        }
        let mut crons = self.value(node, &Ty::List(&Ty::Cron))?;
        match crons.as_array_mut() {
            Some(one) if one.len() == 1 => Some(json!({ "cron": one.pop()? })),
            Some(several) if !several.is_empty() => Some(json!({ "crons": crons })),
            _ => None,
        }
    }

    fn by_assets(&mut self, node: &Node) -> Option<Value> {
        let mut keys = self.object(node, &ASSET_SCHEDULE)?;
        let cron = keys.remove("cron").unwrap_or_else(|| json!([]));
        match self.one_of(node, keys) {
            Some(when) => Some(json!({ "assets": { "when": when, "cron": cron } })),
            None => {
                let given = |name: &str| match &node.tree {
                    Tree::Map(entries) => entries.iter().any(|entry| entry.key == name),
                    _ => false,
                };
                if !given("all") && !given("any") {
                    self.error(
                        node.at,
                        "a schedule by assets needs `all` or `any`, a list of assets",
                    );
                }
                None
            }
        }
    }

    /// `any` or `all`, whichever is there, as a condition.
    fn one_of(&mut self, node: &Node, mut keys: Map<String, Value>) -> Option<Value> {
        let (name, parts) = ["all", "any"]
            .into_iter()
            .find_map(|name| Some((name, keys.remove(name)?)))?;
        if parts.as_array().is_some_and(Vec::is_empty) {
            self.error(node.at, format!("`{name}` needs at least one asset"));
        }
        Some(json!({ name: parts }))
    }

    /// An asset's name, or `any` or `all` of such.
    pub(super) fn asset_condition(&mut self, node: &Node) -> Option<Value> {
        match &node.tree {
            Tree::Map(_) => {
                let keys = self.object(node, &ASSET_SCHEDULE)?;
                if keys.contains_key("cron") {
                    self.error(
                        node.at,
                        "`cron` stands beside the outermost `any` or `all` only",
                    );
                }
                let condition = self.one_of(node, keys);
                if condition.is_none() {
                    self.mismatch(node, &Ty::AssetCondition.expected());
                }
                condition
            }
            _ => self
                .value(node, &Ty::AssetName)
                .map(|name| json!({ "asset": name })),
        }
    }

    pub(super) fn asset_name(&mut self, node: &Node, text: &str) -> Option<Value> {
        let problem = match text.chars().count() {
            0 => "is empty".to_owned(),
            n if n > crate::asset::MAX_NAME => format!("has {n} characters"),
            _ if text.chars().any(char::is_control) => "has control characters".to_owned(),
            _ => return Some(json!(text)),
        };
        let most = crate::asset::MAX_NAME;
        let message = format!(
            "{} cannot name an asset: it {problem}; 1 to {most} printable characters can",
            short(text)
        );
        self.error(node.at, message);
        None
    }
}
