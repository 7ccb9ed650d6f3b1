use super::*;
use crate::cpu_time::cpu_time;
use crate::spec::{DataPhase, ExpandSource, Schedule, TaskKind};
use crate::trigger_rule::TriggerRule;
use serde_json::json;

mod docs;
mod properties;
mod sub_dag;

fn ok(text: &str) -> DagSpec {
    let parsed = parse("test.yaml", text).unwrap_or_else(|problems| panic!("{}", lines(&problems)));
    assert_eq!(parsed.warnings, [], "{}", lines(&parsed.warnings));
    parsed.spec
}

fn lines(problems: &[Diagnostic]) -> String {
    problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect()
}

/// Every DAG file below a folder, sorted: (name, text).
fn folder(path: &str) -> Vec<(String, String)> {
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if is_dag_file_name(&name) {
                files.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn bad_files_say_everything_that_is_wrong() {
    let files = folder("src/dagfile/tests/bad");
    assert!(files.len() > 20);
    for (name, text) in files {
        let problems = match parse(&name, &text) {
            Ok(parsed) => panic!("{name} is taken: {:?}", parsed.spec),
            Err(problems) => problems,
        };
        assert!(
            problems
                .iter()
                .any(|problem| problem.severity == Severity::Error)
        );
        insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false, snapshot_path => "tests/bad"}, {
            insta::assert_snapshot!(name.as_str(), lines(&problems));
        });
    }
}

struct Examples;

impl Folder for Examples {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/dags");
        std::fs::read(folder.join(path)).map_err(|error| error.to_string())
    }
}

#[test]
fn every_example_is_right_and_without_warnings() {
    let files = folder("../examples/dags");
    assert!(files.len() >= 4);
    for (name, text) in files {
        match parse_in(&Examples, &name, &name, text.as_bytes()) {
            Ok(parsed) => assert_eq!(parsed.warnings, [], "{}", lines(&parsed.warnings)),
            Err(problems) => panic!("{}", lines(&problems)),
        }
    }
}

#[test]
fn the_design_s_example() {
    let spec = ok(include_str!("tests/daily_sales.yaml"));
    assert_eq!(spec.schedule, Schedule::Cron("0 2 * * *".into()));
    assert_eq!(spec.timezone, chrono_tz::Asia::Seoul);
    assert_eq!(
        spec.start_date.map(|d| d.to_rfc3339()).as_deref(),
        Some("2025-12-31T15:00:00+00:00")
    );
    let ids: Vec<&str> = spec
        .tasks
        .iter()
        .map(|task| task.task_id.as_str())
        .collect();
    assert_eq!(
        ids,
        [
            "fetch",
            "clean",
            "per_region",
            "totals.plan",
            "totals.part",
            "totals.commit",
            "done"
        ]
    );
    assert!(
        spec.tasks
            .iter()
            .all(|task| task.retries == 2 && task.retry_delay.millis() == 30_000)
    );
    let task = |id: &str| &spec.tasks[spec.idx(id).unwrap() as usize];
    assert_eq!(task("done").depends_on, ["totals.commit"]);
    assert_eq!(task("done").trigger_rule, TriggerRule::AllDone);
    assert_eq!(task("totals.part").depends_on, ["totals.plan"]);
    let partitions = ExpandSource::Template("{{ ti.xcom_pull('totals.plan').partitions }}".into());
    assert_eq!(
        task("totals.part").expand,
        Some([("partition".to_owned(), partitions)].into())
    );
    match &task("totals.commit").kind {
        TaskKind::Data(data) => {
            assert_eq!(data.phase, DataPhase::Commit);
            assert_eq!(data.partitions.target, Some(128 << 20));
            // Dispatched with what the other phases returned, although no template pulls it.
            let pulls = crate::template::task_references(task("totals.commit")).xcom_pulls;
            let expected =
                ["totals.part", "totals.plan"].map(|id| (id.to_owned(), "return_value".to_owned()));
            assert!(
                expected.iter().all(|pull| pulls.contains(pull)),
                "{pulls:?}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn shorthands_and_defaults() {
    let spec = ok(
        "dag_id: d\ndefault_args: {retries: 3, env: {A: 1, B: 0755}, queue: big}\ntasks:\n  a: {shell: echo}\n  b: {http: 'http://x/{{ ds }}', retries: 0}\n  c: {empty: }\n  \
         d: {noop: {}, depends_on: a}\n  e: {shell: {command: 'x', skip_on_exit_code: null}, env: {A: true}, depends_on: [d, b]}",
    );
    let json =
        |id: &str| serde_json::to_value(&spec.tasks[spec.idx(id).unwrap() as usize]).unwrap();
    assert_eq!(json("a")["env"], json!({"A": "1", "B": "0755"}));
    assert_eq!(json("a")["shell"]["skip_on_exit_code"], 99);
    assert_eq!(json("b")["retries"], 0);
    assert_eq!(json("b").get("env"), None);
    assert_eq!(json("e")["env"], json!({"A": "true", "B": "0755"}));
    assert_eq!(json("e")["shell"]["skip_on_exit_code"], json!(null));
    assert_eq!(json("e")["depends_on"], json!(["b", "d"]));
    assert_eq!(json("d")["queue"], "big");
}

#[test]
fn groups_are_flattened() {
    let spec = ok(include_str!("tests/groups.yaml"));
    let edges: Vec<String> = spec
        .tasks
        .iter()
        .map(|task| format!("{} <- {}", task.task_id, task.depends_on.join(" ")))
        .collect();
    insta::assert_snapshot!(edges.join("\n"));
    let first = &spec.tasks[spec.idx("etl.load.b").unwrap() as usize];
    assert_eq!(first.retries, 2, "of the inner group's default_args");
    assert_eq!(
        first.env["X"],
        "{{ ti.xcom_pull('etl.load.a') }} {{ ti.xcom_pull('start') }}"
    );
    assert_eq!(
        first.env["Y"],
        "{{ ti.xcom_pull(['etl.load.a', 'etl.sum.commit'], key='k') }}"
    );
}

#[test]
fn a_pull_of_a_data_task_is_of_its_commit() {
    let spec = ok(
        "dag_id: d\ntasks:\n  t: {data: {sources: {x: {format: csv, path: p}}, map_sql: SELECT 1}}\n  \
                   u: {depends_on: [t], shell: \"echo {{ ti.xcom_pull('t').rows }} {{ ti.xcom_pull(task_ids='t.plan') }}\"}",
    );
    match &spec.tasks[3].kind {
        TaskKind::Shell(shell) => {
            assert_eq!(
                shell.command,
                "echo {{ ti.xcom_pull('t.commit').rows }} {{ ti.xcom_pull(task_ids='t.plan') }}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn yaml_1_2_has_no_surprising_booleans() {
    let spec = ok(
        "dag_id: on\nowner: no\ntags: [yes, 'null', 2026-01-01]\ntasks:\n  off: {shell: 'true'}\n",
    );
    assert_eq!(
        (spec.dag_id.as_str(), spec.owner.as_deref()),
        ("on", Some("no"))
    );
    assert_eq!(spec.tags, ["yes", "null", "2026-01-01"]);
    assert_eq!(spec.tasks[0].task_id, "off");
}

#[test]
fn small_aliases_are_fine() {
    let spec = ok("dag_id: d\ntasks:\n  a: &t {shell: echo, retries: 1}\n  b: *t\n");
    assert_eq!(spec.tasks[1].retries, 1);
}

#[test]
fn json_is_named_by_pointers() {
    let problems = parse_json(
        &json!({"dag_id": "d", "tasks": {"a/b": {"shell": 5, "retrys": 1}, "c": {"shell": "{{ dss }}"}}}),
    );
    insta::assert_snapshot!(lines(&problems.unwrap_err()));
}

#[test]
fn what_is_too_large_is_refused_at_once() {
    let text = "x".repeat(10_000_000);
    let started = cpu_time();
    let problems = parse("big.yaml", &text).unwrap_err();
    assert!((cpu_time() - started).as_millis() < 100);
    assert_eq!(
        lines(&problems),
        "big.yaml: the file has 10000000 bytes; a DAG file has at most 1048576\n"
    );
    let tasks: String = (0..10_001)
        .map(|i| format!("  t{i}: {{empty: }}\n"))
        .collect();
    let problems = parse("many.yaml", &format!("dag_id: d\ntasks:\n{tasks}")).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.contains("at most 10000 tasks"));
    assert!(
        lines(&parse_bytes("b.yaml", b"a: \xff").unwrap_err()).contains("not UTF-8: the byte at 3")
    );
}

#[test]
fn the_widest_dag_is_read_in_good_time() {
    let tasks: String = (1..10_000)
        .map(|i| {
            format!(
                "  t{i}: {{shell: 'x {{{{ ti.xcom_pull(\"t{}\") }}}}', depends_on: [t{}]}}\n",
                i - 1,
                i - 1
            )
        })
        .collect();
    let text = format!("dag_id: d\ntasks:\n  t0: {{shell: x}}\n{tasks}");
    let spec = ok(&text);
    assert_eq!(spec.tasks.len(), 10_000);
}

#[test]
fn only_real_changes_change_the_hash() {
    let one = ok(
        "dag_id: d\ntasks:\n  a: {shell: echo}\n  b: {empty: , depends_on: [a, c]}\n  c: {empty: }\n",
    );
    let same = ok(
        "# a comment\ntasks:\n  c: {empty: {}}\n  b: {depends_on: [c, a], empty: {}}\n  a:\n    retries: 0\n    shell: {command: echo}\ndag_id: d\nschedule: null\n",
    );
    let other = ok(
        "dag_id: d\ntasks:\n  a: {shell: echo}\n  b: {empty: , depends_on: [a]}\n  c: {empty: }\n",
    );
    assert_eq!(one, same);
    assert_eq!(spec_hash(&one), spec_hash(&same));
    assert_ne!(spec_hash(&one), spec_hash(&other));
    assert_eq!(spec_hash(&one).len(), 64);
}

#[test]
fn file_names() {
    for name in ["a.yaml", "b.yml", "dags/c.dag.json"] {
        assert!(is_dag_file_name(name), "{name}");
    }
    for name in [
        "a.json",
        ".a.yaml",
        "_a.yaml",
        ".yaml",
        "a.yaml.swp",
        "yaml",
        "dags/.x.yml",
    ] {
        assert!(!is_dag_file_name(name), "{name}");
    }
}

#[test]
fn hostile_files_are_refused_in_good_time() {
    let n = MAX_FILE_BYTES / 8;
    for unit in [
        "[", "{", "- ", "? ", "&a ", "a: ", "\"", "!", "*", "[{", "|\n", "\n ", "{{ ",
    ] {
        let started = cpu_time();
        assert!(parse("x.yaml", &unit.repeat(n)).is_err(), "{unit:?}");
        assert!(
            (cpu_time() - started).as_secs() < 5,
            "{unit:?} took {:?}",
            cpu_time() - started
        );
        let template =
            json!({"dag_id": "d", "tasks": {"a": {"shell": format!("{{{{ {}", unit.repeat(n))}}});
        assert!(parse_json(&template).is_err(), "{unit:?}");
        assert!(
            (cpu_time() - started).as_secs() < 10,
            "{unit:?} took {:?}",
            cpu_time() - started
        );
    }
    for template in [
        "(".repeat(n),
        "not ".repeat(n),
        "-".repeat(n),
        "[".repeat(n),
        "a.".repeat(n),
        "a|b".repeat(n),
        "1+".repeat(n) + "1",
        "a if ".repeat(n),
    ] {
        let _ = parse_json(
            &json!({"dag_id": "d", "tasks": {"a": {"shell": format!("{{{{ {template} }}}}")}}}),
        );
    }
}
