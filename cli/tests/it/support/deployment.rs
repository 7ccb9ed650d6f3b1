//! A deployment: one API server, schedulers and workers, each a process.

use super::{Client, Ledger, Servers, Steps, keep_if_asked};
use gristmill_testkit::{
    DataDir, free_port,
    roles::{Role, Setup, binary},
};
use std::{os::unix::process::ExitStatusExt, path::Path, process::Output, time::Duration};

/// How many of what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) schedulers: usize,
    pub(crate) workers: usize,
    /// Of each worker.
    pub(crate) slots: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            schedulers: 1,
            workers: 1,
            slots: 16,
        }
    }
}

/// Processes, and what they share. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub(crate) api: Role,
    pub(crate) schedulers: Vec<Role>,
    pub(crate) workers: Vec<Role>,
    pub(crate) client: Client,
    pub(crate) ledger: Ledger,
    pub(crate) servers: Servers,
    /// Environment of every role.
    pub(crate) setup: Setup,
    dir: DataDir,
}

impl Drop for Deployment {
    fn drop(&mut self) {
        keep_if_asked(&self.dir);
    }
}

impl Deployment {
    /// One scheduler and one worker on the shared servers.
    pub(crate) async fn small() -> Self {
        Self::of(Shape::default()).await
    }

    /// On the shared servers.
    pub(crate) async fn of(shape: Shape) -> Self {
        Self::start(Servers::shared().await, shape).await
    }

    /// Starts the processes and waits until the API says that all is well.
    pub(crate) async fn start(servers: Servers, shape: Shape) -> Self {
        let deployment = Self::launch(servers, shape).await;
        let health = format!("{}/health", deployment.client.address);
        deployment
            .api
            .wait_for_http(&health, 200, super::SOON)
            .await
            .unwrap();
        deployment
    }

    /// Starts the processes and waits for nothing.
    pub(crate) async fn launch(servers: Servers, shape: Shape) -> Self {
        // The database has the hash only. Straight into it: signing in costs a password hash, slow in a debug build.
        let token = format!("gm_{}", uuid::Uuid::new_v4().simple());
        servers
            .sql(&format!(
                "INSERT INTO api_tokens (hash, name, role, created_at)
                 VALUES (encode(sha256('{token}'), 'hex'), 'test', 'admin', now())"
            ))
            .await;
        Self::launch_on(servers, shape, token)
    }

    fn launch_on(servers: Servers, shape: Shape, token: String) -> Self {
        let dir = DataDir::new("it").unwrap();
        let steps = Steps::in_folder(dir.path());
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        let store = dir.path().join("store");
        std::fs::create_dir(&store).unwrap();
        let setup = Setup::new(binary("gristmill").unwrap(), dir.path())
            .env("GRISTMILL_DATABASE_URL", &servers.database_url)
            .env("GRISTMILL_AMQP_URL", &servers.amqp_url)
            .env("GRISTMILL_REDIS_URL", &servers.redis_url)
            .env("GRISTMILL_STORE", format!("file://{}", store.display()))
            .env("GRISTMILL_SECRET_KEY", "11".repeat(32))
            .env("GRISTMILL_ADMIN_PASSWORD", "for-tests-only")
            .env("GRISTMILL_API_URL", format!("http://{address}"))
            .env("GRISTMILL_TOKEN", &token)
            .env("GRISTMILL_PASS_ENV", Steps::PASSED_ON)
            .env("TEST_STEP", &steps.script)
            .env("TEST_LEDGER", &steps.ledger)
            .env("TEST_DIR", dir.path());
        let mut deployment = Self {
            api: setup.start("api", &["api", "--listen", &address]).unwrap(),
            schedulers: Vec::new(),
            workers: Vec::new(),
            client: Client::new(format!("http://{address}"), token),
            ledger: Ledger { file: steps.ledger },
            servers,
            setup,
            dir,
        };
        for _ in 0..shape.schedulers {
            deployment.add_scheduler();
        }
        for _ in 0..shape.workers {
            deployment.add_worker(shape.slots, &[]);
        }
        deployment
    }

    /// Folder of the deployment's files, in the environment of tasks as `TEST_DIR`.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Every process.
    pub(crate) fn roles(&self) -> impl Iterator<Item = &Role> {
        [&self.api]
            .into_iter()
            .chain(&self.schedulers)
            .chain(&self.workers)
    }

    /// Starts one more scheduler.
    pub(crate) fn add_scheduler(&mut self) {
        let name = format!("scheduler-{}", self.schedulers.len());
        self.schedulers
            .push(self.setup.start(&name, &["scheduler"]).unwrap());
    }

    /// Starts one more worker.
    pub(crate) fn add_worker(&mut self, slots: u32, more: &[&str]) {
        let name = format!("worker-{}", self.workers.len());
        let (slots, work_dir) = (
            slots.to_string(),
            self.dir.path().join(format!("{name}.work")),
        );
        let setup = self.setup.clone().env("GRISTMILL_WORK_DIR", work_dir);
        let args = [&["worker", "--concurrency", &slots, "--name", &name], more].concat();
        self.workers.push(setup.start(&name, &args).unwrap());
    }

    /// Runs a client command, which has to succeed; gives its standard output.
    pub(crate) async fn command(&self, args: &[&str]) -> String {
        let Output {
            status,
            stdout,
            stderr,
        } = self.setup.run(args).await.unwrap();
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        assert!(
            status.success(),
            "{args:?}: {status}\n{stdout}{}",
            String::from_utf8_lossy(&stderr)
        );
        stdout
    }

    /// Runs one statement on the deployment's database.
    pub(crate) async fn sql(&self, statement: &str) -> String {
        self.servers.sql(statement).await
    }

    /// Starts a role that died at its fault point again, without the fault.
    pub(crate) async fn revive(role: &mut Role, patience: Duration) {
        let status = role.wait(patience).await.unwrap().unwrap();
        assert_eq!(
            status.signal(),
            Some(libc::SIGABRT),
            "{status}\n{}",
            role.log_text()
        );
        role.restart_with(&[("GRISTMILL_FAULT_POINT", "")])
            .await
            .unwrap();
    }
}
