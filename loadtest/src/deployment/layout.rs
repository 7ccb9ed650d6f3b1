//! How a private deployment is set up.

/// Numbers of its processes, and what stands between them.
#[derive(Debug, Clone)]
pub struct Layout {
    pub schedulers: usize,
    pub workers: usize,
    pub apis: usize,
    /// Slots of each worker.
    pub concurrency: u32,
    /// Which PostgreSQL, RabbitMQ and Redis.
    pub servers: ServerChoice,
    /// Whether each role reaches each server through a [`gristmill_testkit::Proxy`] of its own, to be cut, stalled and
    /// delayed. It costs CPU time of this process; not for measurements.
    pub proxied: bool,
    /// Whether the wall clocks of the roles, of PostgreSQL and of Redis can be moved, each by itself; see
    /// [`gristmill_testkit::Clock`]. Only private servers have one.
    pub movable_clocks: bool,
    /// Environment variables of all roles, besides those that the deployment needs.
    pub environment: Vec<(String, String)>,
}

/// Which servers a deployment stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerChoice {
    /// Servers of its own, to be killed, frozen, restarted and emptied.
    Private,
    /// Those that `GRISTMILL_TEST_{DATABASE,AMQP,REDIS}_URL` name, with a database, vhost and database number of its
    /// own there; private ones for what is not named.
    NamedOrPrivate,
}

impl Layout {
    /// One of each role with so many slots, without proxies.
    pub fn small(concurrency: u32) -> Self {
        Self {
            schedulers: 1,
            workers: 1,
            apis: 1,
            concurrency,
            servers: ServerChoice::NamedOrPrivate,
            proxied: false,
            movable_clocks: false,
            environment: Vec::new(),
        }
    }
}
