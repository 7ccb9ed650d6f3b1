//! Environment variables that name running servers, and lookup of them.

/// PostgreSQL for tests. The user must be allowed to create databases.
pub const DATABASE_URL: &str = "GRISTMILL_TEST_DATABASE_URL";
/// RabbitMQ for tests.
pub const AMQP_URL: &str = "GRISTMILL_TEST_AMQP_URL";
/// Management API of that RabbitMQ, `http://user:password@host:port`. Without it: the AMQP user and host, port 15672.
pub const AMQP_ADMIN_URL: &str = "GRISTMILL_TEST_AMQP_ADMIN_URL";
/// Redis for tests.
pub const REDIS_URL: &str = "GRISTMILL_TEST_REDIS_URL";
/// MySQL or MariaDB that tasks of tests talk to; the user must be allowed to create tables and to kill connections.
pub const MYSQL_URL: &str = "GRISTMILL_TEST_MYSQL_URL";

/// Value of `variable`, if set and not empty.
pub(crate) fn get(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|v| !v.is_empty())
}
