//! What goes along with tasks: bundles, large XComs, logs.

use crate::support::{Deployment, LATER, SOON, Shape, step};
use gristmill_testkit::wait;
use std::os::unix::fs::PermissionsExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_script_of_the_bundle_runs_on_any_worker() {
    let shape = Shape {
        workers: 3,
        slots: 2,
        ..Shape::default()
    };
    let deployment = Deployment::of(shape).await;
    let folder = deployment.dir().join("dags");
    std::fs::create_dir(&folder).unwrap();
    let script = folder.join("hello.sh");
    std::fs::write(
        &script,
        "#!/bin/sh\nsleep 0.3\necho \"hello $1 from $(cat data.txt)\"\n",
    )
    .unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(folder.join("data.txt"), "the bundle").unwrap();
    let work = step("./hello.sh $GRISTMILL_MAP_INDEX");
    std::fs::write(
        folder.join("bundled.yaml"),
        format!("dag_id: bundled\ntasks:\n  t: {{expand: {{i: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]}}, shell: {work}}}\n"),
    )
    .unwrap();
    deployment
        .command(&["dags", "deploy", folder.to_str().unwrap()])
        .await;
    let run = deployment.client.trigger("bundled").await;
    deployment.succeeds(&run, SOON).await;
    let values = deployment
        .sql("SELECT map_index || ' ' || (value #>> '{}') FROM xcoms ORDER BY map_index")
        .await;
    let expected: Vec<String> = (0..12)
        .map(|i| format!("{i} hello {i} from the bundle"))
        .collect();
    assert_eq!(values.lines().collect::<Vec<_>>(), expected);
    assert_eq!(
        deployment
            .sql("SELECT count(DISTINCT worker) FROM task_attempts")
            .await,
        "3"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn large_xcoms_reach_what_pulls_them() {
    let deployment = Deployment::small().await;
    // One below the limit of what rests in the database, one above.
    let make = |bytes: usize| {
        step(&format!(
            "python3 -c \"import json, os; json.dump('x' * {bytes}, open(os.environ['GRISTMILL_XCOM'], 'w'))\""
        ))
    };
    let (middle, large, count) = (make(200_000), make(5_000_000), step("wc -c"));
    let yaml = format!(
        "dag_id: large
tasks:
  middle: {{shell: {middle}}}
  large: {{shell: {large}}}
  count_middle: {{depends_on: [middle], shell: {{command: {count}, stdin: \"{{{{ ti.xcom_pull('middle') }}}}\"}}}}
  count_large: {{depends_on: [large], shell: {{command: {count}, stdin: \"{{{{ ti.xcom_pull('large') }}}}\"}}}}
"
    );
    let run = deployment.client.start("large", &yaml).await;
    deployment.succeeds(&run, SOON).await;
    assert_eq!(deployment.client.xcom(&run, "count_middle").await, "200000");
    assert_eq!(deployment.client.xcom(&run, "count_large").await, "5000000");
    assert_eq!(
        deployment
            .client
            .xcom(&run, "large")
            .await
            .as_str()
            .map(str::len),
        Some(5_000_000)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_can_be_read_while_it_is_written_and_after() {
    let deployment = Deployment::small().await;
    let go_on = deployment.dir().join("go-on");
    let work = step(
        "echo first line; echo second line >&2; until [ -e \"$TEST_DIR/go-on\" ]; do sleep 0.05; done; echo last line",
    );
    let run = deployment
        .client
        .start(
            "logged",
            &format!("dag_id: logged\ntasks:\n  t: {{shell: {work}}}\n"),
        )
        .await;
    let log = format!("{}/taskInstances/t/logs/1", run.path());
    deployment.client.task_is(&run, "t", "running").await;
    let live = async || {
        let text = deployment.client.text(&log).await;
        text.contains("second line").then_some(text)
    };
    let text = wait::until("the lines so far", SOON, live).await.unwrap();
    assert!(
        text.contains("first line") && !text.contains("last line"),
        "{text}"
    );
    std::fs::write(go_on, "").unwrap();
    deployment.succeeds(&run, SOON).await;
    let text = deployment.client.text(&log).await;
    let at = ["first line", "last line"].map(|line| {
        text.find(line)
            .unwrap_or_else(|| panic!("no {line:?} in {text}"))
    });
    assert!(at[0] < at[1], "{text}");
    let page = deployment.client.get(&log).await;
    assert!(
        page["continuation_token"].is_null(),
        "an ended attempt's log has more to come: {page}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_workers_log_is_kept_up_to_its_death() {
    let shape = Shape {
        workers: 2,
        slots: 1,
        ..Shape::default()
    };
    let mut deployment = Deployment::of(shape).await;
    let work = step("echo before the fall; [ $GRISTMILL_TRY_NUMBER -gt 1 ] || sleep 300");
    let run = deployment
        .client
        .start(
            "fallen",
            &format!("dag_id: fallen\ntasks:\n  t: {{shell: {work}}}\n"),
        )
        .await;
    let log = format!("{}/taskInstances/t/logs/1", run.path());
    deployment.client.task_is(&run, "t", "running").await;
    let live = async || {
        deployment
            .client
            .text(&log)
            .await
            .contains("before the fall")
            .then_some(())
    };
    wait::until("the line", SOON, live).await.unwrap();
    // Whichever of the two has it.
    let busy = deployment
        .workers
        .iter()
        .position(|w| gristmill_testkit::sys::descendants(w.pid().unwrap()).len() > 1);
    let worker = deployment.workers.swap_remove(busy.unwrap());
    worker.kill().await.unwrap();
    deployment.succeeds(&run, LATER).await;
    assert_eq!(deployment.count_endings("lost").await, 1);
    let text = deployment.client.text(&log).await;
    assert!(text.contains("before the fall"), "{text}");
}
