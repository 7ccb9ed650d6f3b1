//! Questions about graphs that may still be wrong: used while a DAG file is read.

use petgraph::{
    algo::tarjan_scc,
    graph::{DiGraph, NodeIndex},
    visit::EdgeRef,
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
};

/// A shortest cycle among `n` nodes with the given edges (from, to): its nodes in order, the first not repeated at the
/// end. `None` if there is none. An edge from a node to itself is a cycle of one.
pub fn find_cycle(n: usize, edges: &[(usize, usize)]) -> Option<Vec<usize>> {
    let mut graph = DiGraph::<(), ()>::with_capacity(n, edges.len());
    for _ in 0..n {
        graph.add_node(());
    }
    for (from, to) in edges {
        if from == to {
            return Some(vec![*from]);
        }
        graph.add_edge(NodeIndex::new(*from), NodeIndex::new(*to), ());
    }
    // The smallest strongly connected component holds the cycle that is easiest to read.
    let component = tarjan_scc(&graph)
        .into_iter()
        .filter(|c| c.len() > 1)
        .min_by_key(Vec::len)?;
    let component: HashSet<NodeIndex> = component.into_iter().collect();
    let start = component.iter().copied().min()?;
    // Breadth first from `start`, within the component, back to `start`.
    let mut from: HashMap<NodeIndex, NodeIndex> = HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for edge in graph.edges(at) {
            let next = edge.target();
            if next == start {
                let mut path = vec![at.index()];
                let mut node = at;
                while let Some(previous) = from.get(&node) {
                    path.push(previous.index());
                    node = *previous;
                }
                path.reverse();
                return Some(path);
            }
            if component.contains(&next) && !from.contains_key(&next) {
                from.insert(next, at);
                queue.push_back(next);
            }
        }
    }
    None
}

/// The nodes so that every edge (from, to) goes forward; among those that could come next, the lowest number does.
/// `None` if there is a cycle.
pub fn topological_order(n: usize, edges: &[(usize, usize)]) -> Option<Vec<usize>> {
    let mut waits = vec![0usize; n];
    let mut next = vec![Vec::new(); n];
    for (from, to) in edges {
        waits[*to] += 1;
        next[*from].push(*to);
    }
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..n).filter(|i| waits[*i] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(n);
    while let Some(Reverse(at)) = ready.pop() {
        order.push(at);
        for to in &next[at] {
            waits[*to] -= 1;
            if waits[*to] == 0 {
                ready.push(Reverse(*to));
            }
        }
    }
    (order.len() == n).then_some(order)
}
