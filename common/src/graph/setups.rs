//! Who hears of whom because of setups and teardowns, beyond the direct edges. The meaning is Airflow's.

use super::Graph;
use crate::{ids::TaskIdx, spec::DagSpec, trigger_rule::TriggerRule};

impl Graph {
    /// The indirect edges (from, to), without the direct ones:
    ///
    /// - from a setup to every task downstream of it that it was made for: those that stand above one of its teardowns or,
    ///   if it has none, all;
    /// - to a teardown from every task between one of its setups and itself. The rule of teardowns looks at direct upstreams,
    ///   and these may have ended before others that still use what the setup made.
    pub(super) fn indirect_edges(&self, spec: &DagSpec) -> Vec<(TaskIdx, TaskIdx)> {
        let is_setup = |idx: TaskIdx| spec.task(idx).is_some_and(|task| task.setup);
        let is_teardown = |idx: TaskIdx| spec.task(idx).is_some_and(|task| task.teardown.is_some());
        // By its rule: a teardown, or what behaves like one.
        let looks_at_setups = |idx: TaskIdx| {
            let rule = spec.task(idx).map(|task| task.trigger_rule);
            is_teardown(idx) || rule == Some(TriggerRule::AllDoneSetupSuccess)
        };
        let tasks = || 0..spec.tasks.len() as TaskIdx;
        let mut edges = Vec::new();
        for setup in tasks().filter(|idx| is_setup(*idx)) {
            let direct = self.downstream(setup);
            let teardowns: Vec<TaskIdx> = direct
                .iter()
                .copied()
                .filter(|idx| is_teardown(*idx))
                .collect();
            let mut above = vec![teardowns.is_empty(); spec.tasks.len()];
            for teardown in &teardowns {
                for up in self.all_upstream(*teardown) {
                    above[up as usize] = true;
                }
            }
            let needs = |idx: &TaskIdx| {
                above[*idx as usize] && !looks_at_setups(*idx) && direct.binary_search(idx).is_err()
            };
            let below = self.all_downstream(setup);
            edges.extend(
                below
                    .iter()
                    .filter(|idx| needs(idx))
                    .map(|idx| (setup, *idx)),
            );
        }
        for teardown in tasks().filter(|idx| is_teardown(*idx)) {
            let direct = self.upstream(teardown);
            let mut between = vec![false; spec.tasks.len()];
            for setup in direct.iter().filter(|idx| is_setup(**idx)) {
                for down in self.all_downstream(*setup) {
                    between[down as usize] = true;
                }
            }
            let in_scope =
                |idx: &TaskIdx| between[*idx as usize] && direct.binary_search(idx).is_err();
            let above = self.all_upstream(teardown);
            edges.extend(
                above
                    .iter()
                    .filter(|idx| in_scope(idx))
                    .map(|idx| (*idx, teardown)),
            );
        }
        edges
    }
}
