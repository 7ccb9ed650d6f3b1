//! Whole deployments under a simulated clock: random DAGs, limits and orders of events, held against the reference.
//!
//! [`shape`] makes DAGs, [`driver`] lets hostile events happen and then a calm end, [`ledger`] knows from outside what is
//! out, what waits and what each try came to, without asking the engine. A failing case is two values, a shape and a seed,
//! and runs the same again.

mod driver;
mod ledger;
mod shape;

use driver::Driver;
use proptest::prelude::*;
use shape::deployment;

/// So many cases unless `PROPTEST_CASES` says otherwise.
fn config(cases: u32) -> ProptestConfig {
    let told = ProptestConfig::default();
    ProptestConfig {
        cases: match std::env::var_os("PROPTEST_CASES") {
            Some(_) => told.cases,
            None => cases,
        },
        failure_persistence: None,
        ..told
    }
}

proptest! {
    #![proptest_config(config(128))]

    /// Counters, limits and the bound of the work are checked by the harness after every transaction.
    #[test]
    fn every_order_of_events_ends_as_the_reference_says(deployment in deployment(false), seed in any::<u64>()) {
        let mut driver = Driver::new(&deployment, seed, false);
        driver.run_to_the_end();
        driver.verify();
    }

    /// The same with branches, short circuits, setups and teardowns.
    #[test]
    fn so_do_runs_whose_tasks_decide_and_clean_up(deployment in deployment(true), seed in any::<u64>()) {
        let mut driver = Driver::new(&deployment, seed, false);
        driver.run_to_the_end();
        driver.verify();
    }

    /// The same with runs that are cancelled, or run out of time.
    #[test]
    fn stopped_runs_end_and_others_are_none_the_worse(deployment in deployment(false), seed in any::<u64>()) {
        let mut driver = Driver::new(&deployment, seed, true);
        driver.run_to_the_end();
        driver.verify();
    }
}

proptest! {
    #![proptest_config(config(16))]

    /// Nothing in the engine depends on anything but its input: no clock, no hash order.
    #[test]
    fn a_seed_replays(deployment in deployment(false), seed in any::<u64>()) {
        let trace = || {
            let mut driver = Driver::new(&deployment, seed, true);
            driver.run_to_the_end();
            (driver.outcomes, driver.world.tis, driver.world.attempts)
        };
        prop_assert_eq!(trace(), trace());
    }
}
