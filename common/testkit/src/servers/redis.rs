//! Redis.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use url::Url;

use super::Recipe;
use crate::{
    error::{IoContext, Result, TestkitError},
    port::ReservedPort,
    program,
    sys::Signal,
};

/// How a private Redis is run: an append-only file, and a database number for every test.
#[derive(Debug)]
pub struct RedisRecipe {
    server: PathBuf,
    data: PathBuf,
    port: ReservedPort,
}

impl Recipe for RedisRecipe {
    const NAME: &'static str = "redis";
    const STOP_SIGNAL: Signal = libc::SIGTERM;
    const DEATH_SIGNAL: Signal = libc::SIGKILL;

    fn prepare(dir: &Path) -> Result<Self> {
        let recipe = Self {
            server: program::find("redis-server", &[]).ok_or_else(missing)?,
            data: dir.join("data"),
            port: ReservedPort::new()?,
        };
        fs::create_dir(&recipe.data).context(|| format!("making {}", recipe.data.display()))?;
        Ok(recipe)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.server);
        command
            .args(["--bind", "127.0.0.1", "--port"])
            .arg(self.port.number().to_string())
            .arg("--dir")
            .arg(&self.data)
            .args(["--databases", "4096", "--save", ""])
            // Written before the answer is sent: what a client saw confirmed survives `kill -9` of the process.
            .args(["--appendonly", "yes", "--appendfsync", "everysec"]);
        command
    }

    async fn serves(&self) -> bool {
        let address = format!("127.0.0.1:{}", self.port.number());
        let ping = async {
            let mut stream = TcpStream::connect(&address).await.ok()?;
            ask(&mut stream, &["PING"]).await.ok()
        };
        let answer = timeout(Duration::from_secs(1), ping).await;
        matches!(answer, Ok(Some(text)) if text.starts_with("+PONG"))
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port.number())
    }

    fn wipe(&self) -> Result<()> {
        fs::remove_dir_all(&self.data)
            .and_then(|()| fs::create_dir(&self.data))
            .context(|| format!("emptying {}", self.data.display()))
    }
}

/// Sends one command; gives the raw answer. Only for answers that fit one packet.
pub(crate) async fn ask(stream: &mut TcpStream, words: &[&str]) -> std::io::Result<String> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; 1024];
    let length = stream.read(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Sends the credentials of `url`, if it has any.
pub(crate) async fn authenticate(stream: &mut TcpStream, url: &Url) -> std::io::Result<()> {
    let answer = match (url.username(), url.password()) {
        (_, None) => return Ok(()),
        ("", Some(password)) => ask(stream, &["AUTH", password]).await?,
        (user, Some(password)) => ask(stream, &["AUTH", user, password]).await?,
    };
    if answer.starts_with("+OK") {
        return Ok(());
    }
    Err(std::io::Error::other(answer.trim().to_owned()))
}

fn missing() -> TestkitError {
    TestkitError::MissingProgram {
        server: RedisRecipe::NAME,
        program: "redis-server",
        looked_in: "PATH",
        package: "redis-server",
        variable: crate::env::REDIS_URL,
        example: "redis://127.0.0.1:6379",
    }
}
