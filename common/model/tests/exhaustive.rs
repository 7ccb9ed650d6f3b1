//! Every deployment of the quick set, in every order of events.

use gristmill_model::{graph::search, model::Deployment, setups};
use stateright::{Checker, Model};

/// One after the other: each by itself takes seconds, and its memory goes with it.
#[test]
fn what_must_hold_holds_in_every_state() {
    for (name, deployment) in setups::quick() {
        let report = search(&deployment);
        println!(
            "{name}: {} states, {} steps, {} deep",
            report.states, report.steps, report.depth
        );
        if let Some(found) = report.counterexample {
            panic!(
                "{name}: {} ({}) does not hold after {:#?} in {:#?}",
                found.invariant,
                found.invariant.statement(),
                found.actions,
                found.state
            );
        }
    }
}

/// The search of this crate keeps the graph, for liveness; stateright's own finds the same states.
#[test]
fn stateright_finds_the_same_states() {
    for (name, deployment) in setups::quick() {
        if !["a failure and a retry", "cancel and duplicates"].contains(&name) {
            continue;
        }
        let report = search(&deployment);
        let checker = deployment.checker().spawn_bfs().join();
        checker.assert_properties();
        assert_eq!(checker.unique_state_count(), report.states, "{name}");
    }
}

#[test]
fn without_faults_there_is_little_to_see_but_everything_ends() {
    let report = search(&Deployment::default());
    assert!(report.counterexample.is_none(), "{report:#?}");
    assert!(report.states > 50, "{report:#?}");
}
