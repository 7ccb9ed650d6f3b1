//! The reference itself: small cases by hand, and its cost.

use super::*;
use crate::trigger_rule::TriggerRule;
use rstest::rstest;
use serde_json::{Value, json};

/// By task: the outcomes of its tries (the last one again and again), its list, its interruptions.
#[derive(Default)]
struct Told {
    outcomes: HashMap<TaskIdx, Vec<Outcome>>,
    lists: HashMap<TaskIdx, Vec<List>>,
    interrupted: HashMap<TaskIdx, Interrupted>,
}

impl Script for Told {
    fn outcome(&self, task: TaskIdx, _: i32, try_number: i32) -> Outcome {
        let Some(outcomes) = self.outcomes.get(&task) else {
            return Outcome::Success;
        };
        let at = (try_number as usize - 1).min(outcomes.len() - 1);
        outcomes[at]
    }

    fn lists(&self, task: TaskIdx, _: &str) -> Vec<List> {
        self.lists[&task].clone()
    }

    fn interrupted(&self, task: TaskIdx, _: i32) -> Interrupted {
        let known = self.interrupted.get(&task).cloned();
        known.unwrap_or(Interrupted::NEVER)
    }
}

fn dag(tasks: Value) -> DagSpec {
    serde_json::from_value(json!({"dag_id": "d", "tasks": tasks})).unwrap()
}

fn task(id: &str, upstreams: &[&str], more: Value) -> Value {
    let mut task = json!({"task_id": id, "depends_on": upstreams});
    if more.get("empty").is_none() {
        task["noop"] = json!({});
    }
    for (key, value) in more.as_object().unwrap() {
        task[key] = value.clone();
    }
    task
}

fn shown(answer: &Answer) -> Vec<String> {
    let single = answer.tasks.iter().map(|task| task.single.to_string());
    single.collect()
}

fn of(outcomes: &[(TaskIdx, &[Outcome])]) -> Told {
    Told {
        outcomes: outcomes
            .iter()
            .map(|(idx, list)| (*idx, list.to_vec()))
            .collect(),
        ..Told::default()
    }
}

fn saw(map_index: i32, state: TaskState, tries: i32) -> Observed {
    Observed {
        map_index,
        state,
        tries,
    }
}

const UPSTREAM: [(char, Outcome); 3] = [
    ('S', Outcome::Success),
    ('F', Outcome::Failed),
    ('K', Outcome::Skipped),
];

/// Each case: how three upstreams end, and what the task may come to: run, skipped (k), upstream failed (u).
#[rstest]
#[case("all_success", "SSS r, SFS u, SKS k, FKS uk, KKK k, FFF u")]
#[case("all_failed", "FFF r, FFS k, FFK k, KKK k")]
#[case("all_done", "SFK r, KKK r, FFF r")]
#[case("all_done_setup_success", "SFK r")]
#[case("always", "SFK r, FFF r")]
#[case("one_success", "SFK r, FFF u, FFK u, KKK k")]
#[case("one_failed", "SFK r, SSS k, KKK k, SKS k")]
#[case("one_done", "SKK r, FKK r, KKK k")]
#[case("none_failed", "SSS r, SKK r, KKK r, SFK u")]
#[case("none_failed_min_one_success", "SKK r, KKK k, SSF u, KKF u")]
#[case("none_skipped", "SFS r, SFK k")]
#[case("all_skipped", "KKK r, KKS k, KKF k")]
#[case("all_done_min_one_success", "SFF r, FFF u, SSK k, FFK k")]
fn rules_say(#[case] rule: &str, #[case] cases: &str) {
    let ends_in = |letter| UPSTREAM.iter().find(|(c, _)| *c == letter).unwrap().1;
    for case in cases.split(", ") {
        let (upstreams, allowed) = case.split_once(' ').unwrap();
        let outcomes: Vec<Outcome> = upstreams.chars().map(ends_in).collect();
        let outcomes = (0..).zip(outcomes.chunks(1)).collect::<Vec<_>>();
        let spec = dag(json!([
            task("a", &[], json!({})),
            task("b", &[], json!({})),
            task("c", &[], json!({})),
            task("d", &["a", "b", "c"], json!({"trigger_rule": rule})),
        ]));
        let answer = evaluate(&spec, &of(&outcomes), Stop::Never);
        let mut expected = Endings::default();
        for letter in allowed.chars() {
            match letter {
                'r' => expected.add(TaskState::Success, 1..=1),
                'k' => expected.add(TaskState::Skipped, 0..=0),
                _ => expected.add(TaskState::UpstreamFailed, 0..=0),
            }
        }
        assert_eq!(answer.tasks[3].single, expected, "{rule} {case}");
    }
}

/// The rules are written twice; the counters' version must agree on everything that has ended.
#[test]
fn no_rule_is_left_out() {
    let rules: BTreeSet<String> = TriggerRule::ALL.map(|(_, name)| name.to_owned()).into();
    let page = include_str!("tests.rs");
    let cases = page.split("#[case(\"").skip(1);
    let named: BTreeSet<String> = cases
        .map(|case| case.split('"').next().unwrap().to_owned())
        .collect();
    assert!(named.is_superset(&rules), "{named:?}");
}

#[rstest]
#[case(0, Interrupted::NEVER, "failed after 1 try")]
#[case(2, Interrupted::NEVER, "success after 3 tries")]
// The second failure is lost: the script goes by the try's number.
#[case(2, Interrupted::Tries(vec![(2, Interruption::Lost)]), "success after 3 tries")]
#[case(1, Interrupted::Tries(vec![(3, Interruption::Requeued)]), "failed after 2 tries")]
#[case(0, Interrupted::Tries(vec![(1, Interruption::Lost), (2, Interruption::Requeued)]), "success after 3 tries")]
#[case(9, Interrupted::Tries(vec![(2, Interruption::Lost), (3, Interruption::Lost), (4, Interruption::Requeued), (5, Interruption::Lost)]), "failed after 5 tries")]
#[case(0, Interrupted::AtMost(1), "failed after 1 to 2 tries")]
#[case(
    0,
    Interrupted::AtMost(2),
    "success after 3 tries or failed after 1 to 2 tries"
)]
#[case(
    0,
    Interrupted::AtMost(3),
    "success after 3 to 4 tries or failed after 1 to 3 tries"
)]
fn tries_are_counted(
    #[case] retries: u32,
    #[case] interrupted: Interrupted,
    #[case] expected: &str,
) {
    let spec = dag(json!([task("a", &[], json!({"retries": retries}))]));
    let mut told = of(&[(0, &[Outcome::Failed, Outcome::Failed, Outcome::Success])]);
    told.interrupted.insert(0, interrupted);
    assert_eq!(shown(&evaluate(&spec, &told, Stop::Never)), [expected]);
}

#[test]
fn a_run_is_as_its_leaves() {
    let spec = dag(json!([
        task("a", &[], json!({})),
        task("mend", &["a"], json!({"trigger_rule": "one_failed"})),
        task("below", &["a"], json!({})),
    ]));
    let fails = of(&[(0, &[Outcome::FailedForGood])]);
    let answer = evaluate(&spec, &fails, Stop::Never);
    assert_eq!(
        shown(&answer),
        [
            "failed after 1 try",
            "success after 1 try",
            "upstream_failed without a try"
        ]
    );
    assert_eq!(answer.run, [RunState::Failed]);
    let answer = evaluate(&dag(json!([])), &fails, Stop::Never);
    assert_eq!(answer.run, [RunState::Success]);
    assert_eq!(answer.judge(RunState::Success, &[]), []);
}

#[test]
fn a_mapped_task_has_its_lists_product_of_instances() {
    let spec = dag(json!([
        task(
            "m",
            &[],
            json!({"expand": {"x": [1, 2, 3], "y": "{{ params.list }}"}})
        ),
        task("all", &["m"], json!({})),
        task(
            "any",
            &["m"],
            json!({"trigger_rule": "none_failed_min_one_success"})
        ),
    ]));
    let mut told = Told::default();
    told.lists.insert(0, vec![List::Length(2)]);
    let answer = evaluate(&spec, &told, Stop::Never);
    assert_eq!(
        (&answer.tasks[0].lengths, answer.tasks[0].mapped.len()),
        (&[6].into(), 6)
    );
    assert!(answer.tasks[0].single.is_empty());
    for (list, expected) in [
        (List::Length(0), ["skipped without a try"; 3]),
        (
            List::None,
            [
                "failed without a try",
                "upstream_failed without a try",
                "upstream_failed without a try",
            ],
        ),
        (
            List::Length(33_334),
            [
                "failed without a try",
                "upstream_failed without a try",
                "upstream_failed without a try",
            ],
        ),
    ] {
        told.lists.insert(0, vec![list]);
        assert_eq!(
            shown(&evaluate(&spec, &told, Stop::Never)),
            expected,
            "{list:?}"
        );
    }
    // The order of events decides which list it is.
    told.lists.insert(0, vec![List::None, List::Length(1)]);
    let answer = evaluate(&spec, &told, Stop::Never);
    assert_eq!(
        answer.tasks[1].single.to_string(),
        "success after 1 try or upstream_failed without a try"
    );
    let upstream_failed = vec![saw(-1, TaskState::UpstreamFailed, 0)];
    let fine = [
        vec![saw(-1, TaskState::Failed, 0)],
        upstream_failed.clone(),
        upstream_failed.clone(),
    ];
    assert_eq!(answer.judge(RunState::Failed, &fine), []);
    // Each of the two is possible, but not this one after that one.
    let success = [
        saw(0, TaskState::Success, 1),
        saw(1, TaskState::Success, 1),
        saw(2, TaskState::Success, 1),
    ];
    let wrong = [success.to_vec(), upstream_failed.clone(), upstream_failed];
    let wrong = answer.judge(RunState::Failed, &wrong);
    assert!(
        matches!(
            wrong[..],
            [Contradiction::Rule { .. }, Contradiction::Rule { .. }]
        ),
        "{wrong:?}"
    );
}

#[test]
fn instances_must_be_those_of_the_list() {
    let spec = dag(json!([task("m", &[], json!({"expand": {"x": [1, 2, 3]}}))]));
    let answer = evaluate(&spec, &Told::default(), Stop::Never);
    let judge = |indexes: &[i32]| {
        let seen = indexes
            .iter()
            .map(|i| saw(*i, TaskState::Success, 1))
            .collect();
        answer.judge(RunState::Success, &[seen])
    };
    assert_eq!(judge(&[2, 0, 1]), []);
    for (indexes, odd) in [
        (&[0, 1][..], 2),
        (&[0, 2], 1),
        (&[0, 1, 1], 1),
        (&[-1], -1),
        (&[], 0),
        (&[0, 1, 2, 3], 4),
    ] {
        let wrong = judge(indexes);
        let Contradiction::Instances { map_index, .. } = &wrong[0] else {
            panic!("{wrong:?}")
        };
        assert_eq!(*map_index, odd, "{indexes:?}");
    }
}

#[test]
fn what_cannot_be_is_named() {
    let spec = dag(json!([
        task("a", &[], json!({"retries": 1})),
        task("b", &["a"], json!({}))
    ]));
    let answer = evaluate(&spec, &Told::default(), Stop::Never);
    let judge = |run, a: Observed, b: Observed| -> Vec<String> {
        let wrong = answer.judge(run, &[vec![a], vec![b]]);
        wrong.iter().map(ToString::to_string).collect()
    };
    let good = saw(-1, TaskState::Success, 1);
    assert!(judge(RunState::Success, good, good).is_empty());
    assert_eq!(
        judge(RunState::Failed, good, good),
        ["the run is failed; allowed: success"]
    );
    assert_eq!(
        judge(RunState::Success, saw(-1, TaskState::Success, 2), good),
        ["a[-1] is success after 2 tries; allowed: success after 1 try"]
    );
    assert_eq!(
        judge(RunState::Success, good, saw(-1, TaskState::Running, 1)).len(),
        1
    );
    assert_eq!(
        judge(RunState::Success, good, saw(-1, TaskState::Skipped, 0)),
        ["b[-1] is skipped after 0 tries; allowed: success after 1 try"]
    );
}

#[test]
fn a_stop_skips_or_fails_what_had_not_ended_and_invents_nothing() {
    let spec = dag(json!([
        task("a", &[], json!({"retries": 1})),
        task("b", &["a"], json!({"trigger_rule": "all_failed"})),
        task("e", &["b"], json!({"empty": {}})),
    ]));
    let told = of(&[(0, &[Outcome::Failed, Outcome::Success])]);
    let answer = evaluate(&spec, &told, Stop::AtSomeMoment);
    assert_eq!(
        shown(&answer),
        [
            "success after 2 tries or failed after 1 to 2 tries or skipped after 0 to 2 tries",
            "skipped without a try",
            "skipped without a try",
        ]
    );
    assert_eq!(answer.run, [RunState::Failed]);
    // Stopped before it started.
    assert_eq!(
        answer.judge(RunState::Failed, &[vec![], vec![], vec![]]),
        []
    );
    assert_eq!(
        answer
            .judge(
                RunState::Failed,
                &[vec![saw(-1, TaskState::Failed, 1)], vec![], vec![]]
            )
            .len(),
        2
    );
    assert_eq!(
        answer
            .judge(RunState::Success, &[vec![], vec![], vec![]])
            .len(),
        1
    );
}

/// Two mapped tasks of 100,000 one after the other: their pairs would be 10¹⁰.
#[test]
fn the_cost_is_linear() {
    let spec = dag(json!([
        task(
            "a",
            &[],
            json!({"expand": {"x": "{{ params.list }}"}, "retries": 2})
        ),
        task(
            "b",
            &["a"],
            json!({"expand": {"x": "{{ params.list }}"}, "trigger_rule": "all_done"})
        ),
        task("c", &["a", "b"], json!({"trigger_rule": "none_skipped"})),
    ]));
    let mut told = of(&[(0, &[Outcome::Failed, Outcome::Success])]);
    for idx in 0..2 {
        told.lists.insert(idx, vec![List::Length(100_000)]);
    }
    told.interrupted.insert(0, Interrupted::AtMost(2));
    let began = crate::cpu_time::cpu_time();
    let answer = evaluate(&spec, &told, Stop::Never);
    let seen = |tries| {
        (0..100_000)
            .map(|i| saw(i, TaskState::Success, tries))
            .collect()
    };
    let wrong = answer.judge(
        RunState::Success,
        &[seen(2), seen(1), vec![saw(-1, TaskState::Success, 1)]],
    );
    assert_eq!(wrong, []);
    let cost = crate::cpu_time::cpu_time() - began;
    assert!(cost.as_secs() < 10, "{cost:?}");
}
