//! One attempt at a connection, with a lifeline to cut it by.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::tcp::{AsyncTcpStream, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties, Error};

/// How long TCP, TLS and the AMQP handshake may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A second handle on a connection's socket. The client library can only end a connection by talking to the broker; one whose
/// broker does not answer would keep its thread and its queue of unsent frames for ever. Cutting the socket ends it at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Lifeline(Arc<Mutex<Option<TcpStream>>>);

impl Lifeline {
    fn attach(&self, socket: TcpStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
    }

    /// Ends the connection, whatever state it is in.
    pub(super) fn cut(&self) {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(socket) = socket
            && let Err(error) = socket.shutdown(Shutdown::Both)
        {
            // It is closed already: that is what was wanted.
            tracing::trace!(%error, "socket of a lost connection was closed before");
        }
    }
}

/// Connects within 10 s. On failure nothing of the attempt stays behind.
pub(super) async fn connect(uri: AMQPUri, name: &str) -> Result<(Connection, Lifeline), String> {
    let lifeline = Lifeline::default();
    let options = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
    let attached = lifeline.clone();
    // Not Connection::connect: it traces the whole URI, password included.
    let connecting = Connection::connector(
        uri,
        runtime,
        async move |uri, runtime| {
            let open = async {
                let addresses: Vec<SocketAddr> =
                    tokio::net::lookup_host((uri.authority.host.as_str(), uri.authority.port))
                        .await?
                        .collect();
                let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
                if let AsyncTcpStream::Plain(socket) = &stream {
                    let fd = socket.get_ref().as_fd().try_clone_to_owned()?;
                    attached.attach(TcpStream::from(fd));
                }
                match uri.scheme {
                    AMQPScheme::AMQP => Ok(stream),
                    AMQPScheme::AMQPS => {
                        let config = OwnedTLSConfig::default();
                        stream.into_tls(&uri.authority.host, config.as_ref()).await
                    }
                }
            };
            // This runs on the connection's own thread, out of reach of the timeout below.
            match tokio::time::timeout(CONNECT_TIMEOUT, open).await {
                Ok(stream) => stream.map_err(Error::from),
                Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
            }
        },
        options,
    );
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => Ok((connection, lifeline)),
        Ok(Err(error)) => {
            lifeline.cut();
            Err(error.to_string())
        }
        Err(_) => {
            lifeline.cut();
            Err(format!("no AMQP handshake within {CONNECT_TIMEOUT:?}"))
        }
    }
}
