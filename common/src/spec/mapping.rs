//! What a mapped task, or a mapped group, runs over.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A list to run over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ExpandSource {
    Literal(Vec<Value>),
    /// A template that is exactly one `{{ … }}` and yields a list.
    Template(String),
}

/// How a task or a group is mapped: which map variables each of its instances sees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mapping<'s> {
    /// `expand`: every combination of the lists' items.
    Product(&'s BTreeMap<String, ExpandSource>),
    /// `expand_zip`: the lists side by side.
    Zip(&'s BTreeMap<String, ExpandSource>),
    /// `expand_kwargs`: each item is a mapping of variables.
    Items(&'s ExpandSource),
}

/// What all tasks of a mapped group run over, item by item. At most one of the three is present.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MappedGroup {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expand: Option<BTreeMap<String, ExpandSource>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expand_zip: Option<BTreeMap<String, ExpandSource>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expand_kwargs: Option<ExpandSource>,
}

impl MappedGroup {
    /// How it is mapped.
    pub fn mapping(&self) -> Option<Mapping<'_>> {
        Mapping::of(
            self.expand.as_ref(),
            self.expand_zip.as_ref(),
            self.expand_kwargs.as_ref(),
        )
    }
}

impl<'s> Mapping<'s> {
    pub(super) fn of(
        expand: Option<&'s BTreeMap<String, ExpandSource>>,
        zip: Option<&'s BTreeMap<String, ExpandSource>>,
        items: Option<&'s ExpandSource>,
    ) -> Option<Self> {
        let product = expand.map(Self::Product);
        product
            .or_else(|| zip.map(Self::Zip))
            .or_else(|| items.map(Self::Items))
    }

    /// The key of the DAG file that says it.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Product(_) => "expand",
            Self::Zip(_) => "expand_zip",
            Self::Items(_) => "expand_kwargs",
        }
    }

    /// The templates among the lists that it is made of.
    pub fn templates(self) -> impl Iterator<Item = &'s str> {
        self.sources()
            .into_iter()
            .filter_map(|source| match source {
                ExpandSource::Template(text) => Some(text.as_str()),
                ExpandSource::Literal(_) => None,
            })
    }

    /// The lists that it is made of.
    pub fn sources(&self) -> Vec<&'s ExpandSource> {
        match self {
            Self::Product(lists) | Self::Zip(lists) => lists.values().collect(),
            Self::Items(list) => vec![list],
        }
    }
}
