//! One server of each kind for many tests, and a private corner of it for each test.
//!
//! Where a `GRISTMILL_TEST_…` variable names a server, that one is used: set by hand, or by `gristmill-testkit servers
//! -- COMMAND`, which starts one of each for a whole test run. Otherwise the first caller in a test process starts it.
//! A test that kills or pauses a server starts its own ([`crate::Postgres::start`], …).

use tokio::sync::OnceCell;
use url::Url;
use uuid::Uuid;

use crate::{
    env,
    error::{IoContext, Result, TestkitError},
    servers::{
        Management, MySql, Postgres, RabbitMq, Recipe, Redis, Server, ask_redis,
        authenticate_redis, blocking, psql,
    },
};

static POSTGRES: OnceCell<Postgres> = OnceCell::const_new();
static RABBITMQ: OnceCell<RabbitMq> = OnceCell::const_new();
static REDIS: OnceCell<Redis> = OnceCell::const_new();
static MYSQL: OnceCell<MySql> = OnceCell::const_new();

async fn started<R: Recipe>(cell: &'static OnceCell<Server<R>>) -> Result<&'static Server<R>> {
    cell.get_or_try_init(Server::start).await
}

/// URL of the shared PostgreSQL, naming its maintenance database. Tests want [`postgres_database`].
pub async fn postgres() -> Result<String> {
    match env::get(env::DATABASE_URL) {
        Some(url) => Ok(url),
        None => Ok(started(&POSTGRES).await?.url()),
    }
}

/// URL of the shared RabbitMQ. Tests want [`rabbitmq_vhost`].
pub async fn rabbitmq() -> Result<String> {
    match env::get(env::AMQP_URL) {
        Some(url) => Ok(url),
        None => Ok(started(&RABBITMQ).await?.url()),
    }
}

/// URL of the shared Redis. Tests want [`redis_db`].
pub async fn redis() -> Result<String> {
    match env::get(env::REDIS_URL) {
        Some(url) => Ok(url),
        None => Ok(started(&REDIS).await?.url()),
    }
}

/// URL of the shared MySQL, naming a database. Few tests want it, so that `gristmill-testkit servers` starts none: the
/// first caller in a test process does.
pub async fn mysql() -> Result<String> {
    match env::get(env::MYSQL_URL) {
        Some(url) => Ok(url),
        None => Ok(started(&MYSQL).await?.url()),
    }
}

/// A PostgreSQL database of its own, dropped with the value.
#[derive(Debug)]
pub struct Database {
    url: String,
    name: String,
    maintenance_url: String,
}

/// A fresh, empty database on the shared server.
pub async fn postgres_database() -> Result<Database> {
    Database::create(&postgres().await?, None).await
}

/// A fresh copy of the database `template` (for example a migrated one), to which nobody may be connected.
pub async fn postgres_database_like(template: &Database) -> Result<Database> {
    Database::create(&template.maintenance_url, Some(&template.name)).await
}

impl Database {
    /// Creates a database on the server of `maintenance_url`, on a private server too.
    pub async fn create(maintenance_url: &str, template: Option<&str>) -> Result<Self> {
        let name = format!("gm_{}", Uuid::new_v4().simple());
        let mut url = parse(env::DATABASE_URL, maintenance_url)?;
        url.set_path(&name);
        let template = template.map_or_else(String::new, |t| format!(" TEMPLATE {t}"));
        let statement = format!("CREATE DATABASE {name}{template}");
        let server = maintenance_url.to_owned();
        blocking(move || psql(&server, &[statement])).await?;
        Ok(Self {
            url: url.into(),
            name,
            maintenance_url: maintenance_url.to_owned(),
        })
    }

    /// `postgres://…/NAME`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs one SQL statement through `psql`; gives its rows, columns parted by `|`.
    pub async fn sql(&self, statement: &str) -> Result<String> {
        sql(&self.url, statement).await
    }
}

/// Runs one SQL statement on the database that `url` names; gives its rows, columns parted by `|`.
pub async fn sql(url: &str, statement: &str) -> Result<String> {
    let (url, statement) = (url.to_owned(), statement.to_owned());
    blocking(move || psql(&url, &[statement])).await
}

impl Drop for Database {
    fn drop(&mut self) {
        // A server that is already gone took the database with it.
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let _ = psql(&self.maintenance_url, &[statement]);
    }
}

/// A RabbitMQ virtual host of its own, removed with the value.
#[derive(Debug)]
pub struct Vhost {
    url: String,
    name: String,
    management: Management,
}

/// A fresh virtual host on the shared server.
pub async fn rabbitmq_vhost() -> Result<Vhost> {
    match env::get(env::AMQP_URL) {
        Some(url) => {
            let url = parse(env::AMQP_URL, &url)?;
            Vhost::create(url.clone(), management_of(&url)?).await
        }
        None => started(&RABBITMQ).await?.vhost().await,
    }
}

impl RabbitMq {
    /// A fresh virtual host on this server.
    pub async fn vhost(&self) -> Result<Vhost> {
        let url = parse(env::AMQP_URL, &self.url())?;
        Vhost::create(url, self.recipe().management()).await
    }

    /// Management API with credentials, as [`env::AMQP_ADMIN_URL`] takes it.
    pub fn admin_url(&self) -> String {
        self.recipe().management().url()
    }
}

impl Vhost {
    async fn create(mut url: Url, management: Management) -> Result<Self> {
        let name = format!("gm-{}", Uuid::new_v4().simple());
        url.set_path(&name);
        let (access, vhost) = (management.clone(), name.clone());
        blocking(move || access.make_vhost(&vhost)).await?;
        Ok(Self {
            url: url.into(),
            name,
            management,
        })
    }

    /// `amqp://…/NAME`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Management API of its server with credentials, as [`env::AMQP_ADMIN_URL`] takes it.
    pub fn admin_url(&self) -> String {
        self.management.url()
    }

    /// Name of the virtual host.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        // A server that is already gone took the vhost with it.
        let _ = self.management.remove_vhost(&self.name);
    }
}

/// A Redis database number of its own. Publish/subscribe channels are shared by all numbers of a server.
#[derive(Debug)]
pub struct RedisDb {
    url: String,
    number: u32,
}

/// A fresh, empty database number on the shared server.
pub async fn redis_db() -> Result<RedisDb> {
    RedisDb::create(&redis().await?).await
}

impl RedisDb {
    /// Takes the next unused database number of the server at `server_url`. Number 0 keeps the count.
    pub async fn create(server_url: &str) -> Result<Self> {
        let mut url = parse(env::REDIS_URL, server_url)?;
        let address = format!(
            "{}:{}",
            url.host_str().unwrap_or("127.0.0.1"),
            url.port().unwrap_or(6379)
        );
        let number = next_number(&url, &address)
            .await
            .context(|| format!("Redis at {address}"))?;
        let number = number.map_err(|what| TestkitError::Request {
            server: "Redis",
            address,
            what,
        })?;
        url.set_path(&number.to_string());
        Ok(Self {
            url: url.into(),
            number,
        })
    }

    /// `redis://…/NUMBER`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The database number.
    pub fn number(&self) -> u32 {
        self.number
    }
}

async fn next_number(url: &Url, address: &str) -> std::io::Result<Result<u32, String>> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    authenticate_redis(&mut stream, url).await?;
    let answer = ask_redis(&mut stream, &["INCR", "gristmill-testkit:databases"]).await?;
    let number: Option<u32> = answer.strip_prefix(':').and_then(|n| n.trim().parse().ok());
    let Some(number) = number else {
        return Ok(Err(format!("INCR was answered with {answer:?}")));
    };
    let answer = ask_redis(&mut stream, &["SELECT", &number.to_string()]).await?;
    if !answer.starts_with("+OK") {
        return Ok(Err(format!(
            "database {number} cannot be used ({}); every test takes a number: run the server with `databases 4096` \
             and empty it between runs, or unset {}",
            answer.trim(),
            env::REDIS_URL
        )));
    }
    ask_redis(&mut stream, &["FLUSHDB"]).await?;
    Ok(Ok(number))
}

fn parse(variable: &'static str, value: &str) -> Result<Url> {
    Url::parse(value).map_err(|e| TestkitError::BadVariable {
        variable,
        value: value.to_owned(),
        why: e.to_string(),
    })
}

fn management_of(amqp: &Url) -> Result<Management> {
    let given = match env::get(env::AMQP_ADMIN_URL) {
        Some(admin) => Some(parse(env::AMQP_ADMIN_URL, &admin)?),
        None => None,
    };
    let url = given.as_ref().unwrap_or(amqp);
    let fallback_port = match given {
        Some(_) => url.port().unwrap_or(80),
        None => 15672,
    };
    Ok(Management {
        host: url.host_str().unwrap_or("127.0.0.1").to_owned(),
        port: fallback_port,
        user: url.username().to_owned(),
        password: url.password().unwrap_or_default().to_owned(),
    })
}
