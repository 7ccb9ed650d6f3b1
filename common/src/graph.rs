//! The dependency graph of one DAG version, as the scheduler reads it: who is directly upstream and downstream of whom,
//! by position. Built once per version; every query on the hot path is an index into a slice.

use crate::{
    ids::TaskIdx,
    spec::{DagSpec, WeightRule},
};
use petgraph::{
    algo::tarjan_scc,
    csr::Csr,
    graph::{DiGraph, NodeIndex},
};
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};

/// Direct edges both ways, roots, leaves and effective priorities of a DAG's tasks.
#[derive(Debug, Clone)]
pub struct Graph {
    upstream: Csr<(), (), petgraph::Directed, u32>,
    downstream: Csr<(), (), petgraph::Directed, u32>,
    /// The neighbours of all tasks, one after the other, as [`TaskIdx`]; `bounds` cuts them.
    upstream_idx: Adjacency,
    downstream_idx: Adjacency,
    roots: Vec<TaskIdx>,
    leaves: Vec<TaskIdx>,
    priorities: Vec<i32>,
}

/// Lists of task positions, packed: the list of task `i` is `items[bounds[i]..bounds[i + 1]]`.
#[derive(Debug, Clone)]
struct Adjacency {
    bounds: Vec<u32>,
    items: Vec<TaskIdx>,
}
