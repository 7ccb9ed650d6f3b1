//! What one ending costs: its own edges, whatever the size of the run around it.

use super::harness::*;
use crate::{
    ids::TiPk,
    limit::LimitKey,
    message::Ending::Success,
    state::{RunState, TaskState},
};
use serde_json::{Value, json};

/// A started run of these tasks, within no limits.
fn unlimited(tasks: Vec<Value>) -> World {
    let spec = json!({"dag_id": "d", "max_active_tasks": 100_000, "tasks": tasks});
    let mut world = World::of(serde_json::from_value(spec).unwrap(), 1);
    for limit in world.limits.values_mut() {
        if !matches!(limit.key, LimitKey::DagRuns { .. }) {
            limit.cap = 100_000;
        }
    }
    world.recount = false;
    world.start();
    world
}

/// Ends everything that is ready, one transaction each. Answers what each cost.
fn end_all(world: &mut World) -> Vec<Work> {
    world.dispatch();
    let out = world.in_state(&[TaskState::Queued]);
    let out: Vec<TiPk> = out.iter().map(|row| row.pk).collect();
    let end = |ti: TiPk| {
        let row = world.tis[&ti].clone();
        world.apply(&[finished(&row, Success)]).work
    };
    out.into_iter().map(end).collect()
}

/// Each ending writes its own row and the counter of each node below it, and nothing else is touched.
fn assert_bounded(costs: &[Work], edges: usize) {
    for cost in costs {
        assert_eq!(cost.edges_counted, edges as u64, "{cost:?}");
        assert_eq!(cost.nodes_loaded, edges, "{cost:?}");
        assert_eq!(cost.rows_written, 1 + edges, "{cost:?}");
        assert!(cost.loads <= 1, "{cost:?}");
    }
}

#[test]
fn a_mapped_task_after_a_mapped_task_costs_edges_not_pairs() {
    let list: Vec<u32> = (0..1000).collect();
    let mapped = |id, upstreams: &[&str]| task(id, upstreams, json!({"expand": {"x": list}}));
    let mut world = unlimited(vec![
        mapped("a", &[]),
        mapped("b", &["a"]),
        mapped("c", &["b"]),
        task("join", &["a", "c"], json!({})),
    ]);
    for (edges, n) in [(2, 1000), (1, 1000), (1, 1000), (0, 1)] {
        let costs = end_all(&mut world);
        assert_eq!(costs.len(), n);
        // The last one expands what is below: that task's own node, and once the total of the node below it.
        let (last, others) = costs.split_last().unwrap();
        assert_bounded(others, edges);
        assert_eq!(last.edges_counted, edges as u64);
        assert!(
            last.nodes_loaded <= edges + 2 && last.rows_written <= edges + 3,
            "{last:?}"
        );
        world.check();
    }
    assert_eq!(world.run().state, RunState::Success);
    assert_eq!(world.edges_counted, 2000 + 1000 + 1000);
}

#[test]
fn what_an_ending_has_nothing_to_do_with_costs_nothing() {
    let costs = [10, 2000].map(|others| {
        let ids: Vec<String> = (0..others).map(|i| format!("t{i}")).collect();
        let alone = ids.iter().map(|id| task(id, &[], json!({})));
        let pair = [task("a", &[], json!({})), task("b", &["a"], json!({}))];
        let mut world = unlimited(pair.into_iter().chain(alone).collect());
        world.end("a", Success).work
    });
    assert_eq!(costs[0], costs[1]);
    assert_bounded(&costs, 1);
}

#[test]
fn a_fan_out_costs_its_edges_once_and_a_fan_in_one_edge_an_ending() {
    let ids: Vec<String> = (0..500).map(|i| format!("t{i}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut tasks = vec![task("root", &[], json!({}))];
    tasks.extend(ids.iter().map(|id| task(id, &["root"], json!({}))));
    tasks.push(task("join", &ids, json!({})));
    let mut world = unlimited(tasks);
    assert_bounded(&end_all(&mut world), 500);
    assert_bounded(&end_all(&mut world), 1);
    assert_bounded(&end_all(&mut world), 0);
    world.check();
    assert_eq!(world.run().state, RunState::Success);
}
