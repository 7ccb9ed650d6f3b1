//! Finds the process of a server from its URL.

use std::{collections::HashSet, fs};
use url::Url;

/// The process on this machine that listens on the port of `url`; `None` when there is none, or it is not ours to see.
pub(super) fn listening_at(url: &str) -> Option<u32> {
    let port = Url::parse(url).ok()?.port()?;
    let sockets = listening_sockets(port);
    let holders: Vec<u32> = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| holds(pid, &sockets))
        .collect();
    // A server's children may have inherited its socket; the parent is the oldest.
    holders.into_iter().min()
}

/// `socket:[inode]` of every socket that listens on `port`, over IPv4 and IPv6.
fn listening_sockets(port: u16) -> HashSet<String> {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            table
                .lines()
                .skip(1)
                .filter_map(|line| {
                    let fields: Vec<&str> = line.split_whitespace().collect();
                    let listens = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == LISTEN;
                    listens.then(|| format!("socket:[{}]", fields.get(9).unwrap_or(&"")))
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

fn holds(pid: u32, sockets: &HashSet<String>) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|target| {
            target
                .to_str()
                .is_some_and(|target| sockets.contains(target))
        })
}

#[cfg(test)]
mod tests {
    use super::listening_at;
    use std::net::TcpListener;

    #[test]
    fn finds_the_process_that_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!(
            "redis://127.0.0.1:{}/0",
            listener.local_addr().unwrap().port()
        );
        assert_eq!(listening_at(&url), Some(std::process::id()));
        drop(listener);
        assert_eq!(listening_at(&url), None);
    }
}
