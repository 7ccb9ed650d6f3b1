//! Files that tasks leave for others.

use crate::encode_segment;
use serde::{Deserialize, Serialize};

/// Files of one task instance at most.
pub const MAX_FILES: usize = 1000;
/// Bytes of one task instance's files, all together.
pub const MAX_BYTES: u64 = 1 << 30;

/// One file, as the XCom `artifacts` of its task lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its path below the attempt's folder, with `/`.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// Key of the object that holds it.
    pub object: String,
    /// Of which instance of a mapped task; absent: the task is not mapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_index: Option<i32>,
}

/// The object's key. It carries the fence: a stale attempt can never overwrite a newer one's file.
pub fn key(run: i64, ti: i64, fence: i64, name: &str) -> String {
    let parts: Vec<String> = name.split('/').map(encode_segment).collect();
    format!(
        "{}/ti={ti}/fence={fence}/{}",
        run_prefix(run),
        parts.join("/")
    )
}

/// What all files of a run begin with: for retention.
pub fn run_prefix(run: i64) -> String {
    format!("artifacts/run={run}")
}

/// Every file in the value of a task's XCom `artifacts`; of a mapped task it is a list of its instances' lists.
pub fn listed(value: &serde_json::Value) -> Vec<Artifact> {
    let Some(items) = value.as_array() else {
        return Vec::new();
    };
    let one = |item: &serde_json::Value| -> Vec<Artifact> {
        match item.is_array() {
            true => listed(item),
            false => Artifact::deserialize(item).into_iter().collect(),
        }
    };
    items.iter().flat_map(one).collect()
}

/// Whether a name may be one of a file: it stays below the folder that it is put into.
pub fn is_inside(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['\0', '\\'])
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_keep_names_apart() {
        assert_eq!(
            key(1, 2, 3, "plots/a b.png"),
            "artifacts/run=1/ti=2/fence=3/plots/a%20b.png"
        );
    }

    #[test]
    fn lists_of_mapped_tasks_are_flattened() {
        let file = |name: &str| json!({"name": name, "size": 1, "object": "o"});
        let names = |value: serde_json::Value| -> Vec<String> {
            listed(&value).into_iter().map(|file| file.name).collect()
        };
        assert_eq!(names(json!([file("a"), file("b")])), ["a", "b"]);
        assert_eq!(
            names(json!([[file("a")], null, [], [file("b")]])),
            ["a", "b"]
        );
        assert_eq!(names(json!(null)), [""; 0]);
    }

    #[test]
    fn names_stay_inside() {
        for name in ["a", "a/b.csv", "..a", ".hidden"] {
            assert!(is_inside(name), "{name}");
        }
        for name in ["", "/a", "a/", "a//b", "../a", "a/../../b", ".", "a\\b"] {
            assert!(!is_inside(name), "{name}");
        }
    }
}
