//! The shapes of a run, each through one scheduler and one worker.

use crate::support::{Deployment, LATER, Run, SOON, step};
use gristmill_testkit::{sys, wait};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// State of each task instance that is not mapped.
async fn states(deployment: &Deployment, run: &Run) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = deployment.client.instances(run).await;
    all.iter()
        .map(|instance| (text(&instance["task_id"]), text(&instance["state"])))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_hands_its_values_on() {
    let deployment = Deployment::small().await;
    let mut yaml = format!(
        "dag_id: chain\ntasks:\n  t0:\n    shell: {}\n",
        step("echo 1")
    );
    for i in 1..10 {
        let before = i - 1;
        yaml += &format!(
            "  t{i}:\n    depends_on: [t{before}]\n    shell: {}\n    env: {{N: \"{{{{ ti.xcom_pull('t{before}') }}}}\"}}\n",
            step("echo $((N * 2))")
        );
    }
    let run = deployment.client.start("chain", &yaml).await;
    deployment.succeeds(&run, SOON).await;
    assert_eq!(deployment.client.xcom(&run, "t9").await, "512");
    let attempts = deployment.ledger.attempts();
    let starts: Vec<u64> = (0..10)
        .map(|i| attempts[&(run.run_id.clone(), format!("t{i}"), -1)][0].start)
        .collect();
    assert!(starts.is_sorted(), "{starts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diamond_joins_after_both_sides() {
    let deployment = Deployment::small().await;
    let (top, side) = (step("echo top"), step("sleep 0.3; echo $GRISTMILL_TASK_ID"));
    let bottom = step(r#"echo "$L-$R""#);
    let yaml = format!(
        "dag_id: diamond
tasks:
  top: {{shell: {top}}}
  left: {{depends_on: [top], shell: {side}}}
  right: {{depends_on: [top], shell: {side}}}
  bottom:
    depends_on: [left, right]
    shell: {bottom}
    env: {{L: \"{{{{ ti.xcom_pull('left') }}}}\", R: \"{{{{ ti.xcom_pull('right') }}}}\"}}
"
    );
    let run = deployment.client.start("diamond", &yaml).await;
    deployment.succeeds(&run, SOON).await;
    assert_eq!(deployment.client.xcom(&run, "bottom").await, "left-right");
    let [left, right, bottom] =
        ["left", "right", "bottom"].map(|task| deployment.ledger.of_task(task)[0].clone());
    assert!(bottom.start >= left.end.unwrap().max(right.end.unwrap()));
    assert!(
        left.start < right.end.unwrap() && right.start < left.end.unwrap(),
        "the sides did not run side by side"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_over_200_items_joins_their_values() {
    let deployment = Deployment::small().await;
    let list = step("python3 -c 'import json; print(json.dumps(list(range(200))))'");
    let (one, sum) = (
        step("echo $((I * 2))"),
        step(r#"python3 -c 'import json, sys; print(sum(int(x) for x in json.load(sys.stdin)))'"#),
    );
    let yaml = format!(
        "dag_id: fan_out
max_active_tasks: 64
tasks:
  list: {{shell: {{command: {list}, output: json}}}}
  one:
    depends_on: [list]
    expand: {{i: \"{{{{ ti.xcom_pull('list') }}}}\"}}
    shell: {one}
    env: {{I: \"{{{{ map.i }}}}\"}}
  sum:
    depends_on: [one]
    shell: {{command: {sum}, stdin: \"{{{{ ti.xcom_pull('one') | tojson }}}}\"}}
"
    );
    let run = deployment.client.start("fan_out", &yaml).await;
    deployment.succeeds(&run, LATER).await;
    assert_eq!(
        deployment.client.xcom(&run, "sum").await,
        (199 * 200).to_string()
    );
    assert_eq!(deployment.ledger.of_task("one").len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapped_group_runs_once_per_item() {
    let deployment = Deployment::small().await;
    let list = step(r#"echo '["a", "b", "bad"]'"#);
    let (load, check) = (
        step(r#"echo "loaded $ITEM"; [ "$ITEM" != bad ]"#),
        step(r#"echo "$GOT and checked $ITEM""#),
    );
    let report = step("cat");
    let yaml = format!(
        "dag_id: grouped
tasks:
  list: {{shell: {{command: {list}, output: json}}}}
  each:
    depends_on: [list]
    group:
      expand: {{item: \"{{{{ ti.xcom_pull('list') }}}}\"}}
      tasks:
        load: {{map_index_template: '{{{{ map.item }}}}', shell: {load}, env: {{ITEM: \"{{{{ map.item }}}}\"}}}}
        check:
          depends_on: [load]
          shell: {check}
          env: {{ITEM: \"{{{{ map.item }}}}\", GOT: \"{{{{ ti.xcom_pull('load') }}}}\"}}
  report:
    depends_on: [each]
    trigger_rule: all_done
    shell: {{command: {report}, stdin: \"{{{{ ti.xcom_pull('each.check') | join(', ') }}}}\"}}
"
    );
    let run = deployment.client.start("grouped", &yaml).await;
    deployment.client.ended(&run, SOON).await;
    let instances = deployment.client.instances(&run).await;
    let mut found: Vec<String> = instances
        .iter()
        .map(|i| {
            let name = i["rendered_map_index"].as_str().unwrap_or("-");
            let (task, state) = (i["task_id"].as_str().unwrap(), i["state"].as_str().unwrap());
            format!("{task} {} {name} {state}", i["map_index"])
        })
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "each.check 0 - success",
            "each.check 1 - success",
            "each.check 2 - upstream_failed",
            "each.load 0 a success",
            "each.load 1 b success",
            "each.load 2 bad failed",
            "list -1 - success",
            "report -1 - success",
        ]
    );
    assert_eq!(
        deployment.client.xcom(&run, "report").await,
        "loaded a and checked a, loaded b and checked b"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_try_is_tried_again() {
    let deployment = Deployment::small().await;
    let work = step("echo try $GRISTMILL_TRY_NUMBER; [ $GRISTMILL_TRY_NUMBER -ge 3 ]");
    let yaml =
        format!("dag_id: again\ntasks:\n  t: {{retries: 2, retry_delay: 300ms, shell: {work}}}\n");
    let run = deployment.client.start("again", &yaml).await;
    deployment.succeeds(&run, SOON).await;
    let attempts = deployment.ledger.of_task("t");
    assert_eq!(
        attempts.iter().map(|a| a.try_number).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    for pair in attempts.windows(2) {
        let pause = pair[1].start - pair[0].end.unwrap();
        assert!(
            pause >= 300_000_000,
            "tried again after {pause} ns, before its retry_delay"
        );
    }
    assert_eq!(deployment.count_endings("up_for_retry").await, 2);
    assert_eq!(deployment.client.xcom(&run, "t").await, "try 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_fails_what_is_downstream_and_the_run() {
    let deployment = Deployment::small().await;
    let (bad, good) = (step("echo to no avail >&2; exit 7"), step("true"));
    let yaml = format!(
        "dag_id: failing
tasks:
  bad: {{shell: {bad}}}
  below: {{depends_on: [bad], shell: {good}}}
  far_below: {{depends_on: [below], shell: {good}}}
  cleanup: {{depends_on: [below], trigger_rule: all_done, shell: {good}}}
"
    );
    let run = deployment.client.start("failing", &yaml).await;
    let ended = deployment.client.ended(&run, SOON).await;
    assert_eq!(
        (&ended["state"], &ended["cancelled"]),
        (&"failed".into(), &false.into()),
        "{ended}"
    );
    let expected = [
        ("bad", "failed"),
        ("below", "upstream_failed"),
        ("cleanup", "success"),
        ("far_below", "upstream_failed"),
    ];
    assert_eq!(
        states(&deployment, &run).await,
        expected.map(|(t, s)| (t.to_owned(), s.to_owned())).into()
    );
    let bad = deployment.client.instance(&run, "bad").await;
    assert_eq!(bad["exit_code"], 7);
    assert!(
        bad["reason"].as_str().unwrap().contains("to no avail"),
        "{bad}"
    );
    deployment.settles().await;
    assert!(!deployment.ledger.has_started("below"));
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_code_99_skips_what_is_downstream() {
    let deployment = Deployment::small().await;
    let (skip, good) = (step("exit 99"), step("true"));
    let yaml = format!(
        "dag_id: skipping
tasks:
  skip: {{shell: {skip}}}
  below: {{depends_on: [skip], shell: {good}}}
  unless_failed: {{depends_on: [skip], trigger_rule: none_failed, shell: {good}}}
"
    );
    let run = deployment.client.start("skipping", &yaml).await;
    deployment.succeeds(&run, SOON).await;
    let expected = [
        ("below", "skipped"),
        ("skip", "skipped"),
        ("unless_failed", "success"),
    ];
    assert_eq!(
        states(&deployment, &run).await,
        expected.map(|(t, s)| (t.to_owned(), s.to_owned())).into()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_past_its_execution_timeout_is_killed() {
    let deployment = Deployment::small().await;
    let (polite, deaf) = (step("sleep 300"), step("trap '' TERM; sleep 300"));
    let yaml = format!(
        "dag_id: slow
tasks:
  polite: {{execution_timeout: 1s, shell: {polite}}}
  deaf: {{execution_timeout: 1s, shell: {{command: {deaf}, kill_grace: 500ms}}}}
"
    );
    let run = deployment.client.start("slow", &yaml).await;
    let ended = deployment.client.ended(&run, SOON).await;
    assert_eq!(ended["state"], "failed", "{ended}");
    for task in ["polite", "deaf"] {
        let instance = deployment.client.instance(&run, task).await;
        assert_eq!(instance["state"], "failed", "{instance}");
        assert!(
            instance["reason"]
                .as_str()
                .unwrap()
                .contains("timed out after 1s"),
            "{instance}"
        );
        assert!(!sys::is_alive(deployment.ledger.of_task(task)[0].pid));
    }
    deployment.settles().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_kills_its_processes_within_a_second() {
    let deployment = Deployment::small().await;
    let (long, never) = (step("sleep 300"), step("true"));
    let yaml = format!(
        "dag_id: cancelled\ntasks:\n  long: {{shell: {long}}}\n  never: {{depends_on: [long], shell: {never}}}\n"
    );
    let run = deployment.client.start("cancelled", &yaml).await;
    deployment.client.task_is(&run, "long", "running").await;
    let started = async || deployment.ledger.has_started("long").then_some(());
    wait::until("the task to have started", SOON, started)
        .await
        .unwrap();
    let child = deployment.ledger.of_task("long")[0].pid;
    assert!(sys::is_alive(child));

    let asked = Instant::now();
    deployment
        .client
        .post(&format!("{}/cancel", run.path()), &serde_json::json!({}))
        .await;
    wait::until("the child to die", SOON, async || {
        (!sys::is_alive(child)).then_some(())
    })
    .await
    .unwrap();
    let took = asked.elapsed();
    // One second is the promise for an idle machine; tests run beside each other.
    assert!(
        took < Duration::from_secs(2),
        "the child died {took:?} after the cancel"
    );

    let ended = deployment.client.ended(&run, SOON).await;
    assert_eq!(
        (&ended["state"], &ended["cancelled"]),
        (&"failed".into(), &true.into()),
        "{ended}"
    );
    let expected = [("long", "failed"), ("never", "skipped")];
    assert_eq!(
        states(&deployment, &run).await,
        expected.map(|(t, s)| (t.to_owned(), s.to_owned())).into()
    );
    deployment.settles().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_makes_a_run_for_each_tick() {
    let deployment = Deployment::small().await;
    let yaml = format!(
        "dag_id: ticking\nschedule: \"* * * * * */2\"\ncatchup: true\ntasks:\n  t: {{shell: {}}}\n",
        step("echo $GRISTMILL_LOGICAL_DATE")
    );
    deployment.client.deploy(&yaml).await;
    let dates = "SELECT extract(epoch FROM logical_date)::bigint FROM dag_runs
        WHERE dag_id = 'ticking' AND run_type = 'scheduled' AND state = 'success' ORDER BY logical_date";
    let three = async || {
        let rows = deployment.sql(dates).await;
        (rows.lines().count() >= 3).then_some(rows)
    };
    let rows = wait::until("three scheduled runs", SOON, three)
        .await
        .unwrap();
    let seconds: Vec<i64> = rows.lines().map(|row| row.parse().unwrap()).collect();
    for pair in seconds.windows(2) {
        assert_eq!(
            pair[1] - pair[0],
            2,
            "a tick was left out or doubled: {seconds:?}"
        );
    }
    // A cron run covers the interval before it: it is made at the interval's end, not earlier.
    let early = "SELECT count(*) FROM dag_runs WHERE run_after <> logical_date + interval '2 seconds' OR started_at < run_after";
    assert_eq!(deployment.sql(early).await, "0");
}
