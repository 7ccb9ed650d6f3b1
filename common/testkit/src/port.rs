//! Loopback ports that stay ours while their server is down.

use std::{
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

use uuid::Uuid;

use crate::error::{IoContext, Result};

/// Below the range from which Linux takes ports for outgoing connections, so that no client grabs the port of a
/// server that is being restarted.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// A TCP port that no other testkit process will choose while this value lives.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    number: u16,
    /// An abstract socket named after the port: visible to all processes, gone with its holder.
    _claim: UnixListener,
}

impl ReservedPort {
    /// Picks a random free port and claims it.
    pub(crate) fn new() -> Result<Self> {
        let mut tried = 0;
        loop {
            tried += 1;
            match Self::claim(random_port()) {
                Ok(port) => return Ok(port),
                Err(_) if tried < 200 => {}
                Err(e) => return Err(e).context(|| "finding a free loopback port".into()),
            }
        }
    }

    fn claim(number: u16) -> std::io::Result<Self> {
        let name = format!("gristmill-testkit-port-{number}");
        let claim = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        TcpListener::bind(("127.0.0.1", number))?;
        Ok(Self {
            number,
            _claim: claim,
        })
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

fn random_port() -> u16 {
    let random = Uuid::new_v4().as_u64_pair().0 & 0xffff;
    let span = u64::from(RANGE.end - RANGE.start);
    RANGE.start + u16::try_from(random % span).unwrap_or(0)
}
