//! What can be seen of the daemon from the outside.

use crate::common::processes;
use crate::support::Daemon;
use provost::client::{Client, Target};
use std::os::unix::net::UnixStream;
use zbus::Connection;
use zbus::connection::Builder;

/// The memory that is its own, in KiB.
pub fn memory(daemon: &Daemon) -> u64 {
    processes::memory(daemon.pid(), "Anonymous:")
}

/// How many descriptors it has open.
pub fn descriptors(daemon: &Daemon) -> usize {
    processes::descriptors(daemon.pid())
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
