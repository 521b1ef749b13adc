//! Sockets at addresses.

use rustix::net::{AddressFamily, SocketFlags, SocketType, listen, socket_with, sockopt};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// How many connections wait to be taken; the kernel has a limit of its own.
pub const BACKLOG: i32 = 4096;

/// What a socket is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Use {
    /// It takes connections.
    Listen,
    /// It shows that its address can be had. Nobody can connect to it.
    Try,
}

/// A TCP socket at an address.
///
/// # Errors
/// What the system says.
pub fn bind(address: SocketAddr, used: Use) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Connections of the run before may linger; who listens still is another matter.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    if used == Use::Listen {
        listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}
