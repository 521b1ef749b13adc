//! What can be seen of the daemon from the outside.

use crate::support::Daemon;
use provost::client::{Client, Target};
use std::os::unix::net::UnixStream;
use zbus::Connection;
use zbus::connection::Builder;

/// The memory that is its own, in KiB (proc(5), `smaps_rollup`). Pages of the program are not counted:
/// they come and go with other daemons.
pub fn memory(daemon: &Daemon) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", daemon.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// How many descriptors it has open.
pub fn descriptors(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

/// A connection to its private socket, without any of our client in between.
pub async fn connection(daemon: &Daemon) -> Connection {
    let stream = UnixStream::connect(daemon.path().join("private")).unwrap();
    Builder::unix_stream(stream).p2p().build().await.unwrap()
}

pub async fn clients(daemon: &Daemon, count: usize) -> Vec<Client> {
    let socket = daemon.path().join("private");
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::connect(&Target::Socket(socket.clone())).await.unwrap());
    }
    clients
}

/// The middle one.
pub fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}
