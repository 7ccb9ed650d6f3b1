//! The deployments that are checked: small ones, each for one kind of trouble, instead of one that has it all.

use crate::{faults::Faults, model::Deployment};

/// A deployment and its name.
pub type Named = (&'static str, Deployment);

/// One instance, two workers, one scheduler, and these faults.
fn with(faults: Faults) -> Deployment {
    Deployment {
        faults,
        ..Deployment::default()
    }
}

/// The same; a worker that ends is followed by another incarnation.
fn reborn(faults: Faults) -> Deployment {
    Deployment {
        incarnations: 3,
        ..with(faults)
    }
}

/// One worker at a time.
fn alone(faults: Faults) -> Deployment {
    Deployment {
        workers: 1,
        ..with(faults)
    }
}

/// Those of `make test`: two million states together.
pub fn quick() -> Vec<Named> {
    let none = Faults::default();
    vec![
        (
            "a failure and a retry",
            Deployment {
                tasks: 2,
                retries: 1,
                ..with(Faults {
                    failures: 1,
                    ..none
                })
            },
        ),
        (
            "loss and pause",
            reborn(Faults {
                kills: 1,
                pauses: 1,
                ..none
            }),
        ),
        (
            "two instances, one slot",
            Deployment {
                tasks: 2,
                ..with(Faults { pauses: 1, ..none })
            },
        ),
        (
            "pause and flush",
            with(Faults {
                pauses: 1,
                flushes: 1,
                ..none
            }),
        ),
        (
            "kill and flush",
            reborn(Faults {
                kills: 1,
                flushes: 1,
                ..none
            }),
        ),
        (
            "flush and restart",
            with(Faults {
                flushes: 1,
                restarts: 1,
                ..none
            }),
        ),
        (
            "leases over the broker",
            alone(Faults {
                redis_outages: 1,
                cuts: 1,
                flushes: 1,
                ..none
            }),
        ),
        (
            "cut off and flush",
            with(Faults {
                cuts: 1,
                flushes: 1,
                ..none
            }),
        ),
        (
            "cut off and paused",
            with(Faults {
                cuts: 1,
                pauses: 1,
                ..none
            }),
        ),
        (
            "Redis and RabbitMQ away",
            alone(Faults {
                redis_outages: 1,
                broker_outages: 1,
                ..none
            }),
        ),
        (
            "slow answers",
            with(Faults {
                slow_answers: 1,
                pauses: 1,
                ..none
            }),
        ),
        (
            "cancel and duplicates",
            with(Faults {
                cancels: 1,
                duplicates: 2,
                ..none
            }),
        ),
        (
            "cancel and flush",
            with(Faults {
                cancels: 1,
                flushes: 1,
                ..none
            }),
        ),
        (
            "late and duplicates",
            with(Faults {
                late: 2,
                duplicates: 1,
                ..none
            }),
        ),
        (
            "lost answers",
            with(Faults {
                lost_answers: 1,
                late: 1,
                duplicates: 1,
                ..none
            }),
        ),
        (
            "clear and duplicates",
            with(Faults {
                clears: 1,
                duplicates: 1,
                ..none
            }),
        ),
        (
            "clear one of two",
            Deployment {
                tasks: 2,
                ..with(Faults { clears: 1, ..none })
            },
        ),
        (
            "clear and loss",
            reborn(Faults {
                clears: 1,
                kills: 1,
                ..none
            }),
        ),
        (
            "two judges",
            Deployment {
                schedulers: 2,
                ..with(Faults {
                    pauses: 1,
                    crashes: 1,
                    ..none
                })
            },
        ),
    ]
}

/// One of the quick ones by its name.
pub fn named(name: &str) -> Option<Deployment> {
    let found = quick().into_iter().find(|(known, _)| *known == name);
    found.map(|(_, deployment)| deployment)
}

/// Those of `make model`, beside the quick ones.
pub fn large() -> Vec<Named> {
    let none = Faults::default();
    vec![
        (
            "clear, loss and duplicates",
            reborn(Faults {
                clears: 1,
                kills: 1,
                duplicates: 1,
                ..none
            }),
        ),
        (
            "pause, flush and duplicates",
            with(Faults {
                pauses: 1,
                flushes: 1,
                duplicates: 1,
                ..none
            }),
        ),
        (
            "cancel, flush and loss",
            reborn(Faults {
                cancels: 1,
                flushes: 1,
                kills: 1,
                ..none
            }),
        ),
        (
            "two instances, loss and pause",
            Deployment {
                tasks: 2,
                ..reborn(Faults {
                    kills: 1,
                    pauses: 1,
                    ..none
                })
            },
        ),
    ]
}
