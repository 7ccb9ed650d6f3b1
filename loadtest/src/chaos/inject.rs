//! Makes a fault happen, waits as long as it lasts, and mends it.

mod database;
mod messages;
mod network;
mod roles;
mod servers;

use super::{
    fault::{Action, Fault, RoleId, ServerId},
    stage::{Part, Stage},
};
use crate::error::Result;
use std::sync::Arc;

pub(crate) use messages::Hoard;

/// The whole life of one fault. Faults of one part come one after the other.
pub(crate) async fn inject(stage: Arc<Stage>, hoard: Arc<Hoard>, fault: Fault) -> Result<()> {
    let _turn = stage.turn(part_of(fault.action)).lock().await;
    let lasts = fault.lasts;
    match fault.action {
        Action::Kill(role) => roles::kill(&stage, role, lasts).await,
        Action::Pause(role) => roles::pause(&stage, role, lasts).await,
        Action::KillGuardian(worker) => roles::kill_guardian(&stage, worker).await,
        Action::PauseGuardian(worker) => roles::pause_guardian(&stage, worker, lasts).await,
        Action::Network(role, server, how) => {
            network::disturb(&stage, role, server, how, lasts).await
        }
        Action::KillServer(server) => servers::kill(&stage, server, lasts).await,
        Action::RestartServer(server) => servers::restart(&stage, server, lasts).await,
        Action::PauseServer(server) => servers::pause(&stage, server, lasts).await,
        Action::EmptyRedis => servers::empty_redis(&stage, lasts).await,
        Action::FlushRedis => servers::flush_redis(&stage).await,
        Action::PostgresReadOnly => database::read_only(&stage, lasts).await,
        Action::PostgresFull(percent) => database::disk_full(&stage, percent, lasts).await,
        Action::Clock(whose, seconds) => {
            let clock = stage.clock(whose)?;
            clock.step(seconds)?;
            tokio::time::sleep(lasts).await;
            Ok(clock.step(0)?)
        }
        Action::DuplicateWork(count) => {
            messages::duplicate_work(&stage, &hoard, fault.number, count, lasts).await
        }
        Action::ReorderWork(count) => {
            messages::reorder_work(&stage, fault.number, count, lasts).await
        }
        Action::DuplicateEvents => {
            messages::duplicate_events(&stage, &hoard, fault.number, lasts).await
        }
        Action::StoreFull => {
            stage.disk.fill()?;
            tokio::time::sleep(lasts).await;
            stage.disk.restore()
        }
    }
}

fn part_of(action: Action) -> Part {
    match action {
        Action::Kill(role) | Action::Pause(role) => Part::Role(role),
        Action::KillGuardian(worker) | Action::PauseGuardian(worker) => {
            Part::Role(RoleId::Worker(worker))
        }
        Action::Network(role, server, _) => Part::Link(role, server),
        Action::KillServer(server)
        | Action::RestartServer(server)
        | Action::PauseServer(server) => Part::Server(server),
        Action::EmptyRedis | Action::FlushRedis => Part::Server(ServerId::Redis),
        Action::PostgresReadOnly | Action::PostgresFull(_) => Part::Server(ServerId::Postgres),
        Action::Clock(whose, _) => Part::Clock(whose),
        Action::DuplicateWork(_) | Action::ReorderWork(_) => Part::Work,
        Action::DuplicateEvents => Part::Events,
        Action::StoreFull => Part::Disk,
    }
}
