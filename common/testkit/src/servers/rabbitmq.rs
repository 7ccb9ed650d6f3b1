//! RabbitMQ.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::Recipe;
pub(crate) use crate::management::Management;
use crate::{
    error::{IoContext, Result, TestkitError},
    port::ReservedPort,
    program,
    sys::Signal,
};

const USER: &str = "gristmill";
const PASSWORD: &str = "gristmill";

/// How a private RabbitMQ node is run: its own Erlang port mapper, so that any number of nodes live side by side.
#[derive(Debug)]
pub struct RabbitMqRecipe {
    server: PathBuf,
    port_mapper: PathBuf,
    dir: PathBuf,
    amqp: ReservedPort,
    management: ReservedPort,
    distribution: ReservedPort,
    epmd: ReservedPort,
}

impl Recipe for RabbitMqRecipe {
    const NAME: &'static str = "rabbitmq";
    const STOP_SIGNAL: Signal = libc::SIGTERM;
    const DEATH_SIGNAL: Signal = libc::SIGKILL;

    fn prepare(dir: &Path) -> Result<Self> {
        // Not the wrapper in /usr/sbin: that one changes to the rabbitmq account and its folders.
        let folders = [PathBuf::from("/usr/lib/rabbitmq/bin")];
        let recipe = Self {
            server: program::find("rabbitmq-server", &folders)
                .ok_or_else(|| missing("rabbitmq-server"))?,
            port_mapper: program::find("epmd", &[]).ok_or_else(|| missing("epmd"))?,
            dir: dir.to_owned(),
            amqp: ReservedPort::new()?,
            management: ReservedPort::new()?,
            distribution: ReservedPort::new()?,
            epmd: ReservedPort::new()?,
        };
        recipe.write_configuration()?;
        Ok(recipe)
    }

    fn companion(&self) -> Option<Command> {
        let mut command = Command::new(&self.port_mapper);
        command
            .args(["-address", "127.0.0.1", "-port"])
            .arg(self.epmd.number().to_string())
            .current_dir("/");
        Some(command)
    }

    fn command(&self) -> Command {
        let dir = &self.dir;
        let mut command = Command::new(&self.server);
        command
            .current_dir(dir)
            // Makes the start script exec the Erlang VM, so that our child is the VM itself.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env("HOME", dir)
            .env("ERL_EPMD_PORT", self.epmd.number().to_string())
            .env("ERL_CRASH_DUMP_SECONDS", "0")
            .env("RABBITMQ_NODENAME", self.node())
            .env("RABBITMQ_NODE_PORT", self.amqp.number().to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution.number().to_string())
            .env("RABBITMQ_MNESIA_BASE", dir.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", dir.join("log"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", dir.join("generated"))
            .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("plugins"))
            // Absent on purpose: the machine's own settings must not leak in.
            .env("RABBITMQ_CONF_ENV_FILE", dir.join("no-environment-file"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", dir.join("advanced"))
            .env("RABBITMQ_PID_FILE", dir.join("pid"));
        command
    }

    async fn serves(&self) -> bool {
        let management = self.management();
        super::blocking(move || management.is_alive()).await.is_ok()
            && answers_handshake(self.amqp.number()).await
    }

    fn url(&self) -> String {
        let port = self.amqp.number();
        format!("amqp://{USER}:{PASSWORD}@127.0.0.1:{port}/%2f")
    }

    fn wipe(&self) -> Result<()> {
        let data = self.dir.join("mnesia");
        fs::remove_dir_all(&data).context(|| format!("emptying {}", data.display()))
    }
}

impl RabbitMqRecipe {
    /// Access to the management API of this node.
    pub(crate) fn management(&self) -> Management {
        Management {
            host: "127.0.0.1".into(),
            port: self.management.number(),
            user: USER.into(),
            password: PASSWORD.into(),
        }
    }

    /// `localhost`, not the host's name, which need not resolve.
    fn node(&self) -> String {
        format!("gristmill-{}@localhost", self.amqp.number())
    }

    fn write_configuration(&self) -> Result<()> {
        let amqp = self.amqp.number();
        let management = self.management.number();
        let configuration = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
             management.tcp.ip = 127.0.0.1\n\
             management.tcp.port = {management}\n\
             default_user = {USER}\n\
             default_pass = {PASSWORD}\n\
             disk_free_limit.absolute = 50MB\n\
             log.file.level = info\n"
        );
        let write = |name: &str, text: &str| {
            let file = self.dir.join(name);
            fs::write(&file, text).context(|| format!("writing {}", file.display()))
        };
        write("rabbitmq.conf", &configuration)?;
        write("plugins", "[rabbitmq_management].\n")
    }
}

/// Whether the node answers an AMQP protocol header with its `connection.start`.
async fn answers_handshake(port: u16) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let handshake = async {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        stream.read_u8().await
    };
    let limit = std::time::Duration::from_secs(1);
    // 1 is the type of a method frame.
    matches!(tokio::time::timeout(limit, handshake).await, Ok(Ok(1)))
}

fn missing(program: &'static str) -> TestkitError {
    TestkitError::MissingProgram {
        server: RabbitMqRecipe::NAME,
        program,
        looked_in: "/usr/lib/rabbitmq/bin and PATH",
        package: "rabbitmq-server",
        variable: crate::env::AMQP_URL,
        example: "amqp://user:password@127.0.0.1:5672/%2f",
    }
}
