use super::*;
use proptest::prelude::*;
use serde_json::json;

fn spec(tasks: &[(&str, &[&str])]) -> DagSpec {
    let tasks: Vec<_> = tasks
        .iter()
        .map(|(id, ups)| json!({"task_id": id, "empty": {}, "depends_on": ups}))
        .collect();
    serde_json::from_value(json!({"dag_id": "d", "tasks": tasks})).unwrap()
}

#[test]
fn a_diamond() {
    let graph = Graph::of(&spec(&[
        ("a", &[]),
        ("b", &["a"]),
        ("c", &["a", "a"]),
        ("d", &["b", "c", "nowhere"]),
    ]));
    assert_eq!(graph.len(), 4);
    assert_eq!(graph.upstream(3), [1, 2]);
    assert_eq!(graph.downstream(0), [1, 2]);
    assert_eq!((graph.roots(), graph.leaves()), (&[0][..], &[3][..]));
    assert!(graph.depends_on(3, 0) && !graph.depends_on(0, 3) && !graph.depends_on(2, 1));
    assert_eq!(graph.all_downstream(0), [1, 2, 3]);
    assert_eq!(graph.all_upstream(3), [0, 1, 2]);
    // `d` counts once for `a`, though two paths lead to it.
    assert_eq!([0, 1, 2, 3].map(|i| graph.priority(i)), [4, 2, 2, 1]);
    assert!(graph.upstream(-1).is_empty() && graph.downstream(9).is_empty());
}

#[test]
fn weight_rules() {
    let mut spec = spec(&[("a", &[]), ("b", &["a"]), ("c", &["b"])]);
    for (task, weight) in spec.tasks.iter_mut().zip([5, 7, i32::MAX]) {
        task.priority_weight = weight;
    }
    spec.tasks[1].weight_rule = WeightRule::Upstream;
    spec.tasks[2].weight_rule = WeightRule::Absolute;
    let graph = Graph::of(&spec);
    assert_eq!(
        [0, 1, 2].map(|i| graph.priority(i)),
        [i32::MAX, 12, i32::MAX]
    );
}

#[test]
fn cycles_are_short_paths() {
    assert_eq!(find_cycle(3, &[(0, 1), (1, 2)]), None);
    assert_eq!(find_cycle(2, &[(1, 1)]), Some(vec![1]));
    assert_eq!(
        find_cycle(4, &[(0, 1), (1, 2), (2, 3), (3, 1)]),
        Some(vec![1, 2, 3])
    );
    assert_eq!(
        find_cycle(4, &[(0, 1), (1, 2), (2, 3), (3, 0), (2, 0)]),
        Some(vec![0, 1, 2])
    );
}

proptest! {
    #[test]
    fn order_or_cycle(n in 1usize..12, raw in proptest::collection::vec((0usize..12, 0usize..12), 0..30)) {
        let edges: Vec<_> = raw.into_iter().map(|(a, b)| (a % n, b % n)).collect();
        match topological_order(n, &edges) {
            Some(order) => {
                let mut place = vec![0; n];
                for (i, node) in order.iter().enumerate() { place[*node] = i; }
                prop_assert!(edges.iter().all(|(a, b)| place[*a] < place[*b]));
                prop_assert!(find_cycle(n, &edges).is_none());
            }
            None => {
                let cycle = find_cycle(n, &edges).unwrap();
                for (i, from) in cycle.iter().enumerate() {
                    let to = cycle[(i + 1) % cycle.len()];
                    prop_assert!(edges.contains(&(*from, to)));
                }
            }
        }
    }
}
