//! Names become task ids, dependencies edges, and the tasks stand in order.

use super::{
    draft::{Draft, Drafts, Name},
    reader::Reader,
};
use crate::graph::{find_cycle, topological_order};
use std::collections::BTreeSet;

/// Cycles that are shown of one file.
const MAX_CYCLES: usize = 10;

/// What a name in a scope stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target<'d> {
    /// Position of the task.
    Task(usize),
    /// Id of the group.
    Group(&'d str),
}

/// The edges between drafts.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Of each task the positions of its direct upstreams.
    pub(super) upstream: Vec<BTreeSet<usize>>,
    /// Positions so that each task follows its upstreams, ties by id; absent if there is a cycle.
    pub(super) order: Option<Vec<usize>>,
}

impl Drafts {
    /// Looks a name up in a scope and then outwards: `b` within the group `a` is `a.b` if there is such a task.
    pub(super) fn lookup(&self, scope: &str, name: &str) -> Option<Target<'_>> {
        let mut scope = Some(scope);
        while let Some(at) = scope {
            let id = if at.is_empty() {
                name.to_owned()
            } else {
                format!("{at}.{name}")
            };
            let found = self
                .ids
                .get(&id)
                .or_else(|| self.data.get(&id))
                .map(|task| Target::Task(*task));
            let group = || {
                self.groups
                    .get_key_value(&id)
                    .map(|(id, _)| Target::Group(id))
            };
            if let Some(target) = found.or_else(group) {
                return Some(target);
            }
            scope = (!at.is_empty()).then(|| at.rsplit_once('.').map_or("", |(outer, _)| outer));
        }
        None
    }

    /// All that a name could have meant.
    pub(super) fn names(&self, scope: &str) -> impl Iterator<Item = &str> {
        let prefix = if scope.is_empty() {
            String::new()
        } else {
            format!("{scope}.")
        };
        let ids = self
            .ids
            .keys()
            .chain(self.data.keys())
            .chain(self.groups.keys());
        ids.map(move |id| id.strip_prefix(&prefix).unwrap_or(id))
    }

    fn contains(group: &str, id: &str) -> bool {
        id.strip_prefix(group)
            .is_some_and(|rest| rest.starts_with('.'))
    }

    fn targets<'d>(
        &'d self,
        reader: &mut Reader<'_>,
        scope: &str,
        own: &str,
        names: &[Name],
    ) -> Vec<Target<'d>> {
        let mut targets: Vec<Target<'_>> = Vec::new();
        for name in names {
            match self.lookup(scope, &name.name) {
                None => {
                    let diagnostic =
                        reader.error_at(&name.spot, format!("there is no task {:?}", name.name));
                    let mut candidates: Vec<&str> =
                        self.names(scope).filter(|id| *id != own).collect();
                    candidates.sort_unstable();
                    *diagnostic = diagnostic.clone().suggest(&name.name, candidates);
                }
                Some(Target::Group(group)) if group == own || Self::contains(group, own) => {
                    let message =
                        format!("{own:?} is in the group {group:?} and so cannot wait for it");
                    reader.error_at(&name.spot, message);
                }
                Some(target) if targets.contains(&target) => {
                    reader.warn_at(&name.spot, format!("{:?} is named twice", name.name));
                }
                Some(target) => targets.push(target),
            }
        }
        targets
    }

    /// What a task waits for: what it depends on and, of a teardown, its setups, which may stand there as well.
    fn upstream_names(&self, task: &Draft) -> Vec<Name> {
        let named = |name: &Name| self.lookup(&task.scope, &name.name);
        let mut names = task.depends_on.clone();
        for setup in &task.setups {
            if !task
                .depends_on
                .iter()
                .any(|name| named(name) == named(setup))
            {
                names.push(setup.clone());
            }
        }
        names
    }

    /// Resolves every name; what is wrong is noted.
    pub(super) fn resolve(&self, reader: &mut Reader<'_>) -> Resolved {
        let own: Vec<Vec<Target<'_>>> = self
            .tasks
            .iter()
            .map(|task| self.targets(reader, &task.scope, &task.id, &self.upstream_names(task)))
            .collect();
        let groups: Vec<(&str, &str, Vec<Target<'_>>)> = self
            .groups
            .iter()
            .map(|(id, group)| {
                (
                    id.as_str(),
                    group.scope.as_str(),
                    self.targets(reader, &group.scope, id, &group.depends_on),
                )
            })
            .collect();
        let target_id = |target: &Target<'_>| match target {
            Target::Task(task) => self.tasks[*task].id.clone(),
            Target::Group(id) => (*id).to_owned(),
        };
        let group = |id: &str| groups.iter().find(|(name, ..)| *name == id);
        // A group's upstreams are those of its members that have none within it.
        let inherited = |task: usize| {
            let mut targets = own[task].clone();
            let mut scope = self.tasks[task].scope.as_str();
            while let Some((_, outer, of_group)) = group(scope)
                && !targets
                    .iter()
                    .any(|target| Self::contains(scope, &target_id(target)))
            {
                targets.extend(of_group.iter().copied());
                scope = outer;
            }
            targets
        };
        // To wait for a group is to wait for its members that no other member waits for. Nobody waits for teardowns in this
        // way: what they clean up after is all that matters, and a setup is not what a group is there for.
        let has_teardown = |setup: usize| {
            let waits = |own: &[Target<'_>]| own.contains(&Target::Task(setup));
            let mut tasks = self.tasks.iter().zip(&own);
            tasks.any(|(task, own)| task.is_teardown() && waits(own))
        };
        let leaves = |id: &str| -> Vec<usize> {
            let within = |other: &str| Self::contains(id, other);
            let of_tasks = self
                .tasks
                .iter()
                .zip(&own)
                .filter(|(task, _)| within(&task.id) && !task.is_teardown())
                .map(|(_, targets)| targets);
            let of_groups = groups
                .iter()
                .filter(|(group, ..)| within(group))
                .map(|(.., targets)| targets);
            let waited_for: BTreeSet<Target<'_>> =
                of_tasks.chain(of_groups).flatten().copied().collect();
            let waited_groups: Vec<&str> = waited_for
                .iter()
                .filter_map(|target| match target {
                    Target::Group(group) => Some(*group),
                    Target::Task(_) => None,
                })
                .collect();
            let members = self
                .tasks
                .iter()
                .enumerate()
                .filter(|(_, task)| within(&task.id) && !task.is_teardown());
            let ends: Vec<usize> = members
                .filter(|(i, task)| {
                    !waited_for.contains(&Target::Task(*i))
                        && !waited_groups
                            .iter()
                            .any(|group| Self::contains(group, &task.id))
                })
                .map(|(i, _)| i)
                .collect();
            let is_end = |i: &usize| !(self.tasks[*i].is_setup() && has_teardown(*i));
            let work: Vec<usize> = ends.iter().copied().filter(is_end).collect();
            if work.is_empty() { ends } else { work }
        };
        let group_leaves: std::collections::HashMap<&str, Vec<usize>> =
            groups.iter().map(|(id, ..)| (*id, leaves(id))).collect();
        let upstream: Vec<BTreeSet<usize>> = (0..self.tasks.len())
            .map(|task| {
                let mut upstream = BTreeSet::new();
                for target in inherited(task) {
                    match target {
                        Target::Task(task) => drop(upstream.insert(task)),
                        Target::Group(group) => {
                            upstream.extend(group_leaves.get(group).into_iter().flatten())
                        }
                    }
                }
                upstream
            })
            .collect();
        let order = self.order(reader, &upstream);
        Resolved { upstream, order }
    }

    fn order(&self, reader: &mut Reader<'_>, upstream: &[BTreeSet<usize>]) -> Option<Vec<usize>> {
        // By id, so that the order of tasks in the file makes no difference to the specification.
        let mut by_id: Vec<usize> = (0..self.tasks.len()).collect();
        by_id.sort_by(|a, b| self.tasks[*a].id.cmp(&self.tasks[*b].id));
        let mut rank = vec![0; by_id.len()];
        for (place, task) in by_id.iter().enumerate() {
            rank[*task] = place;
        }
        let mut edges: Vec<(usize, usize)> = upstream
            .iter()
            .enumerate()
            .flat_map(|(to, ups)| ups.iter().map(move |from| (*from, to)))
            .map(|(from, to)| (rank[from], rank[to]))
            .collect();
        if let Some(order) = topological_order(by_id.len(), &edges) {
            return Some(order.into_iter().map(|place| by_id[place]).collect());
        }
        for _ in 0..MAX_CYCLES {
            let Some(cycle) = find_cycle(by_id.len(), &edges) else {
                break;
            };
            let task = |place: usize| &self.tasks[by_id[place]];
            let path: Vec<&str> = cycle
                .iter()
                .chain(cycle.first())
                .map(|place| task(*place).id.as_str())
                .collect();
            if let [first, ..] = cycle.as_slice() {
                let spot = task(*first)
                    .depends_on
                    .first()
                    .map_or_else(|| task(*first).spot.clone(), |name| name.spot.clone());
                reader.error_at(
                    &spot,
                    format!("these tasks wait for each other: {}", path.join(" → ")),
                );
            }
            // What is left may hold another one.
            let on_cycle: BTreeSet<usize> = cycle.into_iter().collect();
            edges.retain(|(from, to)| !(on_cycle.contains(from) && on_cycle.contains(to)));
        }
        None
    }
}
