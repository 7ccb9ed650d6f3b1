use super::*;
use rstest::rstest;
use serde_json::json;

fn context() -> TemplateContext {
    let object = |value: Value| value.as_object().cloned().unwrap_or_default();
    let xcoms = [
        (
            ("clean".to_owned(), "return_value".to_owned()),
            json!({"path": "/data/x y", "rows": 3}),
        ),
        (("clean".to_owned(), "list".to_owned()), json!([1, 2])),
        (
            ("mapped".to_owned(), "return_value".to_owned()),
            json!(["a", "b", "c"]),
        ),
    ];
    TemplateContext {
        conf: json!({"force": true, "who": "O'Neil"}),
        params: object(json!({"country": "kr", "n": 3, "names": ["x", "y"]})),
        asset_events: object(json!({"orders": [{"source_dag_id": "load", "extra": {"rows": 4}}]})),
        map: object(json!({"region": {"id": 7}})),
        map_index: 2,
        vars: object(json!({"bucket": "lake", "cfg": "{\"a\": [1, 2]}", "bad": "{"})),
        conns: object(
            json!({"shop": {"host": "shop.example", "port": 443, "extra": "{\"token\": \"t\"}"}}),
        ),
        xcoms: Arc::new(XComMap(HashMap::from(xcoms))),
        ..TemplateContext::example("sales", "totals")
    }
}

#[rstest]
#[case("plain { } text", "plain { } text")]
#[case(
    "{{ ds }} {{ ds_nodash }} {{ ts }} {{ ts_nodash }}",
    "2026-01-01 20260101 2026-01-01T00:00:00+00:00 20260101T000000"
)]
#[case(
    "{{ logical_date }}|{{ logical_date | ds }}",
    "2026-01-01 00:00:00+00:00|2026-01-01"
)]
#[case(
    "{% for name, events in triggering_asset_events | items %}{{ name }} {{ events[0].extra.rows }} {{ events[0].source_dag_id }}{% endfor %}",
    "orders 4 load"
)]
#[case("{{ triggering_asset_events['orders'] | length }}", "1")]
#[case("{{ data_interval_end.strftime('%Y/%m/%d') }}", "2026/01/02")]
#[case(
    "{{ logical_date.subtract(days=1, hours=2) | ts }}",
    "2025-12-30T22:00:00+00:00"
)]
#[case(
    "{{ logical_date.in_timezone('Asia/Seoul') }}",
    "2026-01-01T09:00:00+09:00"
)]
#[case("{{ data_interval_end > data_interval_start }}", "True")]
#[case(
    "{{ macros.ds_add(ds, -5) }} {{ macros.ds_format(ds, '%Y-%m-%d', '%d.%m.%y') }}",
    "2025-12-27 01.01.26"
)]
#[case(
    "{{ macros.datetime(2026, 2, 3).weekday() }} {{ macros.uuid5('a') == macros.uuid5('a') }}",
    "1 True"
)]
#[case(
    "{{ run_id }} {{ dag_run.run_id }} {{ dag_run.run_type }}",
    "manual__2026-01-01T00:00:00+00:00 manual__2026-01-01T00:00:00+00:00 manual"
)]
#[case(
    "{{ dag.dag_id }}.{{ task.task_id }} {{ ti.task_id }} {{ ti.try_number }} {{ ti.map_index }}",
    "sales.totals totals 1 2"
)]
#[case(
    "{{ dag_run.conf.get('x', 'none given') }} {{ dag_run.conf.force }}",
    "none given True"
)]
#[case(
    "{{ params.country.upper() }} {{ params['n'] + 1 }} {{ params.names | join(',') }}",
    "KR 4 x,y"
)]
#[case("{{ map.region.id }} {{ ti.xcom_pull('clean').rows }}", "7 3")]
#[case("{{ ti.xcom_pull(task_ids='clean', key='list') | tojson }}", "[1,2]")]
#[case(
    "{{ ti.xcom_pull('mapped') | join('+') }} {{ ti.xcom_pull('mapped', map_indexes=1) }}",
    "a+b+c b"
)]
#[case(
    "{{ ti.xcom_pull(['mapped', 'clean'])[0][2] }} {{ ti.xcom_pull('gone', default='d') }}",
    "c d"
)]
#[case(
    "{{ ti.xcom_pull('mapped', map_indexes=[2, 0]) | tojson }}",
    r#"["c","a"]"#
)]
#[case(
    "{{ var.value.bucket }} {{ var.json.cfg.a[1] }} {{ var.value.get('gone', 'x') }}",
    "lake 2 x"
)]
#[case(
    "{{ conn.shop.host }}:{{ conn.shop.port }} {{ conn.shop.extra.token }}",
    "shop.example:443 t"
)]
#[case(
    "{{ dag_run.conf.who | shell_quote }} {{ ti.xcom_pull('clean').path | shell_quote }}",
    r"'O'\''Neil' '/data/x y'"
)]
#[case(
    "{{ {'a': '<&>'} | tojson }} {{ '[1]' | fromjson | first }}",
    r#"{"a":"<&>"} 1"#
)]
#[case(
    "{% for n in params.names %}{{ loop.index }}={{ n }};{% endfor %}",
    "1=x;2=y;"
)]
#[case("{% set t = ti.xcom_pull('clean') %}{{ t.rows }}\n", "3\n")]
#[case("{{ nothing | default('d') }}", "d")]
#[case("{# a comment #}x", "x")]
#[case("{{ 'a b' | urlencode }}", "a%20b")]
fn renders(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(Renderer::new(context()).render(text).unwrap(), expected);
}

/// Texts that cannot be rendered; why, is in the snapshot.
const BAD: [&str; 19] = [
    "{{ dss }}",
    "a {{ params.contry }} b",
    "{{ ti.xcom_pull('clean').pth }}",
    "{{ var.value.gone }}",
    "{{ var.json.bad.x }}",
    "{{ conn.gone.host }}",
    "{{ ds | nope }}",
    "{{ ds.nope() }}",
    "{{ ti.pull('x') }}",
    "{{ ti.xcom_pull() }}",
    "{{ map.gone.x }}",
    "line\n{{ ds }\nmore",
    "{% for %}",
    "{{ logical_date.strftime('%Q') }}",
    "{% for a in range(90000) %}{% for b in range(90000) %}x{% endfor %}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ 'x' * 999999999999 }}",
    "{% set s = 'x' * 1000000 %}{% for i in range(100) %}{{ s }}{% endfor %}",
    "{% include 'x' %}",
];

#[test]
fn errors_name_what_is_wrong() {
    let renderer = Renderer::new(context());
    let errors = BAD.map(|text| format!("{text:?}\n    {}\n", renderer.render(text).unwrap_err()));
    insta::assert_snapshot!(errors.concat());
}

#[test]
fn static_text_is_borrowed() {
    assert!(matches!(
        Renderer::new(context()).render("./clean.sh $X"),
        Ok(std::borrow::Cow::Borrowed(_))
    ));
}

#[rstest]
#[case("{{ params.n }}", json!(3))]
#[case("  {{- ti.xcom_pull('clean') -}} ", json!({"path": "/data/x y", "rows": 3}))]
#[case("{{ params.n }}{{ params.n }}", json!("33"))]
#[case("{{ '}}{{' }}", json!("}}{{"))]
#[case("n={{ params.n }}", json!("n=3"))]
#[case("text", json!("text"))]
#[case("{{ none }}", json!(null))]
#[case("{{ logical_date }}", json!("2026-01-01 00:00:00+00:00"))]
fn native(#[case] text: &str, #[case] expected: Value) {
    assert_eq!(
        Renderer::new(context()).render_native(text).unwrap(),
        expected
    );
}

#[test]
fn native_undefined_is_named() {
    let renderer = Renderer::new(context());
    assert_eq!(
        renderer
            .render_native("{{ params.gone }}")
            .unwrap_err()
            .to_string(),
        "`params.gone` is undefined"
    );
    assert!(
        renderer
            .render_native("{{ gone.x }}")
            .unwrap_err()
            .to_string()
            .contains("gone")
    );
}

#[test]
fn values_render_deeply() {
    let value = json!({"a": ["{{ params.n }}", {"b": "x {{ ds }}"}], "c": 1, "{{ ds }}": null});
    let expected = json!({"a": [3, {"b": "x 2026-01-01"}], "c": 1, "{{ ds }}": null});
    assert_eq!(
        Renderer::new(context()).render_value(&value).unwrap(),
        expected
    );
}

#[test]
fn expressions_see_extra_names() {
    let extra = json!({"status": 200, "json": {"ok": true}})
        .as_object()
        .cloned()
        .unwrap_or_default();
    let renderer = Renderer::new(context());
    assert_eq!(
        renderer
            .eval("status == 200 and json.ok and params.n == 3", extra)
            .unwrap(),
        json!(true)
    );
    assert!(renderer.eval("status ==", Map::new()).is_err());
}

#[test]
fn without_a_logical_date_ds_is_undefined() {
    let renderer = Renderer::new(TemplateContext {
        logical_date: None,
        ..context()
    });
    assert!(
        renderer
            .render("{{ ds }}")
            .unwrap_err()
            .to_string()
            .contains("ds")
    );
    assert_eq!(
        renderer
            .render("{{ dag_run.logical_date is none }}")
            .unwrap(),
        "True"
    );
}

#[test]
fn references_are_found_without_rendering() {
    let refs = references(
        "{% set x = ti.xcom_pull('a') %}{{ x.y }} {{ ti.xcom_pull(['b', 'c'], key='k') }} {{ var.value.v }}
         {{ var.json.get('w') }} {{ conn.shop.host }} {{ conn['other'].port }}",
    );
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(
        refs.xcom_pulls,
        [pair("a", "return_value"), pair("b", "k"), pair("c", "k")].into()
    );
    assert_eq!(refs.vars, ["v".to_owned(), "w".to_owned()].into());
    assert_eq!(refs.conns, ["shop".to_owned(), "other".to_owned()].into());
    assert!(!refs.dynamic_pull && !refs.dynamic_vars && !refs.dynamic_conns);
}

#[rstest]
#[case("{{ ti.xcom_pull(params.t) }}")]
#[case("{{ ti.xcom_pull('a', key=ds) }}")]
#[case("{% set t = ti %}{{ t.xcom_pull('a') }}")]
#[case("{{ ti.xcom_pull(*params.args) }}")]
fn dynamic_pulls_are_seen(#[case] text: &str) {
    assert!(references(text).dynamic_pull, "{text}");
}

#[test]
fn dynamic_lookups_are_seen() {
    assert!(references("{{ var.value[params.x] }}").dynamic_vars);
    assert!(references("{{ conn.get(params.x) }}").dynamic_conns);
    assert_eq!(references("{{ broken"), Refs::default());
}

#[test]
fn a_task_refers_to_what_any_of_its_texts_does() {
    let task: crate::spec::TaskSpec = serde_json::from_value(json!({
        "task_id": "t", "queue": "{{ var.value.q }}", "env": {"A": "{{ ti.xcom_pull('a') }}"},
        "expand": {"x": "{{ ti.xcom_pull('b') }}"},
        "http": {
            "url": "http://{{ conn.c1.host }}/", "connection": "c2", "headers": {"h": "{{ var.value.h }}"},
            "json": {"deep": ["{{ ti.xcom_pull('c', 'k') }}"]}, "expect": {"check": "json.n == var.value.n"},
        },
    }))
    .unwrap();
    let refs = task_references(&task);
    let ids: Vec<&str> = refs.xcom_pulls.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(refs.conns.len() + refs.vars.len(), 5);
}

/// On a thread with the stack that tests (and tokio's workers) have: what is just within the bounds must compile.
#[test]
fn chains_are_bounded() {
    let renderer = Renderer::new(context());
    let chain = |n: usize| {
        [
            format!("{{{{ 1{} }}}}", "+1".repeat(n)),
            format!("{{{{ ds{} }}}}", "|string".repeat(n)),
            format!("{{{{ {}1 }}}}", "not ".repeat(n)),
            format!("{{{{ params{} }}}}", ".x".repeat(n)),
            format!("{{{{ 1{} }}}}", " if 1 else 2".repeat(n / 2)),
        ]
    };
    for text in chain(200) {
        let _ = (
            renderer.render(&text),
            renderer.render_native(&text),
            references(&text),
        );
        assert!(analysis::analyse(&text).is_ok(), "{text}");
    }
    for text in chain(100_000) {
        for error in [
            renderer.render(&text).unwrap_err(),
            renderer.render_native(&text).unwrap_err(),
        ] {
            assert!(error.message.contains("more than 200 operators"), "{error}");
        }
        assert!(renderer.eval(&text[2..text.len() - 2], Map::new()).is_err());
        assert_eq!(references(&text), Refs::default());
    }
    let tags = |n: usize| format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(n));
    assert_eq!(renderer.render(&tags(198)).unwrap(), "");
    assert!(renderer.render(&tags(100_000)).is_err());
    assert!(renderer.render(&"{% if 1 %}".repeat(100_000)).is_err());
    let loops = format!(
        "{}{}",
        "{% for a in [1] %}".repeat(100),
        "{% endfor %}".repeat(100)
    );
    let _ = renderer.render(&loops);
}
