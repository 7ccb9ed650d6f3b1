//! `gristmill dags test`: a run of a DAG without any server.

use gristmill_testkit::{DataDir, roles::binary};
use std::{path::Path, process::Output};

fn write(folder: &Path, file: &str, text: &str) {
    std::fs::write(folder.join(file), text).unwrap();
}

/// Runs the command in a folder, in an environment that names another deployment.
async fn dags_test(folder: &Path, args: &[&str]) -> Output {
    tokio::process::Command::new(binary("gristmill").unwrap())
        .args(["dags", "test"])
        .args(args)
        .current_dir(folder)
        .env("TMPDIR", folder)
        .env("GRISTMILL_STORE", "s3://not-here")
        .env("GRISTMILL_SECRET_KEY", "not a key")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

fn code_and_text(output: &Output) -> (i32, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code().unwrap(), text)
}

const GOOD: &str = "
dag_id: good
schedule: every 1s
params: {name: {type: string, default: nobody}}
tasks:
  greet: {shell: 'cat greeting.txt; echo \"hello $NAME\"', env: {NAME: '{{ params.name }}'}}
  join: {depends_on: greet, empty: {}}
";

#[tokio::test]
async fn a_dag_of_a_folder_runs_with_the_folders_files() {
    let dir = DataDir::new("dags-test").unwrap();
    let dags = dir.path().join("dags");
    std::fs::create_dir(&dags).unwrap();
    write(&dags, "good.yaml", GOOD);
    write(&dags, "greeting.txt", "good morning\n");
    write(
        &dags,
        "other.yaml",
        "dag_id: other\ntasks: {t: {shell: 'exit 3'}}",
    );

    let (code, text) = code_and_text(&dags_test(dir.path(), &["dags"]).await);
    assert_eq!(code, 2, "{text}");
    assert!(
        text.contains("several DAGs") && text.contains("good, other"),
        "{text}"
    );

    let args = ["dags", "good", "-p", "name=you", "--keep"];
    let (code, text) = code_and_text(&dags_test(dir.path(), &args).await);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("good morning") && text.contains("hello you"),
        "{text}"
    );
    // What was kept says that the schedule made no run.
    let kept = text.split("kept: ").nth(1).unwrap().trim();
    let log = std::fs::read_to_string(Path::new(kept).join("standalone.log")).unwrap();
    assert!(Path::new(kept).join("gristmill.db").is_file(), "{log}");
    let store = std::fs::read_dir(Path::new(kept).join("store/logs/dag_id=good"));
    let runs = store.map(Iterator::count).unwrap_or_default();
    assert_eq!(runs, 1, "{kept}");

    let (code, text) = code_and_text(&dags_test(dir.path(), &["dags", "other"]).await);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("exit code 3"), "{text}");
}

#[tokio::test]
async fn a_wrong_file_is_told_and_nothing_is_left() {
    let dir = DataDir::new("dags-test").unwrap();
    write(
        dir.path(),
        "bad.yaml",
        "dag_id: bad\ntasks: {t: {shel: ls}}",
    );
    let (code, text) = code_and_text(&dags_test(dir.path(), &["bad.yaml"]).await);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("shel"), "{text}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn the_example_of_mapping_runs() {
    let dir = DataDir::new("dags-test").unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/dags/mapping.yaml");
    let (code, text) = code_and_text(&dags_test(dir.path(), &[example.to_str().unwrap()]).await);
    assert_eq!(code, 0, "{text}");
    for line in [
        "large machines in us",
        "from tue to thu",
        "84 rows, 8 squares",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[tokio::test]
async fn the_example_of_files_in_files_runs() {
    let dir = DataDir::new("dags-test").unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/dags");
    let args = [folder.to_str().unwrap(), "composed"];
    let (code, text) = code_and_text(&dags_test(dir.path(), &args).await);
    assert_eq!(code, 0, "{text}");
    for line in [
        "eu has 7 rows",
        "us has 10 rows",
        "kr has 10 rows",
        "7 and 20 rows",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}
