//! The two calls of RabbitMQ's management API that tests need.

use std::{
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::error::{IoContext, Result, TestkitError};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Access to the management API (plain HTTP). Calls block.
#[derive(Debug, Clone)]
pub(crate) struct Management {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
}

impl Management {
    /// Base URL with credentials.
    pub(crate) fn url(&self) -> String {
        let Self {
            host,
            port,
            user,
            password,
        } = self;
        format!("http://{user}:{password}@{host}:{port}")
    }

    /// Errs unless the API answers and knows the user.
    pub(crate) fn is_alive(&self) -> Result<()> {
        self.call("GET", "/api/whoami")
    }

    /// Makes a vhost on which our user has all rights (RabbitMQ grants them to the maker).
    pub(crate) fn make_vhost(&self, name: &str) -> Result<()> {
        self.call("PUT", &format!("/api/vhosts/{name}"))
    }

    /// Removes a vhost with all that is in it, and closes its connections.
    pub(crate) fn remove_vhost(&self, name: &str) -> Result<()> {
        self.call("DELETE", &format!("/api/vhosts/{name}"))
    }

    fn call(&self, method: &str, path: &str) -> Result<()> {
        let address = format!("{}:{}", self.host, self.port);
        let status = self
            .exchange(&address, method, path)
            .context(|| format!("RabbitMQ management API at {address}"))?;
        if status.contains(" 20") {
            return Ok(());
        }
        Err(TestkitError::Request {
            server: "RabbitMQ management API",
            address,
            what: format!(
                "{method} {path} was answered with {status:?}; the user needs the tag `administrator`"
            ),
        })
    }

    /// Sends one request; gives the status line.
    fn exchange(&self, address: &str, method: &str, path: &str) -> std::io::Result<String> {
        let target = address
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| std::io::Error::other("the host name has no address"))?;
        let mut stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let credentials = BASE64_STANDARD.encode(format!("{}:{}", self.user, self.password));
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {credentials}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        Ok(answer.lines().next().unwrap_or_default().to_owned())
    }
}
