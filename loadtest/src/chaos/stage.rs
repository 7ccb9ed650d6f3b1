//! The deployment that is under fire, and whose turn it is to be hit.

use super::{
    disk::Disk,
    fault::{ClockOf, RoleId, ServerId},
};
use crate::{
    deployment::{Clock, Deployment, Duty, Member, Servers},
    error::{LoadError, Result},
};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Mutex as Turn;

/// How often it is looked whether a process has ended by itself.
const SUPERVISE_EVERY: Duration = Duration::from_millis(250);

/// What one fault at a time may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Role(RoleId),
    Server(ServerId),
    /// The link between two of them.
    Link(RoleId, ServerId),
    Clock(ClockOf),
    Disk,
    Work,
    Events,
}

/// The deployment under fire.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) deployment: Deployment,
    pub(crate) disk: Disk,
    turns: Mutex<BTreeMap<Part, &'static Turn<()>>>,
    /// Processes that ended by themselves, and were started again.
    exits: AtomicUsize,
}

impl Stage {
    pub(crate) fn new(deployment: Deployment, disk: Disk) -> Self {
        Self {
            deployment,
            disk,
            turns: Mutex::default(),
            exits: AtomicUsize::new(0),
        }
    }

    pub(crate) fn servers(&self) -> Result<&Servers> {
        self.deployment
            .servers()
            .ok_or(LoadError::NotPrivate("the deployment"))
    }

    pub(crate) fn member(&self, role: RoleId) -> Result<&Member> {
        let (duty, number) = match role {
            RoleId::Scheduler(number) => (Duty::Scheduler, number),
            RoleId::Worker(number) => (Duty::Worker, number),
            RoleId::Api(number) => (Duty::Api, number),
        };
        self.deployment
            .members_with(duty)
            .nth(number)
            .ok_or_else(|| LoadError::NoSuchPart(role.to_string()))
    }

    pub(crate) fn clock(&self, whose: ClockOf) -> Result<&Clock> {
        let clock = match whose {
            ClockOf::Role(role) => self.member(role)?.clock.as_ref(),
            ClockOf::Server(ServerId::Postgres) => self.servers()?.postgres_clock(),
            ClockOf::Server(ServerId::Redis) => self.servers()?.redis_clock(),
            ClockOf::Server(ServerId::Rabbitmq) => None,
        };
        clock.ok_or_else(|| LoadError::NoSuchPart(format!("a clock of {whose}")))
    }

    /// Processes that ended by themselves so far. A worker whose guardian was killed does; it is no breach for the others
    /// either, but worth a look.
    pub(crate) fn exits(&self) -> usize {
        self.exits.load(Ordering::Relaxed)
    }

    /// The lock under which a part is hit and mended.
    pub(crate) fn turn(&self, part: Part) -> &'static Turn<()> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Leaked: a few dozen of them, for as long as this program lives.
        turns
            .entry(part)
            .or_insert_with(|| Box::leak(Box::default()))
    }

    /// Starts processes again that end by themselves, as compose or systemd would. Never returns.
    pub(crate) async fn supervise(&self) -> Result<()> {
        let roles: Vec<RoleId> = self.deployment.members().iter().map(id_of).collect();
        loop {
            tokio::time::sleep(SUPERVISE_EVERY).await;
            for &role in &roles {
                // Whoever holds its turn starts it again.
                let Ok(_turn) = self.turn(Part::Role(role)).try_lock() else {
                    continue;
                };
                let member = self.member(role)?;
                if !member.role.is_running() {
                    self.exits.fetch_add(1, Ordering::Relaxed);
                    member.role.restart().await?;
                }
            }
        }
    }

    /// Lets everything go on and starts what is not there.
    pub(crate) async fn restore(&self) -> Result<()> {
        let servers = self.servers()?;
        for member in self.deployment.members() {
            for link in member.links.iter().flat_map(|links| links.all()) {
                link.restore();
            }
            if let Some(clock) = &member.clock {
                clock.step(0)?;
            }
            member.role.resume_tree()?;
        }
        for clock in [servers.postgres_clock(), servers.redis_clock()]
            .into_iter()
            .flatten()
        {
            clock.step(0)?;
        }
        self.disk.restore()
    }
}

fn id_of(member: &Member) -> RoleId {
    match member.duty {
        Duty::Worker => RoleId::Worker(member.number),
        Duty::Api => RoleId::Api(member.number),
        Duty::Scheduler | Duty::Standalone => RoleId::Scheduler(member.number),
    }
}
