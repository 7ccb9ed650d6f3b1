//! Real servers and process control for Gristmill's tests.
//!
//! - [`Postgres`], [`RabbitMq`], [`Redis`]: private servers from the installed Debian packages, each on loopback ports
//!   of its own with its data in a temporary folder, to be killed, frozen, restarted and emptied at will;
//! - [`shared`]: one server of each kind for all tests, with a database, vhost or database number per test;
//! - [`Proxy`]: a TCP proxy that cuts and delays connections;
//! - [`Clock`]: moves the wall clock of single processes;
//! - [`Role`] and [`roles`]: processes of the shipped binary, their logs, signals and conditions to wait for;
//! - the binary `gristmill-testkit`, which runs a command with shared servers around it.

mod clock;
mod datadir;
pub mod env;
mod error;
mod management;
mod port;
mod program;
mod proxy;
pub mod roles;
mod servers;
pub mod shared;
pub mod sys;
pub mod wait;

pub use self::{
    clock::Clock,
    datadir::DataDir,
    error::{Result, TestkitError},
    proxy::Proxy,
    roles::Role,
    servers::{
        MySql, MySqlRecipe, Postgres, PostgresRecipe, RabbitMq, RabbitMqRecipe, Recipe, Redis,
        RedisRecipe, Server,
    },
    shared::{Database, RedisDb, Vhost},
};

/// A free loopback port for a process under test, for example `GRISTMILL_LISTEN`. Held for the life of this process.
pub fn free_port() -> Result<u16> {
    use std::sync::{Mutex, PoisonError};
    static HELD: Mutex<Vec<port::ReservedPort>> = Mutex::new(Vec::new());
    let reserved = port::ReservedPort::new()?;
    let number = reserved.number();
    HELD.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(reserved);
    Ok(number)
}
