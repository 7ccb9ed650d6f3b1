use super::*;
use serde_json::json;

fn environment(pairs: &[(&str, &str)]) -> Backends {
    let pairs = pairs
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    Backends::new(pairs)
}

fn connection(text: &str) -> Result<Value, String> {
    let found = environment(&[("GRISTMILL_CONN_A", text)]).connection("a");
    found
        .map(|found| Value::Object(found.unwrap().0))
        .map_err(|error| error.to_string())
}

#[test]
fn a_uri_is_taken_apart() {
    assert_eq!(
        connection("postgresql://ann:o%40k%2F@db.example:6432/shop?sslmode=require"),
        Ok(json!({
            "conn_type": "postgres", "login": "ann", "password": "o@k/", "host": "db.example", "port": 6432, "schema": "shop",
            "extra": {"sslmode": "require"},
        }))
    );
    assert_eq!(
        connection("https://ci:token@shop.example:8443/api/"),
        Ok(json!({
            "conn_type": "http", "login": "ci", "password": "token", "host": "https://shop.example/api", "port": 8443,
        }))
    );
    assert_eq!(
        connection("sqlite:///data/a%20b.db"),
        Ok(json!({"conn_type": "sqlite", "host": "/data/a b.db"}))
    );
    assert_eq!(
        connection("aws://key:secret@/?__extra__=%7B%22region%22%3A+%22eu%22%7D"),
        Ok(
            json!({"conn_type": "aws", "login": "key", "password": "secret", "extra": {"region": "eu"}})
        )
    );
}

#[test]
fn json_is_taken_as_it_is() {
    let text = r#"{"conn_type": "mysql", "host": "db", "port": "3306", "extra": "{\"a\": 1}", "password": null}"#;
    assert_eq!(
        connection(text),
        Ok(json!({"conn_type": "mysql", "host": "db", "port": 3306, "extra": {"a": 1}}))
    );
}

#[test]
fn what_is_wrong_is_named_and_no_value_is_shown() {
    for (text, wanted) in [
        ("hunter22", "GRISTMILL_CONN_A: it is no URI"),
        (
            "{\"password\": \"hunter22\"",
            "begins like JSON and is none",
        ),
        ("{\"password\": \"hunter22\"}", "no conn_type"),
        (
            "{\"conn_type\": \"http\", \"passwd\": \"hunter22\"}",
            "\"passwd\" is no field",
        ),
        (
            "{\"conn_type\": \"http\", \"port\": \"hunter22\"}",
            "port is no number",
        ),
    ] {
        let error = connection(text).unwrap_err();
        assert!(
            error.contains(wanted) && !error.contains("hunter22"),
            "{error}"
        );
    }
}

#[test]
fn the_environment_comes_before_the_folder_and_the_folder_before_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("s/variables/a", "folder\n");
    write("s/variables/b-c.d", "folder");
    write("s/variables/.hidden", "x");
    write("s/connections/db", "postgres://u:p@h/x\n");
    write(
        "all.yaml",
        "variables: {a: file, b-c.d: file, list: [1, 2]}\nconnections: {db: 'mysql://x', shop: {conn_type: http, host: h}}\n",
    );
    let (folder, file) = (dir.path().join("s"), dir.path().join("all.yaml"));
    let backends = environment(&[
        ("GRISTMILL_VAR_A", "environment"),
        ("AIRFLOW_VAR_OLD_ONE", "airflow"),
        ("AIRFLOW_CONN_Q", "redis://h"),
        (FOLDER_VARIABLE, folder.to_str().unwrap()),
        (FILE_VARIABLE, file.to_str().unwrap()),
    ]);
    let variable = |key: &str| backends.variable(key).unwrap();
    assert_eq!(
        variable("a"),
        Some(("environment".into(), Source::Environment))
    );
    assert_eq!(variable("b-c.d"), Some(("folder".into(), Source::Folder)));
    assert_eq!(variable("list"), Some(("[1,2]".into(), Source::File)));
    assert_eq!(
        variable("old-one"),
        Some(("airflow".into(), Source::Environment))
    );
    for absent in ["none", "../all.yaml", ".hidden"] {
        assert_eq!(variable(absent), None, "{absent}");
    }
    let (db, source) = backends.connection("db").unwrap().unwrap();
    assert_eq!(
        (db["conn_type"].as_str(), source),
        (Some("postgres"), Source::Folder)
    );
    let names = |kind| -> Vec<String> {
        let names = backends.names(kind).unwrap();
        names
            .iter()
            .map(|(name, source)| format!("{name} {}", source.as_str()))
            .collect()
    };
    assert_eq!(
        names(Kind::Variable),
        [
            "a environment",
            "b-c.d folder",
            "list file",
            "old_one environment"
        ]
    );
    assert_eq!(
        names(Kind::Connection),
        ["db folder", "q environment", "shop file"]
    );
}

#[test]
fn files_are_read_by_their_ending() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        environment(&[(FILE_VARIABLE, path.to_str().unwrap())])
    };
    let env = of(
        ".env",
        "# a comment\nexport GRISTMILL_CONN_DB='postgres://h/x'\nAIRFLOW_VAR_KEY = a=b\n",
    );
    assert_eq!(
        env.variable("key").unwrap(),
        Some(("a=b".into(), Source::File))
    );
    assert_eq!(env.connection("db").unwrap().unwrap().0["host"], "h");
    let json = of("s.json", r#"{"variables": {"key": "x"}}"#);
    assert_eq!(
        json.variable("key").unwrap(),
        Some(("x".into(), Source::File))
    );
    for (name, text, wanted) in [
        (".env", "PASSWORD=hunter22", "line 1 names neither"),
        ("s.json", "{\"hunter22\"", "no JSON"),
        ("s.yaml", "a: [hunter22", "no YAML, look at line"),
        (
            "s.yaml",
            "passwords: {a: hunter22}",
            "a mapping with `connections` and `variables`",
        ),
        ("s.txt", "hunter22", "has to end in"),
    ] {
        let error = of(name, text).variable("x").unwrap_err().to_string();
        assert!(
            error.contains(wanted) && !error.contains("hunter22"),
            "{error}"
        );
    }
    let gone = environment(&[(FILE_VARIABLE, "/nowhere/at/all.yaml")]);
    assert!(
        gone.variable("x")
            .unwrap_err()
            .to_string()
            .contains("/nowhere/at/all.yaml")
    );
}
