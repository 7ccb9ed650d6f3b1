//! Other DAG files, composed in.

use super::*;
use std::collections::BTreeMap;

struct Files(BTreeMap<&'static str, &'static str>);

impl Folder for Files {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        let text = self.0.get(path).ok_or("there is no such file")?;
        Ok(text.as_bytes().to_vec())
    }
}

fn read(files: &[(&'static str, &'static str)]) -> Result<Parsed, Vec<Diagnostic>> {
    let (path, text) = files[0];
    let folder = Files(files.iter().copied().collect());
    parse_in(&folder, path, path, text.as_bytes())
}

fn problems(files: &[(&'static str, &'static str)]) -> String {
    lines(&read(files).unwrap_err())
}

const LOAD: (&str, &str) = (
    "parts/load.yaml",
    "dag_id: load
schedule: '@daily'
params: {region: {type: string, enum: [eu, us], default: eu}, rows: {type: integer, default: 10}, tags: [a, null]}
default_args: {retries: 4, queue: 'loads-{{ params.region }}'}
tasks:
  fetch: {shell: 'echo {{ params.region }} {{ params.rows + 1 }}', env: {ALL: '{{ params | tojson }}'}}
  each:
    depends_on: [fetch]
    expand: {tag: '{{ params.tags }}'}
    shell: 'echo {{ map.tag }} {{ ti.xcom_pull(\"fetch\") }}'
",
);

#[test]
fn its_tasks_are_members_with_the_values_given() {
    let main = (
        "main.yaml",
        "dag_id: main
params: {where: us}
default_args: {retries: 1, pool: other}
tasks:
  first: {empty: {}}
  load:
    depends_on: [first]
    sub_dag: {file: parts/load.yaml, params: {region: '{{ params.where }}', tags: [1, \"it's\"]}}
  last: {depends_on: [load], empty: {}}
",
    );
    let spec = read(&[main, LOAD]).unwrap().spec;
    let ids: Vec<&str> = spec.tasks.iter().map(|t| t.task_id.as_str()).collect();
    assert_eq!(ids, ["first", "load.fetch", "load.each", "last"]);
    let fetch = &spec.tasks[1];
    assert_eq!(fetch.depends_on, ["first"]);
    assert_eq!(spec.tasks[3].depends_on, ["load.each"]);
    // Its own defaults, none from around it.
    assert_eq!((fetch.retries, fetch.pool.as_str()), (4, "default_pool"));
    let mut context = crate::template::TemplateContext::example("main", "load.fetch");
    context.params = json!({"where": "us"}).as_object().unwrap().clone();
    let renderer = crate::template::Renderer::new(context);
    let TaskKind::Shell(shell) = &fetch.kind else {
        panic!("{fetch:?}");
    };
    assert_eq!(renderer.render(&shell.command).unwrap(), "echo us 11");
    assert_eq!(renderer.render(&fetch.queue).unwrap(), "loads-us");
    let all: Value = serde_json::from_str(&renderer.render(&fetch.env["ALL"]).unwrap()).unwrap();
    assert_eq!(
        all,
        json!({"region": "us", "rows": 10, "tags": [1, "it's"]})
    );
    let Some(crate::spec::Mapping::Product(lists)) = spec.tasks[2].mapping() else {
        panic!("{:?}", spec.tasks[2]);
    };
    let ExpandSource::Template(list) = &lists["tag"] else {
        panic!("{lists:?}");
    };
    assert_eq!(renderer.render_native(list).unwrap(), json!([1, "it's"]));
    // What it is composed of is its version: another value, another hash.
    let (name, text) = LOAD;
    let changed: &'static str = text.replace("+ 1", "+ 2").leak();
    let other = read(&[main, (name, changed)]).unwrap().spec;
    assert_ne!(spec_hash(&spec), spec_hash(&other));
    // Written out, it is a DAG like any other.
    assert_eq!(parse_json(&to_json(&spec)).unwrap().spec, spec);
}

#[test]
fn files_in_files_are_found_from_where_they_stand() {
    let spec = read(&[
        ("main.yaml", "dag_id: m\nparams: {x: 5}\ntasks: {a: {sub_dag: {file: in/a.yaml, params: {y: '{{ params.x }}'}}}}"),
        ("in/a.yaml", "dag_id: a\nparams: {y: 1}\ntasks: {b: {sub_dag: {file: ../b.yaml, params: {z: '{{ params.y * 2 }}'}}}}"),
        ("b.yaml", "dag_id: b\nparams: {z: 1}\ntasks: {c: {shell: 'echo {{ params.z }}'}}"),
    ])
    .unwrap()
    .spec;
    assert_eq!(spec.tasks[0].task_id, "a.b.c");
    let mut context = crate::template::TemplateContext::example("m", "a.b.c");
    context.params = json!({"x": 5}).as_object().unwrap().clone();
    let TaskKind::Shell(shell) = &spec.tasks[0].kind else {
        panic!()
    };
    let rendered = crate::template::Renderer::new(context).render(&shell.command);
    assert_eq!(rendered.unwrap(), "echo 10");
}

#[test]
fn what_cannot_be_composed_is_told() {
    let main = |sub: &str| -> (&'static str, &'static str) {
        let text = format!(
            "dag_id: m\ntasks:\n  t: {{shell: 'true'}}\n  a: {{depends_on: [t], sub_dag: {sub}}}\n  b: {{depends_on: [a], empty: {{}}}}\n"
        );
        ("main.yaml", text.leak())
    };
    let bad = (
        "bad.yaml",
        "dag_id: bad\ntasks: {t: {shel: x}, u: {pool: 1}}",
    );
    let needs = (
        "needs.yaml",
        "dag_id: n\nparams: {n: {type: integer}}\ntasks: {t: {shell: 'echo {{ params.n }}'}}",
    );
    for (sub, words) in [
        (
            "gone.yaml",
            "main.yaml:4:33: tasks.a.sub_dag.file: cannot read \"gone.yaml\": there is no such file",
        ),
        (
            "main.yaml",
            "tasks.a.sub_dag.file: the files are in each other: main.yaml → main.yaml",
        ),
        (
            "../main.yaml",
            "the file \"../main.yaml\" is not within the folder that is deployed",
        ),
        ("/etc/passwd", "is not within the folder"),
        ("bad.yaml", "the file is not right by itself: bad.yaml:2:"),
        ("needs.yaml", "tasks.a.sub_dag.params: params.n: "),
        (
            "{file: needs.yaml, params: {n: five}}",
            "params.n: \"five\" is not of type",
        ),
        ("{file: needs.yaml, params: {n: 1, m: 2}}", "params.m: "),
        (
            "{file: needs.yaml, params: {n: '1{{ ds }}'}}",
            "has to be exactly one `{{ … }}`",
        ),
        (
            "{file: needs.yaml, params: {n: '{{ params.nobody }}'}}",
            "params.nobody",
        ),
        (
            "{file: needs.yaml, params: {n: \"{{ ti.xcom_pull('t') }}\"}}",
            "a task of the file has the name \"t\" too",
        ),
    ] {
        let told = problems(&[main(sub), bad, needs]);
        assert!(told.contains(words), "{sub}: {told}");
    }
    // A circle through another file, from the file where it is closed.
    let told = problems(&[
        main("{file: x.yaml}"),
        ("x.yaml", "dag_id: x\ntasks: {back: {sub_dag: main.yaml}}"),
    ]);
    assert!(
        told.contains("the files are in each other: main.yaml → x.yaml → main.yaml"),
        "{told}"
    );
    let alone = parse("alone.yaml", main("x.yaml").1).unwrap_err();
    assert!(
        lines(&alone).contains("came alone: deploy the folder"),
        "{}",
        lines(&alone)
    );
    let retries = problems(&[main("needs.yaml, retries: 2, expand: {x: [1]}"), needs]);
    assert!(
        retries.contains("`retries` has no meaning on a group"),
        "{retries}"
    );
}
