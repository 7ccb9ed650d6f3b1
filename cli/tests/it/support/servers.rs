//! Where a deployment's database, broker and presence are.

use gristmill_testkit::{
    Postgres, RabbitMq, Redis,
    roles::{Setup, binary},
    shared::{self, Database, RedisDb, Vhost},
};
use std::path::Path;
use tokio::sync::OnceCell;

/// A corner of each server for one test.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) database: Database,
    pub(crate) vhost: Vhost,
    pub(crate) redis: RedisDb,
    /// The addresses that roles use; a test may put a proxy's there.
    pub(crate) database_url: String,
    pub(crate) amqp_url: String,
    pub(crate) redis_url: String,
}

/// A migrated database on the shared server; the databases of tests are copies of it.
static MIGRATED: OnceCell<Database> = OnceCell::const_new();

impl Servers {
    /// On the shared servers.
    pub(crate) async fn shared() -> Self {
        let template = MIGRATED
            .get_or_init(|| async { migrated(shared::postgres_database().await.unwrap()).await })
            .await;
        let (database, vhost, redis) = tokio::join!(
            shared::postgres_database_like(template),
            shared::rabbitmq_vhost(),
            shared::redis_db()
        );
        Self::of(database.unwrap(), vhost.unwrap(), redis.unwrap())
    }

    /// With a PostgreSQL that only this test uses.
    pub(crate) async fn with_postgres(postgres: &Postgres) -> Self {
        let database = migrated(Database::create(&postgres.url(), None).await.unwrap()).await;
        Self::of(
            database,
            shared::rabbitmq_vhost().await.unwrap(),
            shared::redis_db().await.unwrap(),
        )
    }

    /// With a RabbitMQ that only this test uses.
    pub(crate) async fn with_rabbitmq(rabbitmq: &RabbitMq) -> Self {
        let Self {
            database, redis, ..
        } = Self::shared().await;
        Self::of(database, rabbitmq.vhost().await.unwrap(), redis)
    }

    /// With a Redis that only this test uses.
    pub(crate) async fn with_redis(redis: &Redis) -> Self {
        let Self {
            database, vhost, ..
        } = Self::shared().await;
        Self::of(
            database,
            vhost,
            RedisDb::create(&redis.url()).await.unwrap(),
        )
    }

    /// Nothing is shared with other tests.
    pub(crate) async fn private(postgres: &Postgres, rabbitmq: &RabbitMq, redis: &Redis) -> Self {
        let database = migrated(Database::create(&postgres.url(), None).await.unwrap()).await;
        Self::of(
            database,
            rabbitmq.vhost().await.unwrap(),
            RedisDb::create(&redis.url()).await.unwrap(),
        )
    }

    fn of(database: Database, vhost: Vhost, redis: RedisDb) -> Self {
        Self {
            database_url: database.url().to_owned(),
            amqp_url: vhost.url().to_owned(),
            redis_url: redis.url().to_owned(),
            database,
            vhost,
            redis,
        }
    }

    /// Runs one statement; rows as lines, columns parted by `|`.
    pub(crate) async fn sql(&self, statement: &str) -> String {
        self.database
            .sql(statement)
            .await
            .unwrap()
            .trim()
            .to_owned()
    }
}

/// Brings a fresh database to the schema, by the shipped command.
async fn migrated(database: Database) -> Database {
    let setup = Setup::new(binary("gristmill").unwrap(), Path::new("/nonexistent"))
        .env("GRISTMILL_DATABASE_URL", database.url())
        .env("GRISTMILL_ADMIN_PASSWORD", "for-tests-only");
    let output = setup.run(&["migrate"]).await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    database
}
