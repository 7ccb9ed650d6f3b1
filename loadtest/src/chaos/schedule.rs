//! Which faults come in which order: a pure function of the seed and the options.

use super::fault::{Action, ClockOf, Fault, Kind, Network, RoleId, ServerId};
use clap::ValueEnum;
use rand::{
    Rng, RngExt, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};
use std::time::Duration;

/// What a schedule depends on.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) seed: u64,
    pub(crate) faults: usize,
    pub(crate) schedulers: usize,
    pub(crate) workers: usize,
    pub(crate) apis: usize,
    /// Of workers.
    pub(crate) lease: Duration,
    /// Kinds to choose from; all when empty.
    pub(crate) only: Vec<Kind>,
}

/// The faults, in order. Kinds are dealt like cards: none comes again before each has come once, so that any schedule as
/// long as the pack has every kind.
pub(crate) fn schedule(shape: &Shape) -> Vec<Fault> {
    let mut rng = StdRng::seed_from_u64(shape.seed);
    let kinds: &[Kind] = match shape.only.is_empty() {
        true => Kind::value_variants(),
        false => &shape.only,
    };
    let mut pack: Vec<Kind> = Vec::new();
    (1..=shape.faults)
        .map(|number| {
            if pack.is_empty() {
                pack = kinds.to_vec();
                pack.shuffle(&mut rng);
            }
            let kind = pack.pop().unwrap_or(kinds[0]);
            fault(number, kind, shape, &mut rng)
        })
        .collect()
}

fn fault(number: usize, kind: Kind, shape: &Shape, rng: &mut impl Rng) -> Fault {
    // A short gap makes faults overlap.
    let gap = Duration::from_millis(rng.random_range(300..4_000));
    let longer_than_lease =
        |rng: &mut dyn Rng| shape.lease + Duration::from_millis(rng.random_range(3_000..8_000));
    let short = Duration::from_millis(rng.random_range(200..4_000));
    let scheduler = RoleId::Scheduler(rng.random_range(0..shape.schedulers));
    let worker = rng.random_range(0..shape.workers);
    let api = RoleId::Api(rng.random_range(0..shape.apis));
    let mut lasts = short;
    let action = match kind {
        Kind::KillScheduler => Action::Kill(scheduler),
        Kind::KillWorker => Action::Kill(RoleId::Worker(worker)),
        Kind::KillGuardian => Action::KillGuardian(worker),
        Kind::KillApi => Action::Kill(api),
        Kind::PauseScheduler => {
            lasts = longer_than_lease(rng);
            Action::Pause(scheduler)
        }
        Kind::PauseWorker => {
            lasts = longer_than_lease(rng);
            Action::Pause(RoleId::Worker(worker))
        }
        Kind::PauseGuardian => {
            lasts = longer_than_lease(rng);
            Action::PauseGuardian(worker)
        }
        Kind::PauseApi => Action::Pause(api),
        Kind::Cut | Kind::Stall | Kind::LoseAnswers | Kind::Delay => {
            let (role, server) = link(shape, rng);
            // Now and then longer than a lease.
            if rng.random_bool(0.3) {
                lasts = longer_than_lease(rng);
            }
            let how = match kind {
                Kind::Cut => Network::Cut,
                Kind::Stall => Network::Stall,
                Kind::LoseAnswers => Network::LoseAnswers,
                _ => Network::Delay(rng.random_range(5..400)),
            };
            Action::Network(role, server, how)
        }
        Kind::KillPostgres => Action::KillServer(ServerId::Postgres),
        Kind::PausePostgres => Action::PauseServer(ServerId::Postgres),
        Kind::PostgresReadOnly => Action::PostgresReadOnly,
        Kind::PostgresFull => Action::PostgresFull(rng.random_range(20..=100)),
        Kind::KillRabbitmq => Action::KillServer(ServerId::Rabbitmq),
        Kind::RestartRabbitmq => Action::RestartServer(ServerId::Rabbitmq),
        Kind::PauseRabbitmq => Action::PauseServer(ServerId::Rabbitmq),
        Kind::KillRedis => Action::KillServer(ServerId::Redis),
        Kind::EmptyRedis => Action::EmptyRedis,
        Kind::FlushRedis => Action::FlushRedis,
        Kind::PauseRedis => Action::PauseServer(ServerId::Redis),
        Kind::Clock => {
            let whose = clock_of(shape, rng);
            Action::Clock(whose, step(whose, rng))
        }
        Kind::DuplicateWork => Action::DuplicateWork(rng.random_range(5..100)),
        Kind::ReorderWork => Action::ReorderWork(rng.random_range(5..100)),
        Kind::DuplicateEvents => Action::DuplicateEvents,
        Kind::StoreFull => Action::StoreFull,
    };
    Fault {
        number,
        gap,
        lasts,
        action,
    }
}

/// A role and a server that it talks to. Workers never talk to PostgreSQL.
fn link(shape: &Shape, rng: &mut impl Rng) -> (RoleId, ServerId) {
    use ServerId::{Postgres, Rabbitmq, Redis};
    let (role, servers): (_, &[ServerId]) = match rng.random_range(0..5) {
        0 | 1 => (
            RoleId::Scheduler(rng.random_range(0..shape.schedulers)),
            &[Postgres, Rabbitmq, Redis],
        ),
        2 | 3 => (
            RoleId::Worker(rng.random_range(0..shape.workers)),
            &[Rabbitmq, Redis],
        ),
        _ => (
            RoleId::Api(rng.random_range(0..shape.apis)),
            &[Postgres, Rabbitmq, Redis],
        ),
    };
    (role, servers.choose(rng).copied().unwrap_or(Redis))
}

fn clock_of(shape: &Shape, rng: &mut impl Rng) -> ClockOf {
    match rng.random_range(0..5) {
        0 => ClockOf::Role(RoleId::Scheduler(rng.random_range(0..shape.schedulers))),
        1 => ClockOf::Role(RoleId::Worker(rng.random_range(0..shape.workers))),
        2 => ClockOf::Role(RoleId::Api(rng.random_range(0..shape.apis))),
        3 => ClockOf::Server(ServerId::Redis),
        _ => ClockOf::Server(ServerId::Postgres),
    }
}

/// Seconds, forwards or backwards: from less than a lease to ten minutes. Redis's clock may step back by 15 min at most
/// (`docs/guarantees.md`). PostgreSQL's goes forwards by less: what was put off by a clock that is ahead comes when the right
/// one has got there.
fn step(whose: ClockOf, rng: &mut impl Rng) -> i64 {
    let far = *[2, 30, 600].choose(rng).unwrap_or(&2);
    let seconds = rng.random_range(1..=far);
    match (rng.random_bool(0.5), whose) {
        (true, ClockOf::Server(ServerId::Postgres)) => seconds.min(45),
        (true, _) => seconds,
        (false, _) => -seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn shape(seed: u64, faults: usize) -> Shape {
        Shape {
            seed,
            faults,
            schedulers: 2,
            workers: 3,
            apis: 2,
            lease: Duration::from_secs(6),
            only: Vec::new(),
        }
    }

    fn kinds_of(faults: &[Fault]) -> BTreeSet<String> {
        faults
            .iter()
            .map(|fault| {
                let text = format!("{:?}", fault.action);
                text.split('(').next().unwrap_or_default().to_owned()
            })
            .collect()
    }

    #[test]
    fn a_seed_gives_one_schedule() {
        assert_eq!(schedule(&shape(7, 300)), schedule(&shape(7, 300)));
        assert_ne!(schedule(&shape(7, 300)), schedule(&shape(8, 300)));
    }

    #[test]
    fn a_longer_schedule_begins_like_a_shorter_one() {
        assert_eq!(schedule(&shape(7, 300))[..40], schedule(&shape(7, 40))[..]);
    }

    #[test]
    fn a_pack_has_every_kind() {
        let pack = Kind::value_variants().len();
        let once = schedule(&shape(1, pack));
        let many = schedule(&shape(2, 10 * pack));
        assert_eq!(kinds_of(&once), kinds_of(&many));
    }

    #[test]
    fn only_what_was_asked_for_comes() {
        let only = vec![Kind::FlushRedis, Kind::PauseWorker];
        let faults = schedule(&Shape {
            only,
            ..shape(3, 50)
        });
        assert_eq!(
            kinds_of(&faults),
            BTreeSet::from(["FlushRedis".to_owned(), "Pause".to_owned()])
        );
    }

    #[test]
    fn a_paused_worker_wakes_after_its_lease() {
        let only = vec![Kind::PauseWorker];
        for fault in schedule(&Shape {
            only,
            ..shape(3, 50)
        }) {
            assert!(fault.lasts > Duration::from_secs(8), "{fault}");
        }
    }

    #[test]
    fn workers_have_no_link_to_postgres() {
        let only = vec![Kind::Cut, Kind::Delay];
        for fault in schedule(&Shape {
            only,
            ..shape(3, 500)
        }) {
            assert!(
                !matches!(
                    fault.action,
                    Action::Network(RoleId::Worker(_), ServerId::Postgres, _)
                ),
                "{fault}"
            );
        }
    }
}
