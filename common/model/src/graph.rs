//! Every state that a deployment can reach, and what each of them leads to.
//!
//! `stateright` checks what holds in every state. Of what must happen *in the end* it only knows the end of a path, and
//! takes a cycle, or two paths that meet, for a proof (its `Property::eventually` says so). Here the whole graph is kept,
//! so that the question can be asked of every state: is there still a way, on which nothing more goes wrong, to where the
//! work is done? If there is one from everywhere, then no infinite run can avoid it for ever without avoiding for ever
//! some step that is possible again and again: every task ends under strong fairness.

use crate::{
    action::Action,
    model::{Deployment, LIVENESS, SAFETY},
    state::State,
};
use gristmill_common::invariant::Invariant;
use stateright::Model;
use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasher, BuildHasherDefault, Hasher},
};

/// A violation, and the shortest way to it.
#[derive(Debug, Clone)]
pub struct Counterexample {
    /// What does not hold.
    pub invariant: Invariant,
    /// What led there.
    pub actions: Vec<Action>,
    /// Where it led.
    pub state: State,
}

/// What a search found.
#[derive(Debug, Clone)]
pub struct Report {
    /// States that can be reached.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// The longest of the shortest ways from the start, in steps.
    pub depth: usize,
    /// The first counterexample that was found.
    pub counterexample: Option<Counterexample>,
}

/// Where a state was first reached from.
struct Origin {
    parent: u32,
    action: Action,
}

/// Searches breadth first; safety first, then, of the whole graph, liveness.
pub fn search(model: &Deployment) -> Report {
    let mut graph = Graph {
        known: HashMap::default(),
        origins: Vec::new(),
        backwards: Vec::new(),
        reached: std::array::from_fn(|_| Vec::new()),
        steps: 0,
    };
    let mut waiting = VecDeque::new();
    let mut depth = 0;
    let start = model.start();
    graph.add(&start, 0, Action::Tick);
    waiting.push_back((0_u32, 0_usize, start));
    let mut actions = Vec::new();
    while let Some((at, steps, state)) = waiting.pop_front() {
        depth = depth.max(steps);
        for (invariant, holds) in SAFETY {
            if !holds(model, &state) {
                return graph.report(depth, Some((invariant, at, state)), model);
            }
        }
        for (goal, (_, holds)) in graph.reached.iter_mut().zip(LIVENESS) {
            if holds(model, &state) {
                goal.push(at);
            }
        }
        actions.clear();
        model.actions(&state, &mut actions);
        for action in actions.drain(..) {
            let Some(next) = model.next_state(&state, action) else {
                continue;
            };
            let (to, new) = graph.add(&next, at, action);
            graph.steps += 1;
            if next.left == state.left {
                graph.backwards.push((to, at));
            }
            if new {
                waiting.push_back((to, steps + 1, next));
            }
        }
    }
    let stuck = graph.stuck();
    graph.report(
        depth,
        stuck.map(|(invariant, at)| (invariant, at, start)),
        model,
    )
}

/// States by their fingerprint. With a million of them, the chance that two share one is below 1 in 10 million.
type Fingerprints = HashMap<u64, u32, BuildHasherDefault<Mixer>>;

/// Multiplies and folds 128 bits for every word: states are many small fields, for which the standard hasher is slow.
#[derive(Default)]
struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x9E37_79B9_7F4A_7C15) * 0xCA5A_8263_95A1_21E7;
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, n: u8) {
        self.mix(n.into());
    }
    fn write_u32(&mut self, n: u32) {
        self.mix(n.into());
    }
    fn write_u64(&mut self, n: u64) {
        self.mix(n);
    }
    fn write_isize(&mut self, n: isize) {
        self.mix(n as u64);
    }
    fn write_usize(&mut self, n: usize) {
        self.mix(n as u64);
    }
}

struct Graph {
    known: Fingerprints,
    origins: Vec<Origin>,
    /// Steps in which nothing goes wrong, by where they lead.
    backwards: Vec<(u32, u32)>,
    /// By liveness property, the states that have what it asks for.
    reached: [Vec<u32>; LIVENESS.len()],
    steps: usize,
}

impl Graph {
    /// The index of a state, and whether it is new.
    fn add(&mut self, state: &State, parent: u32, action: Action) -> (u32, bool) {
        let fingerprint = self.known.hasher().hash_one(state);
        let next = self.origins.len() as u32;
        match self.known.entry(fingerprint) {
            Entry::Occupied(known) => (*known.get(), false),
            Entry::Vacant(new) => {
                new.insert(next);
                self.origins.push(Origin { parent, action });
                (next, true)
            }
        }
    }

    /// The first state from which some goal cannot be reached any more.
    fn stuck(&mut self) -> Option<(Invariant, u32)> {
        let n = self.origins.len();
        // Counting sort by destination: the predecessors of each state stand together.
        let mut first = vec![0_u32; n + 1];
        for (to, _) in &self.backwards {
            first[*to as usize + 1] += 1;
        }
        for i in 0..n {
            first[i + 1] += first[i];
        }
        let mut fill = first.clone();
        let mut from = vec![0_u32; self.backwards.len()];
        for (to, at) in &self.backwards {
            let slot = &mut fill[*to as usize];
            from[*slot as usize] = *at;
            *slot += 1;
        }
        for (goal, (invariant, _)) in self.reached.iter().zip(LIVENESS) {
            let mut leads = vec![false; n];
            let mut waiting = goal.clone();
            while let Some(at) = waiting.pop() {
                if std::mem::replace(&mut leads[at as usize], true) {
                    continue;
                }
                let (a, b) = (first[at as usize] as usize, first[at as usize + 1] as usize);
                waiting.extend(from[a..b].iter().filter(|at| !leads[**at as usize]));
            }
            if let Some(at) = leads.iter().position(|leads| !leads) {
                return Some((invariant, at as u32));
            }
        }
        None
    }

    fn report(
        self,
        depth: usize,
        found: Option<(Invariant, u32, State)>,
        model: &Deployment,
    ) -> Report {
        let counterexample = found.map(|(invariant, at, _)| {
            let actions = self.way_to(at);
            let state = actions.iter().fold(model.start(), |state, action| {
                model.next_state(&state, *action).unwrap_or(state)
            });
            Counterexample {
                invariant,
                actions,
                state,
            }
        });
        Report {
            states: self.origins.len(),
            steps: self.steps,
            depth,
            counterexample,
        }
    }

    fn way_to(&self, mut at: u32) -> Vec<Action> {
        let mut actions = Vec::new();
        while at != 0 {
            let origin = &self.origins[at as usize];
            actions.push(origin.action);
            at = origin.parent;
        }
        actions.reverse();
        actions
    }
}
