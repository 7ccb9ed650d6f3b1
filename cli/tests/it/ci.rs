//! What docs/ci.md and action.yml tell CI systems to run, run as it stands there.

use crate::standalone::Standalone;
use gristmill_testkit::roles::binary;
use std::{
    path::{Path, PathBuf},
    process::Output,
};

const DAGS: &str = "
dag_id: nightly
params: {code: {type: integer, default: 0}}
tasks:
  load: {shell: 'echo loaded'}
  check: {depends_on: load, shell: 'echo checking; exit {{ params.code }}'}
";

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(path).unwrap()
}

/// What stands between two marks, the first of them after another.
fn between<'a>(text: &'a str, after: &str, from: &str, to: &str) -> &'a str {
    let text = text.split_once(after).unwrap().1;
    let text = text.split_once(from).unwrap().1;
    text.split_once(to).unwrap().0
}

/// A CI system's agent: a folder, a shell, and variables.
struct Agent {
    server: Standalone,
    folder: PathBuf,
}

impl Agent {
    async fn new() -> Self {
        let server = Standalone::start("nightly.yaml", DAGS).await;
        let folder = server.dir.path().join("agent");
        std::fs::create_dir(&folder).unwrap();
        Self { server, folder }
    }

    async fn bash(&self, script: &str, variables: &[(&str, &str)]) -> Output {
        let binary = binary("gristmill").unwrap();
        let path = std::env::var("PATH").unwrap();
        tokio::process::Command::new("bash")
            .args(["-eo", "pipefail", "-c", script])
            .current_dir(&self.folder)
            .env_clear()
            .env(
                "PATH",
                format!("{}:{path}", binary.parent().unwrap().display()),
            )
            .env("GRISTMILL_API_URL", self.server.url())
            .env("GRISTMILL_TOKEN", self.server.token())
            .env("DAG_ID", "nightly")
            .envs(variables.iter().copied())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap()
    }

    fn written(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(name)).unwrap()
    }
}

fn code_and_text(output: &Output) -> (i32, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code().unwrap(), text)
}

#[tokio::test]
async fn the_github_action_runs_a_dag() {
    let agent = Agent::new().await;
    let action = file("action.yml");
    let script = action.split_once("run: |\n").unwrap().1;
    let variables = |conf, key| {
        [
            ("CONF", conf),
            ("TIMEOUT", "2m"),
            ("KEY", key),
            ("JUNIT", "gristmill.xml"),
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_OUTPUT", "outputs"),
            ("GITHUB_STEP_SUMMARY", "summary"),
        ]
    };
    let ran = agent.bash(script, &variables("{}", "1")).await;
    let (code, text) = code_and_text(&ran);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("::group::load\n"), "{text}");
    let outputs = agent.written("outputs");
    assert!(
        outputs.contains("dag_id=nightly\n") && outputs.contains("state=success\n"),
        "{outputs}"
    );

    // Again with the same key, as a repeated job does: no further run.
    let (code, _) = code_and_text(&agent.bash(script, &variables("{}", "1")).await);
    assert_eq!(code, 0);
    let again = agent.written("outputs");
    assert_eq!(again, outputs.repeat(2));

    let ran = agent.bash(script, &variables("{\"code\": 3}", "2")).await;
    let (code, text) = code_and_text(&ran);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("::error title=nightly%3A check failed::exit code 3%0Achecking%0A"),
        "{text}"
    );
    assert!(agent.written("summary").contains("| check | failed | 1 |"));
    assert!(
        agent
            .written("gristmill.xml")
            .contains("<failure message=\"exit code 3\"")
    );
}

#[tokio::test]
async fn the_gitlab_job_runs_a_dag() {
    let agent = Agent::new().await;
    let docs = file("docs/ci.md");
    let script = between(&docs, "## GitLab", "script:\n    - ", "\n");
    let variables = [("GITLAB_CI", "true"), ("CI_JOB_ID", "17")];
    let (code, text) = code_and_text(&agent.bash(script, &variables).await);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("\x1b[0Ksection_start:"), "{text}");
    assert!(
        agent
            .written("gristmill.xml")
            .contains("<testsuite name=\"nightly\" tests=\"2\"")
    );
}

#[tokio::test]
async fn the_jenkins_stage_runs_a_dag() {
    let agent = Agent::new().await;
    let docs = file("docs/ci.md");
    let script = between(&docs, "## Jenkins", "sh '''", "'''");
    let variables = [("BUILD_TAG", "jenkins-nightly-3")];
    let (code, text) = code_and_text(&agent.bash(script, &variables).await);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("load | loaded\n"), "{text}");
    assert!(
        agent
            .written("gristmill.xml")
            .contains("<testsuite name=\"nightly\" tests=\"2\"")
    );
}

#[tokio::test]
async fn a_job_without_the_client_runs_a_dag() {
    let agent = Agent::new().await;
    let docs = file("docs/ci.md");
    let script = between(&docs, "## Anything else", "```bash\n", "```");
    let (code, text) = code_and_text(&agent.bash(script, &[("BUILD_TAG", "1")]).await);
    assert_eq!(code, 0, "{text}");
    // The same with a run that fails, and that takes longer than the answer to the trigger may.
    let failing = script.replace("-d '{}'", "-d '{\"conf\": {\"code\": 3}}'");
    let failing = failing.replace("wait=60s", "wait=1ms");
    assert_ne!(failing, script);
    let (code, text) = code_and_text(&agent.bash(&failing, &[("BUILD_TAG", "2")]).await);
    assert_eq!(code, 1, "{text}");
}
