//! A TCP proxy between a client and a server, to cut, stall and delay their connection.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use crate::error::{IoContext, Result};

/// What the proxy does with bytes at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Forwards.
    Open,
    /// Closes every connection, old and new.
    Cut,
    /// Keeps connections open and forwards nothing, as a network that drops packets does.
    Stalled,
    /// Forwards what clients send and holds back what the server answers.
    AnswersLost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

impl Mode {
    fn lets_through(self, direction: Direction) -> bool {
        match self {
            Self::Open => true,
            Self::Cut | Self::Stalled => false,
            Self::AnswersLost => direction == Direction::ToServer,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Setting {
    mode: Mode,
    delay: Duration,
}

/// Forwards a loopback port to an address until dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    setting: Arc<watch::Sender<Setting>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free loopback port and forwards to `target` (`host:port`).
    pub async fn to(target: impl Into<String>) -> Result<Self> {
        let target = target.into();
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .context(|| "opening the proxy's port".into())?;
        let port = listener
            .local_addr()
            .context(|| "reading the proxy's port".into())?
            .port();
        let setting = Arc::new(
            watch::channel(Setting {
                mode: Mode::Open,
                delay: Duration::ZERO,
            })
            .0,
        );
        let settings = Arc::clone(&setting);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, target.clone(), settings.subscribe()));
            }
        });
        Ok(Self {
            port,
            setting,
            accepting,
        })
    }

    /// `127.0.0.1:PORT`, for clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `url` with its host and port replaced by the proxy's.
    pub fn url(&self, url: &str) -> String {
        match url::Url::parse(url) {
            Ok(mut parsed) => {
                let changed = parsed.set_host(Some("127.0.0.1")).is_ok()
                    && parsed.set_port(Some(self.port)).is_ok();
                if changed {
                    parsed.into()
                } else {
                    url.to_owned()
                }
            }
            Err(_) => url.to_owned(),
        }
    }

    /// Closes all connections; new ones are closed as soon as they are accepted.
    pub fn cut(&self) {
        self.set(|s| s.mode = Mode::Cut);
    }

    /// Keeps connections open and forwards nothing until [`Self::restore`].
    pub fn stall(&self) {
        self.set(|s| s.mode = Mode::Stalled);
    }

    /// The server does what clients ask for, and they do not hear of it: its answers are held back until
    /// [`Self::restore`]; connections on which something was asked meanwhile are closed in place of the answer.
    pub fn lose_answers(&self) {
        self.set(|s| s.mode = Mode::AnswersLost);
    }

    /// Ends a cut, stall, loss of answers or delay. What waited during a stall is forwarded.
    pub fn restore(&self) {
        self.set(|s| {
            s.mode = Mode::Open;
            s.delay = Duration::ZERO;
        });
    }

    /// Holds every chunk of bytes back for `delay`, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.set(|s| s.delay = delay);
    }

    fn set(&self, change: impl FnOnce(&mut Setting)) {
        self.setting.send_modify(change);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        // Ends the tasks that forward.
        self.cut();
    }
}

async fn serve(client: TcpStream, target: String, mut setting: watch::Receiver<Setting>) {
    if setting.borrow().mode == Mode::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(&target).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let forward = setting.clone();
    let backward = setting.clone();
    let asked = AtomicBool::new(false);
    let both = async {
        tokio::try_join!(
            pump(from_client, to_server, forward, Direction::ToServer, &asked),
            pump(
                from_server,
                to_client,
                backward,
                Direction::ToClient,
                &asked
            )
        )
    };
    tokio::select! {
        _ = both => {}
        _ = setting.wait_for(|s| s.mode == Mode::Cut) => {}
    }
}

/// An answer was lost: the rest of its connection makes no sense any more.
struct Lost;

/// Copies one direction until its end, which it passes on. `asked` tells the way back that something went to the server
/// whose answer is to be lost, however late it comes.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut setting: watch::Receiver<Setting>,
    direction: Direction,
    asked: &AtomicBool,
) -> std::result::Result<(), Lost> {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let delay = setting.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let open = setting
            .wait_for(|s| s.mode.lets_through(direction))
            .await
            .is_ok();
        match direction {
            Direction::ToServer if setting.borrow().mode == Mode::AnswersLost => {
                asked.store(true, SeqCst);
            }
            Direction::ToClient if asked.load(SeqCst) => return Err(Lost),
            _ => {}
        }
        if !open || to.write_all(&buffer[..length]).await.is_err() {
            return Ok(());
        }
    }
    let _ = to.shutdown().await;
    Ok(())
}
