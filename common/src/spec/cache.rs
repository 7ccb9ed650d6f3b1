//! Results that are used again.

use super::TaskSpec;
use crate::span::Span;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Uses an earlier success of the same key in place of running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// A template.
    pub key: String,
    /// How long a success is good, from its end.
    #[serde(default = "day")]
    pub ttl: Span,
}

fn day() -> Span {
    Span::from_secs(86_400)
}

/// What the keys of XComs begin with that note under which key a success may be used again.
pub const CACHE_XCOM: &str = "cache:";

/// Names a result: by its DAG and task, the rendered key, an instance's map variables, and all that the task is made of
/// (its definition and the files it comes with), so that what was changed since is not used again.
pub fn cache_xcom(
    dag_id: &str,
    task: &TaskSpec,
    bundle: Option<&str>,
    map: Option<&Map<String, Value>>,
    key: &str,
) -> String {
    // What says how, when and where it runs does not change what comes of it.
    let definition = TaskSpec {
        depends_on: Vec::new(),
        retries: 0,
        retry_delay: Span::from_secs(0),
        priority_weight: 0,
        doc_md: None,
        cache: None,
        ..task.clone()
    };
    let parts = serde_json::json!([dag_id, definition, bundle, map, key]);
    let digest = Sha256::digest(parts.to_string().as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{CACHE_XCOM}{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_changes_the_result_changes_the_name() {
        let task = |json: Value| serde_json::from_value::<TaskSpec>(json).unwrap();
        let plain = task(json!({"task_id": "t", "shell": {"command": "make"}}));
        let of = |task: &TaskSpec, bundle, map: Option<Value>, key| {
            let map = map.and_then(|map| map.as_object().cloned());
            cache_xcom("d", task, bundle, map.as_ref(), key)
        };
        let name = of(&plain, Some("b"), None, "k");
        assert_eq!(name, of(&plain, Some("b"), None, "k"));
        assert!(name.starts_with(CACHE_XCOM));
        let slower = task(
            json!({"task_id": "t", "shell": {"command": "make"}, "retries": 3, "depends_on": ["a"]}),
        );
        assert_eq!(name, of(&slower, Some("b"), None, "k"));
        let other = task(json!({"task_id": "t", "shell": {"command": "make -B"}}));
        for different in [
            of(&other, Some("b"), None, "k"),
            of(&plain, Some("c"), None, "k"),
            of(&plain, None, None, "k"),
            of(&plain, Some("b"), Some(json!({"x": 1})), "k"),
            of(&plain, Some("b"), None, "l"),
            cache_xcom("e", &plain, Some("b"), None, "k"),
        ] {
            assert_ne!(name, different);
        }
    }
}
