//! For any file: reading never panics; what is read can be written and read again; the order is topological.

use super::*;
use crate::graph::Graph;
use proptest::prelude::*;

fn task(i: usize) -> impl Strategy<Value = Value> {
    let kind = prop_oneof![
        "[a-z ]{1,12}".prop_map(|command| json!({"shell": format!("x{command}")})),
        Just(json!({"empty": null})),
        Just(json!({"noop": {}})),
        (0u16..3).prop_map(|n| json!({"http": {"url": "http://x", "query": {"n": n}, "json": {"a": [n, "{{ ds }}"]}, "expect": {"status": 200}}})),
        (1u32..4).prop_map(|n| json!({"data": {
            "sources": {"t": {"format": "csv", "path": "p", "header": true}}, "map_sql": "SELECT {{ ds }}",
            "partitions": {"n": n}, "sink": {"format": "parquet", "path": "o"},
        }})),
        Just(json!({"shell": {"command": "x", "output": "json", "resources": {"memory": "1GiB"}}, "expand": {"v": [1, "a", null]}, "env": {"V": "{{ map.v }}"}})),
        Just(json!({"noop": {}, "expand_zip": {"v": [1, 2], "w": ["a", {"b": 3}]}, "map_index_template": "{{ map.v }}"})),
        Just(json!({"shell": "{{ map.any }}", "expand_kwargs": "{{ [{'any': params.n}] }}"})),
        Just(json!({"shell": "{{ map.a }}", "expand_kwargs": [{"a": 1}, {"a": null}]})),
        Just(json!({"group": {"expand": {"v": "{{ params.n }}", "w": [1]}, "tasks": {
            "p": {"shell": "{{ map.v }}"},
            "h": {"group": {"tasks": {"q": {"shell": "{{ map.w }} {{ ti.xcom_pull('p') }}"}}}, "depends_on": ["p"]},
        }}})),
        Just(json!({"group": {"default_args": {"retries": 4}, "tasks": {"p": {"shell": "x"}, "q": {"empty": {}, "depends_on": ["p"]}}}})),
    ];
    let upstream = proptest::collection::vec(0..i.max(1), 0..3);
    (kind, upstream, 0usize..13, 0u32..5, any::<bool>()).prop_map(
        move |(mut task, upstream, rule, retries, deep)| {
            let mut upstream: Vec<String> = upstream
                .into_iter()
                .filter(|u| *u < i)
                .map(|u| format!("t{u}"))
                .collect();
            upstream.sort();
            upstream.dedup();
            task["depends_on"] = json!(upstream);
            if task.get("group").is_none() {
                task["trigger_rule"] = json!(TriggerRule::ALL[rule].1);
                task["retries"] = json!(retries);
                if deep {
                    task["max_retry_delay"] = json!("1h");
                    task["execution_timeout"] = json!(90);
                    task["weight_rule"] = json!("absolute");
                    task["doc_md"] = json!("text");
                    task["depends_on_past"] = json!(true);
                    task["inlets"] = json!("raw");
                    task["outlets"] = json!(["orders", {"name": "prices", "uri": "s3://lake/p", "extra": {"a": "b"}}]);
                }
            }
            task
        },
    )
}

fn dag() -> impl Strategy<Value = Value> {
    let schedule = prop_oneof![
        Just(json!(null)),
        Just(json!("@daily")),
        Just(json!("*/5 1 * * MON")),
        Just(json!("every 15m")),
        Just(json!("@once")),
        Just(json!("@continuous")),
        Just(json!(["@daily", "0 5 * * 0"])),
        Just(json!({"any": ["orders", {"all": ["prices", "s3://lake/rates"]}], "cron": "@weekly"})),
    ];
    let tasks = (1usize..8).prop_flat_map(|n| (0..n).map(task).collect::<Vec<_>>());
    (schedule, tasks, any::<bool>()).prop_map(|(schedule, tasks, catchup)| {
        let tasks: serde_json::Map<String, Value> =
            tasks.into_iter().enumerate().map(|(i, task)| (format!("t{i}"), task)).collect();
        json!({
            "dag_id": "d", "schedule": schedule, "catchup": catchup, "timezone": "Asia/Seoul", "start_date": "2026-01-01",
            "params": {"n": 5, "s": {"type": ["string", "null"], "default": null}}, "tags": ["x"], "dagrun_timeout": "1d12h",
            "tasks": tasks,
        })
    })
}

proptest! {
    #[test]
    fn a_specification_written_out_reads_the_same(dag in dag()) {
        let spec = parse_json(&dag).map_err(|problems| TestCaseError::fail(lines(&problems)))?.spec;
        let written = to_json(&spec);
        let again = parse_json(&written).map_err(|problems| TestCaseError::fail(lines(&problems)))?.spec;
        prop_assert_eq!(&again, &spec);
        prop_assert_eq!(spec_hash(&again), spec_hash(&spec));
        prop_assert_eq!(to_json(&again), written);
        // The same as the database stores it, and as YAML reads JSON.
        let stored: DagSpec = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
        prop_assert_eq!(&stored, &spec);
        let yaml = parse("d.yaml", &serde_json::to_string_pretty(&dag).unwrap()).map_err(|problems| TestCaseError::fail(lines(&problems)))?;
        prop_assert_eq!(&yaml.spec, &spec);
    }

    #[test]
    fn tasks_follow_their_upstreams(dag in dag()) {
        let spec = parse_json(&dag).map_err(|problems| TestCaseError::fail(lines(&problems)))?.spec;
        let graph = Graph::of(&spec);
        for (i, task) in (0..).zip(&spec.tasks) {
            prop_assert!(graph.upstream(i).iter().all(|up| *up < i));
            prop_assert_eq!(graph.upstream(i).len(), task.depends_on.len());
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse_bytes("x.yaml", &bytes);
    }

    #[test]
    fn no_yaml_like_text_panics(text in r##"(dag_id|tasks|a|shell|expand|\{\{|\}\}|\{%|[\-:\[\]{},&*!|>'"#%@ \n?0-9éx]){0,60}"##) {
        let _ = parse("x.yaml", &text);
    }

    #[test]
    fn no_damage_to_a_good_file_panics(at in 0usize..2_000, with in ".{0,3}", cut in 0usize..20) {
        let mut text: Vec<char> = include_str!("daily_sales.yaml").chars().collect();
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        text.splice(at..end, with.chars());
        if let Err(problems) = parse("x.yaml", &text.into_iter().collect::<String>()) {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn no_template_panics(text in r##"(\{\{|\}\}|\{%|%\}|ti\.xcom_pull|params|\('a'\)|for|in|if|set|end|[ .|=\[\]'"a-z0-9é\n-]){0,25}"##) {
        let _ = parse_json(&json!({"dag_id": "d", "tasks": {"a": {"shell": "x"}, "t": {"depends_on": ["a"], "shell": text}}}));
    }
}
