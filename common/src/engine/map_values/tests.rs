use super::*;
use crate::{
    spec::TaskSpec,
    template::{TemplateContext, XComMap},
};
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;

fn values(mapping: Value, list: Value) -> Result<Vec<Value>, String> {
    let mut spec = json!({"task_id": "m", "noop": {}});
    spec.as_object_mut()
        .unwrap()
        .extend(mapping.as_object().unwrap().clone());
    let task: TaskSpec = serde_json::from_value(spec).unwrap();
    let mut context = TemplateContext::example("d", "m");
    let key = ("list".to_owned(), "return_value".to_owned());
    context.xcoms = Arc::new(XComMap([(key, list)].into()));
    let values = map_values("m", task.mapping().unwrap(), &Renderer::new(context))?;
    Ok(values.into_iter().map(Value::Object).collect())
}

const PULL: &str = "{{ ti.xcom_pull('list') }}";

#[test]
fn a_product_moves_the_last_variable_fastest() {
    let found = values(
        json!({"expand": {"a": [1, 2], "b": PULL}}),
        json!({"x": 1, "y": 2}),
    );
    let (x, y) = (
        json!({"key": "x", "value": 1}),
        json!({"key": "y", "value": 2}),
    );
    assert_eq!(
        found.unwrap(),
        [
            json!({"a": 1, "b": x}),
            json!({"a": 1, "b": y}),
            json!({"a": 2, "b": x}),
            json!({"a": 2, "b": y})
        ]
    );
}

#[test]
fn lists_side_by_side_are_equally_long() {
    let zip = json!({"expand_zip": {"a": ["p", "q"], "b": PULL}});
    assert_eq!(
        values(zip.clone(), json!([1, 2])).unwrap(),
        [json!({"a": "p", "b": 1}), json!({"a": "q", "b": 2})]
    );
    let error = values(zip.clone(), json!([1, 2, 3])).unwrap_err();
    assert!(
        error.starts_with(
            "task m: expand_zip: the lists have different lengths (a has 2, b has 3): "
        ),
        "{error}"
    );
    // An empty list beside one that is not is a difference too.
    assert!(values(zip, json!([])).is_err());
    let none = json!({"expand_zip": {"a": [], "b": PULL}});
    assert!(values(none, json!([])).unwrap().is_empty());
}

#[test]
fn mappings_are_the_variables() {
    let items = json!([{"a": 1}, {"a": 2, "b": "x"}]);
    for mapping in [
        json!({ "expand_kwargs": items }),
        json!({ "expand_kwargs": PULL }),
    ] {
        assert_eq!(json!(values(mapping, items.clone()).unwrap()), items);
    }
}

#[test]
fn what_does_not_fit_is_named_with_its_type() {
    let product = json!({"expand": {"x": PULL}});
    let zip = json!({"expand_zip": {"x": PULL}});
    let items = json!({ "expand_kwargs": PULL });
    for (mapping, list, wanted) in [
        (
            &product,
            json!(5),
            "task m: expand.x: expected a list, got a number: 5",
        ),
        (
            &product,
            json!("abc"),
            "task m: expand.x: expected a list, got a text: \"abc\"",
        ),
        (
            &product,
            json!(null),
            "task m: expand.x: expected a list, got nothing (null)",
        ),
        (
            &zip,
            json!(true),
            "task m: expand_zip.x: expected a list, got a boolean: true",
        ),
        (
            &items,
            json!({"a": 1}),
            "task m: expand_kwargs: expected a list, got a mapping: {\"a\":1}",
        ),
        (
            &items,
            json!([{"a": 1}, [2]]),
            "task m: expand_kwargs[1]: expected a mapping of map variables, got a list: [2]",
        ),
    ] {
        assert_eq!(values(mapping.clone(), list).unwrap_err(), wanted);
    }
}

#[test]
fn bounds_hold_for_every_kind() {
    let long: Vec<usize> = (0..=MAX_MAP_LENGTH).collect();
    let large = vec!["v".repeat(MAX_MAP_BYTES / 4); 5];
    for key in ["expand", "expand_zip"] {
        let mapping = json!({ key: {"x": PULL} });
        let error = values(mapping.clone(), json!(long)).unwrap_err();
        assert!(error.contains("at most 100000"), "{error}");
        let error = values(mapping, json!(large)).unwrap_err();
        assert!(error.contains("bytes of map values"), "{error}");
    }
    let mapping = json!({ "expand_kwargs": PULL });
    assert!(values(mapping.clone(), json!(long)).is_err());
    let large: Vec<Value> = large.into_iter().map(|v| json!({ "x": v })).collect();
    let error = values(mapping, json!(large)).unwrap_err();
    assert!(error.contains("bytes of map values"), "{error}");
}

proptest! {
    /// Zipping the columns of any table gives its rows, which `expand_kwargs` takes as they are.
    #[test]
    fn zip_and_items_agree(rows in proptest::collection::vec((0..9i32, "[a-z]{0,3}"), 0..20)) {
        let a: Vec<_> = rows.iter().map(|row| row.0).collect();
        let b: Vec<_> = rows.iter().map(|row| row.1.clone()).collect();
        let items: Vec<_> = rows.iter().map(|row| json!({"a": row.0, "b": row.1})).collect();
        let zipped = values(json!({"expand_zip": {"a": a, "b": b}}), json!(null)).unwrap();
        prop_assert_eq!(&zipped, &items);
        prop_assert_eq!(&zipped, &values(json!({"expand_kwargs": items}), json!(null)).unwrap());
    }
}
